"""What stages of `benchmarks/gpu.py` do on a GPU, done at tiny sizes by Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import pytest
import torch
import triton

from benchmarks.instances import nuclei_scene, street_scene
from benchmarks.on_gpu import calibration, cascade, fusion, instances, preprocessing, probe, refinement, variants
from benchmarks.on_gpu.data import Size
from benchmarks.on_gpu.record import DONE, FAILED, NOT_RUN, Record
from benchmarks.on_gpu.timing import Ceilings, Energy, Timer, Wrong
from benchmarks.on_gpu.work import Bench, parts_of
from benchmarks.on_gpu.worker import run_parts
from benchmarks.report import Row
from errseg_rt.engines.open import open_engine
from errseg_rt.errors import EngineError
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels import Layers, select
from errseg_rt.kernels.fuse_labels import launches as of_fusion
from errseg_rt.kernels.refine import launches
from errseg_rt.kernels.select import launches as of_selection
from errseg_rt.options import Limits, Options
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.places.cubins import Cubins
from tests.kernels.wide_tiles import widen_tiles
from tests.places.eager_gpu import EagerGpu
from tests.places.host_gpu import HostGpu, interpret

assert triton.knobs.runtime.interpret
CPU = torch.device("cpu")
TIMER, CEILINGS = Timer(CPU), Ceilings(1e9, 1e12)
SIZE = Size(frame=(65, 97), classes=3, width=16, low=16)
FP32 = Options("torch", device="cuda", precision="fp32")
SCENES = {
    "1024x2048": lambda: street_scene((44, 68), 3),
    "696x520": lambda: nuclei_scene((26, 34), 4),
}
PLAN = cascade.Plan(frame=(49, 65), semantic="squeezenas", error_width=8, detail_width=16, repeats=1, views=1)


@pytest.fixture(autouse=True)
def wide_tiles(monkeypatch):
    widen_tiles(monkeypatch)
    for name in ("SMALL", "LARGE", "FLOAT32"):
        monkeypatch.setattr(launches, name, launches.Tile(512, 64, 160, 4, 3))


class StandIn:
    """A runtime on the CPU, in the stead of one on a GPU; the bundle is always the same, and so is what it gives."""

    known: ClassVar[dict] = {}

    def __init__(self, bundle, *, device, engine, threshold=0.7, precision="fp16", detail=None, **options):
        if options.get("compiled"):
            raise EngineError("no compiler here\nat all")
        self.bundle, self.how = bundle, detail  # all in fp32: a CPU takes seconds for convolutions in fp16
        self.threshold, self.waiting = threshold, None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def warm_up(self, size):
        assert size == PLAN.frame

    @cached_property
    def pipeline(self):
        gpu = EagerGpu()
        front, stage3 = (open_engine(self.bundle, graph, FP32, gpu) for graph in ("front", "refine"))
        return Pipeline(self.bundle, front, stage3, gpu, detail=self.how)

    def branches(self, frame):
        return self.once(("branches", frame.tobytes()), lambda: self.pipeline.branches(torch.from_numpy(frame)))

    def segment(self, frame, *, threshold=None, budget=None):
        limits = Limits(threshold or self.threshold, budget)

        def compute():
            words = torch.from_numpy(self.pipeline.plan(frame.shape[:2]).bounds(limits).words())
            outcome = self.pipeline.run(torch.from_numpy(frame), Ask(), words, self.pipeline.place.marks())
            return replace(outcome.cpu(), timings={"compute": 2.0})

        return self.once((limits, frame.tobytes()), compute)

    def once(self, key, compute):
        if (self.how, key) not in self.known:
            self.known[self.how, key] = compute()
        return self.known[self.how, key]

    def submit(self, frame, *, budget=None):
        self.waiting = (frame, budget)
        return self

    def result(self):
        frame, budget = self.waiting
        return self.segment(frame, budget=budget)


def cuda_core(index, cubins):
    return HostGpu(run=interpret, capability=(0, 0))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return cascade.make_bundle(tmp_path_factory.mktemp("made") / "bundle", PLAN, CPU)


@pytest.fixture
def bench(tmp_path, monkeypatch, bundle):
    """The CPU, in the stead of a GPU; the interpreter's kernels cannot be compiled, and are launched as they are."""
    monkeypatch.setattr("benchmarks.on_gpu.work.OPTIONS", FP32)
    record = Record(tmp_path / "gpu.json")
    record.open({"gpu": {"name": "none"}})
    make = cascade.make_bundle
    monkeypatch.setattr(
        cascade,
        "make_bundle",
        lambda *which, with_graphs: make(*which, with_graphs=True) if with_graphs else bundle,
    )
    return Bench(
        timer=TIMER,
        record=record,
        cores=2,
        multiprocessors=2,
        size=SIZE,
        plan=PLAN,
        shipped=lambda: (bundle, PLAN.frame),
        open_runtime=StandIn,
        open_torch=lambda device: EagerGpu(),
        open_cuda_core=cuda_core,
        compile_kernels=lambda *which: Cubins({}),
        build_engine=lambda bundle, precision, size: None,
        ceilings={"size": 1 << 16, "side": 32},
    )


