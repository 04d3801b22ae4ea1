"""What `benchmarks/gpu.py` does on a GPU, done at tiny sizes by Triton's interpreter: every row, every check."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import triton

from benchmarks import gpu
from benchmarks.on_gpu import ahead, cascade, kernels
from benchmarks.on_gpu.timing import Ceilings, Energy, Timer, Wrong
from errseg_rt.engines.open import open_engine
from errseg_rt.errors import EngineError
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels.refine import launches
from errseg_rt.options import Limits, Options
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.places.cubins import Cubins
from tests.kernels.wide_tiles import widen_tiles
from tests.places.eager_gpu import EagerGpu
from tests.places.host_gpu import HostGpu, interpret

assert triton.knobs.runtime.interpret
CPU = torch.device("cpu")
TIMER, CEILINGS = Timer(CPU), Ceilings(1e9, 1e12)
SIZE = kernels.Size(frame=(65, 97), classes=3, width=16, low=16)
PLAN = cascade.Plan(frame=(49, 65), semantic="squeezenas", error_width=8, detail_width=16, repeats=2)


@pytest.fixture(autouse=True)
def wide_tiles(monkeypatch):
    widen_tiles(monkeypatch)
    for name in ("SMALL", "LARGE", "FLOAT32"):
        monkeypatch.setattr(launches, name, launches.Tile(512, 64, 160, 4, 3))


class StandIn:
    """A runtime on the CPU, in the stead of one on a GPU."""

    def __init__(self, bundle, *, device, engine, threshold=0.7, precision="fp16", detail=None, budget=None, **options):
        if options.get("compiled"):
            raise EngineError("no compiler here\nat all")
        if engine == "tensorrt":
            raise EngineError("no such library")
        gpu = EagerGpu()
        chosen = Options(engine, device="cuda", precision=precision)
        front, stage3 = (open_engine(bundle, graph, chosen, gpu) for graph in ("front", "refine"))
        self.pipeline = Pipeline(bundle, front, stage3, gpu, detail=detail)
        self.limits, self.frame = Limits(threshold, budget), None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def warm_up(self, size):
        assert size == PLAN.frame

    def branches(self, frame):
        return self.pipeline.branches(torch.from_numpy(frame))

    def segment(self, frame):
        words = torch.from_numpy(self.pipeline.plan(frame.shape[:2]).bounds(self.limits).words())
        outcome = self.pipeline.run(torch.from_numpy(frame), Ask(), words, self.pipeline.place.marks())
        return replace(outcome.cpu(), timings={"compute": 2.0})

    def submit(self, frame):
        self.frame = frame
        return self

    def result(self):
        return self.segment(self.frame)


def test_everything_is_measured_and_written(tmp_path, capsys, monkeypatch):
    # bfloat16 products are wrong in the interpreter; two variants tell as much as six here.
    all_variants = cascade.variants
    wanted = ("torch_fp16_dense", "torch_fp16", "torch_compile_fp16", "tensorrt_fp16")
    monkeypatch.setattr(
        cascade, "variants", lambda has_tensorrt: [v for v in all_variants(has_tensorrt) if v.name in wanted]
    )
    monkeypatch.setattr(kernels, "SHARES", (0.05, 0.2))
    # The interpreter's kernels cannot be compiled, and are launched as they are.
    monkeypatch.setattr(ahead, "compile_kernels", lambda *which: Cubins({}))
    monkeypatch.setattr(gpu, "open_cuda_core", lambda index, cubins: HostGpu(run=interpret, capability=(0, 0)))
    monkeypatch.setattr(gpu, "open_torch", lambda device: EagerGpu())
    rows, failed = gpu.measure(["kernels", "frame", "ahead"], TIMER, SIZE, PLAN, StandIn, has_tensorrt=False)
    printed = capsys.readouterr().out
    assert not failed, failed
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    for name in (
        "gpu/copy_bandwidth", "gpu/matrix_rate", "fuse_labels/gpu_vs_torch_eager", "preprocess/gpu_vs_torch_eager",
        "select/gpu@5%", "select/gpu_with_budget@5%", "refine/gpu_select_and_refine@5%",
        "refine/gpu_vs_gather_and_matmul@5%", "cascade/gpu_post_front@20%",
        "roofline/fuse_labels", "roofline/refine@5%", "roofline/refine_dense_cudnn", "frame/torch_fp16_dense",
        "frame/torch_fp16", "latency/torch_fp16", "fps/torch_fp16", "semantic/torch_fp16",
        "cascade/gpu_overhead@torch_fp16", "cascade/without_torch_post_front@5%",
    ):  # fmt: skip
        assert name in names, name
    assert "frame/torch_compile_fp16: not measured, no compiler here\n" in printed
    assert "frame/tensorrt_*: not measured, TensorRT is not installed" in printed
    path = tmp_path / "gpu.json"
    gpu.write(path, rows, failed, {"date": "today", "gpu": {"name": "none"}})
    assert len(json.loads(path.read_text())["rows"]) == len(rows)
    assert path.with_suffix(".png").stat().st_size > 1000


def test_tensorrt_is_tried_where_it_is_installed():
    names = [variant.name for variant in cascade.variants(has_tensorrt=True)]
    assert {f"tensorrt_{precision}{end}" for precision in cascade.TENSORRT for end in ("", "_dense")} <= set(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "part"),
    [("fuse_labels", kernels.fusion), ("preprocess", kernels.preprocessing), ("select", kernels.refinement),
     ("refine", kernels.refinement)],
)  # fmt: skip
def test_what_is_wrong_is_not_timed(name, part, monkeypatch):
    right = getattr(kernels, name)

    def wrong(*arguments, **options):
        result = right(*arguments, **options)
        if name == "fuse_labels":
            result.labels[0, 0] = 7
        elif name == "select":
            result.rows[0, 0] += 1
        else:
            result[..., 0] += 1
        return result

    monkeypatch.setattr(kernels, name, wrong)
    rows = []
    with pytest.raises(Wrong, match=name):
        rows.extend(part(SIZE, TIMER, CEILINGS))
    assert not [row for row in rows if row.name.startswith(f"{name}/")]


def test_other_tiles_are_tried_and_the_shipped_ones_put_back():
    kept = launches.SMALL, launches.LARGE
    rows = list(kernels.tiles(replace(SIZE, frame=(32, 32)), TIMER))
    assert len(rows) == 22
    assert kept == (launches.SMALL, launches.LARGE)


def test_a_part_that_fails_is_named_and_the_others_are_measured(monkeypatch):
    def fails(*arguments):
        raise RuntimeError("no more memory")
        yield

    monkeypatch.setattr(kernels, "fusion", fails)
    monkeypatch.setattr(kernels, "refinement", lambda *arguments: iter(()))
    rows, failed = gpu.measure(["kernels"], TIMER, SIZE, PLAN, StandIn, has_tensorrt=False)
    assert failed == ["fuse_labels: no more memory"]
    assert "preprocess/gpu_vs_torch_eager" in [row.name for row in rows]


def test_shares_of_a_ceiling():
    assert Ceilings(copy=100, matrix=1000).share(50, 100, 1) == (0.5, "copy bandwidth")
    assert Ceilings(copy=100, matrix=1000).share(50, 2000, 4) == (0.5, "matrix rate")


def test_energy_is_none_where_nothing_tells_it():
    assert Energy(CPU).joules() is None