def run(bench, stage):
    """A stage as its process runs it: exit code, what became of it, and its rows."""
    bench.record.begin(stage)
    code = run_parts(stage, bench.record, parts_of(stage, bench))
    bench.record.end(stage, {0: DONE, 1: FAILED}.get(code, NOT_RUN), 1.0)
    rows = bench.record.rows(stage)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    return code, bench.record.read()["stages"][stage], {row.name: row for row in rows}


def test_the_probe_names_versions_and_what_is_missing(bench):
    code, stage, rows = run(bench, "probe")
    assert (code, rows, stage["why"]) == (0, {}, [])
    showed = "; ".join(stage["showed"])
    for words in (
        f"torch {torch.__version__}",
        "TF32 is on",
        "cuda-core ",
        "compute-sanitizer: ",
        "numba ",
        "a kernel runs",
    ):
        assert words in showed


def test_kernels_are_checked_and_timed(bench, monkeypatch):
    monkeypatch.setattr(refinement, "SHARES", (0.05, 0.2))
    monkeypatch.setattr(instances, "SCENES", SCENES)
    code, stage, rows = run(bench, "kernels")
    assert (code, stage["why"]) == (0, [])
    for name in (
        "gpu/copy_bandwidth", "gpu/matrix_rate", "gpu/empty_graph", "gpu/graph_of_one_small_launch",
        "fuse_labels/gpu_vs_torch_eager", "preprocess/gpu_vs_torch_eager",
        "select/gpu@5%", "select/gpu_with_budget@5%", "refine/gpu_select_and_refine@5%",
        "refine/gpu_vs_gather_and_matmul@5%", "cascade/gpu_post_front@20%",
        "roofline/fuse_labels", "roofline/refine@5%", "roofline/refine_dense_cudnn",
        "calibrate_final/gpu_vs_torch_eager", "instances/gpu@1024x2048", "instances/gpu@696x520",
    ):  # fmt: skip
        assert name in rows, name
    assert rows["instances/gpu@696x520"].unit == "ms"
    assert "grid 13x17, frame 26x34; " in rows["instances/gpu@696x520"].note


def test_frames_are_timed_and_profiled(bench):
    code, stage, rows = run(bench, "frame")
    assert (code, stage["why"]) == (0, [])
    for name in (
        "frame/torch_fp16_dense", "frame/torch_fp16", "frame/torch_fp16_budget_5%", "latency/torch_fp16",
        "fps/torch_fp16", "semantic/torch_fp16", "cascade/gpu_overhead@torch_fp16",
    ):  # fmt: skip
        assert name in rows, name
    assert rows["frame/torch_fp16_dense"].ratio == 1
    assert any("profile/front_fp16/operation_1:" in name for name in rows)


@pytest.mark.parametrize("has_baseline", [True, False])
def test_other_precisions_are_held_against_the_baseline_of_an_earlier_run(bench, monkeypatch, has_baseline):
    monkeypatch.setattr(cascade, "PRECISIONS", cascade.PRECISIONS[:1])
    if has_baseline:
        bench.record.begin("frame")
        bench.record.add("frame", Row("frame/torch_fp16_dense", 8.0, "ms", quantiles=(6.0, 8.0, 10.0)))
    code, stage, rows = run(bench, "precisions")
    assert code == 0
    assert ("no baseline: run the stage frame into gpu.json first" in stage["showed"]) != has_baseline
    row = rows["frame/torch_bf16"]
    assert (row.ratio, row.quantiles) == ((4.0, (3.0, 4.0, 5.0)) if has_baseline else (1.0, (1.0, 1.0, 1.0)))


def test_a_variant_that_cannot_be_run_is_named(bundle):
    setting = cascade.Setting.of(bundle, PLAN, CPU, StandIn)
    found = list(cascade.measure(setting, (*cascade.COMPILED, cascade.TORCH[0])))
    assert found[0] == "torch_compile_fp16: not measured, no compiler here"
    assert next(row.name for row in found if isinstance(row, Row)) == "frame/torch_fp16_dense"


def test_kernels_compiled_ahead_give_the_labels_of_torch(bench, monkeypatch):
    monkeypatch.setattr(probe, "version_of", lambda name: "1.2.2")
    code, stage, rows = run(bench, "ahead")
    assert (code, stage["why"]) == (0, [])
    assert set(rows) == {"ahead/compile", "cascade/without_torch_post_front@5%"}
    assert stage["showed"][0].startswith("the flagged pixels of torch")


@pytest.mark.parametrize(
    ("version", "why"),
    [(None, "cuda-core is not installed: pip install"), ("0.5.1", "cuda-core 0.5.1 is too old: pip install")],
)
def test_a_machine_without_cuda_core_has_nothing_to_run_ahead(bench, monkeypatch, version, why):
    monkeypatch.setattr(probe, "version_of", lambda name: version)
    code, stage, rows = run(bench, "ahead")
    assert (code, stage["state"], rows) == (77, NOT_RUN, {})
    assert stage["why"][0].startswith(why)


@pytest.mark.parametrize(
    ("stage", "module", "name", "why"),
    [
        ("tensorrt", "benchmarks.on_gpu.work", "find_spec", "TensorRT is not installed: pip install"),
        ("memcheck", "benchmarks.on_gpu.memcheck", "sanitizer", "compute-sanitizer is not installed"),
    ],
)
def test_what_a_machine_lacks_is_one_line(bench, monkeypatch, stage, module, name, why):
    monkeypatch.setattr(f"{module}.{name}", lambda *which: None)
    code, found, rows = run(bench, stage)
    assert (code, found["state"], rows, len(found["why"])) == (77, NOT_RUN, {}, 1)
    assert found["why"][0].startswith(why)


def test_engines_of_tensorrt_are_built_and_timed(bench, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.setattr("benchmarks.on_gpu.work.find_spec", lambda name: object())
    monkeypatch.setattr("errseg_rt.export.graphs.export_graphs", lambda cascade: {"front": b"front"})
    monkeypatch.setattr(cascade, "TENSORRT", ("int8", "fp16"))
    built = []

    def build(bundle, precision, size):
        built.append((bundle.read("graphs/front.onnx"), precision, size))
        if precision == "int8":
            raise EngineError("no such tactic\nat all")

    code, stage, rows = run(replace(bench, build_engine=build), "tensorrt")
    assert (code, stage["why"]) == (0, [])
    assert built == [(b"front", "int8", PLAN.frame), (b"front", "fp16", PLAN.frame)]
    assert "tensorrt_int8: not built, no such tactic" in stage["showed"]
    assert {"build/tensorrt_fp16", "frame/tensorrt_fp16", "frame/tensorrt_fp16_dense"} <= set(rows)
    assert "bar: at most 7.1 ms" in rows["frame/tensorrt_fp16"].note


@pytest.mark.parametrize(
    ("name", "module", "part"),
    [("fuse_labels", fusion, fusion.fusion), ("preprocess", preprocessing, preprocessing.preprocessing),
     ("select", refinement, refinement.refinement), ("refine", refinement, refinement.refinement)],
)  # fmt: skip
def test_what_is_wrong_is_not_timed(name, module, part, monkeypatch):
    right = getattr(module, name)

    def wrong(*arguments, **options):
        result = right(*arguments, **options)
        if name == "fuse_labels":
            result.labels[0, 0] = 7
        elif name == "select":
            result.rows[0, 0] += 1
        else:
            result[..., 0] += 1
        return result

    monkeypatch.setattr(module, name, wrong)
    rows = []
    with pytest.raises(Wrong, match=name):
        rows.extend(part(SIZE, TIMER, CEILINGS))
    assert not [row for row in rows if row.name.startswith(f"{name}/")]


@pytest.mark.parametrize(
    ("changed", "who"), [("enqueue_calibrate", "calibrate_final"), ("eager_final", "torch eager's error probability")]
)
def test_a_wrong_error_probability_is_not_timed(changed, who, monkeypatch):
    right = getattr(calibration, changed)
    monkeypatch.setattr(calibration, changed, lambda *operands: right(*operands) + 1e-4)
    with pytest.raises(Wrong, match=rf"^{who} differs from the definition by 1\.0e-04$"):
        list(calibration.calibration(SIZE, TIMER))


@pytest.mark.parametrize("name", ["map", "classes", "scores", "count"])
def test_other_instances_than_the_cpus_are_not_timed(name, monkeypatch):
    right = instances.enqueue_instances

    def wrong(*operands):
        found = right(*operands)
        getattr(found, name).view(-1)[0] += 1
        return found

    monkeypatch.setattr(instances, "SCENES", SCENES)
    monkeypatch.setattr(instances, "enqueue_instances", wrong)
    with pytest.raises(Wrong, match=r"^instances@1024x2048: other instances than the CPU's$"):
        list(instances.told_apart(TIMER))


def test_near_ties_are_those_within_two_units_in_the_last_place():
    one = 2.0**-10  # of half precision, between 1 and 2
    logits = [
        [1.5, 1.5, 0],
        [1.5, 1.5 + 2 * one, 0],
        [1.5, 1.5 + 3 * one, 0],
        [6, 6 + 8 * one, 0],
        [6, 6 + 12 * one, 0],
    ]
    logits.append([-3, -3 + 4 * one, -9])
    found = refinement.near_ties(torch.tensor(logits).half())
    assert found.tolist() == [True, True, False, True, False, True]


@pytest.mark.parametrize(("others", "is_wrong"), [(0, False), (5, False), (12, True)])
def test_labels_of_the_sparse_stage_may_differ_rarely_but_for_near_ties(others, is_wrong):
    error_logit = np.ones((25, 40), np.float32)  # all are flagged
    selection = select(torch.from_numpy(error_logit), 0.5, layers=Layers((1, 1, 1)))
    rows = torch.randn((1000, 3), generator=torch.Generator().manual_seed(0)).half()
    rows[:, 2] += 9
    rows[500:] = torch.tensor([1.0, 1.0 + 2**-10, 0])
    whole = rows.T.reshape(3, 25, 40)
    found = rows.clone()
    found[:others, 0] += 30
    found[500:, 0] += 30
    arguments = (selection, error_logit, 0.5, Layers((1, 1, 1)), found, whole)
    if is_wrong:
        with pytest.raises(Wrong, match=r"only 97.600% of the flagged labels are those of the dense stage"):
            refinement._check_selection(*arguments)
    else:
        assert refinement._check_selection(*arguments) == pytest.approx(1 - others / 500)


def test_other_launches_are_tried_and_the_shipped_ones_put_back(bench, monkeypatch):
    constants = [
        (launches, "SMALL"),
        (launches, "LARGE"),
        (launches, "PROGRAMS"),
        (of_fusion, "TILE_ROWS"),
        (of_selection, "TICKET"),
    ]
    monkeypatch.setattr(variants, "TILES", variants.TILES[:2])
    monkeypatch.setattr(launches, "SMALL", launches.Tile(32, 64, 160, 4, 3))  # so that a program has tiles to do
    kept = [getattr(*each) for each in constants]
    code, stage, rows = run(replace(bench, size=replace(SIZE, frame=(33, 33))), "tiles")
    assert (code, stage["why"]) == (0, [])
    assert [getattr(*each) for each in constants] == kept
    for name in ("refine@persistent_2", "select_with_budget@ticket", "select_with_budget@shipped"):
        assert f"variants/{name}" in rows
    assert sum(name.startswith("variants/fuse_labels@tiles_") for name in rows) == 2
    assert sum(name.startswith("variants/refine_tile@") for name in rows) == 5
    assert rows["variants/refine@persistent_2"].note == "the same bits"


def test_a_launch_that_gives_something_else_is_not_timed():
    class Module:
        SIGN, PLACE = 1, 0

    trials = [variants.Trial("other", {"SIGN": -1}), variants.Trial("same", {"PLACE": 1}),
              variants.Trial("none", {"PLACE": 9})]  # fmt: skip

    def work():
        return ([torch.ones(3)] * 2)[Module.PLACE] * Module.SIGN

    operation = variants.Operation("op", Module, work, TIMER.time, trials, lambda tensor: [tensor])
    found = []
    with pytest.raises(Wrong, match="variants/op@other: other results"):
        found.extend(variants.compared(operation))
    rows = [row.name for row in found if isinstance(row, Row)]
    assert rows == ["variants/op@shipped", "variants/op@same"]
    assert found[-1] == "variants/op@none: not measured, list index out of range"
    assert (Module.SIGN, Module.PLACE) == (1, 0)


def test_a_part_that_fails_is_named_and_the_others_are_measured(bench, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("no more memory\nat all")
        yield

    monkeypatch.setattr(fusion, "fusion", fails)
    monkeypatch.setattr(refinement, "refinement", lambda *arguments: iter(()))
    monkeypatch.setattr(instances, "SCENES", {})
    code, stage, rows = run(bench, "kernels")
    assert (code, stage["state"], stage["why"]) == (1, FAILED, ["fuse_labels: no more memory"])
    assert "preprocess/gpu_vs_torch_eager" in rows


def test_shares_of_a_ceiling():
    assert Ceilings(copy=100, matrix=1000).share(50, 100, 1) == (0.5, "copy bandwidth")
    assert Ceilings(copy=100, matrix=1000).share(50, 2000, 4) == (0.5, "matrix rate")


def test_energy_is_none_where_nothing_tells_it():
    assert Energy(CPU).joules() is None
