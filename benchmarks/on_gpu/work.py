"""What each stage does, in parts; one that fails leaves the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.on_gpu import (
    ahead,
    calibration,
    cascade,
    ceilings,
    checks,
    fusion,
    instances,
    memcheck,
    preprocessing,
    probe,
    refinement,
    variants,
)
from benchmarks.on_gpu.cascade import Plan, Setting, Variant
from benchmarks.on_gpu.data import Size
from benchmarks.on_gpu.profile import dearest
from benchmarks.on_gpu.record import Found, Missing, Record
from benchmarks.on_gpu.timing import Timer
from benchmarks.report import Row
from errseg_rt import Runtime
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.open import open_engine
from errseg_rt.errors import ErrsegError
from errseg_rt.options import Options
from errseg_rt.places.cubins import Cubins
from errseg_rt.system.cores import usable_cores

Part = tuple[str, Callable[[], Iterator[Found]]]
OPTIONS = Options("torch", device="cuda", precision="fp16")


@dataclass(frozen=True)
class Bench:
    """What stages work with; tests put other things in their places.

    Attributes:
        timer: Times work on a device.
        record: What earlier stages found.
        cores: Processes at a time.
        multiprocessors: Of the GPU.
        size: What kernels are measured on.
        plan: What whole frames are measured on.
        shipped: A bundle whose kernels are compiled ahead, and the size of its frame.
        ceilings: Sizes of what the ceilings are measured by.
        open_runtime: `Runtime`.
        open_torch: A GPU by torch, of a device.
        open_cuda_core: The same by cuda-core, of its index and compiled kernels.
        compile_kernels: Compiles them.
        build_engine: `build-engine` of a bundle, for a precision and a size of frames.
    """

    timer: Timer
    record: Record
    cores: int
    multiprocessors: int
    size: Size
    plan: Plan
    shipped: Callable[[], tuple[Bundle, tuple[int, int]]]
    open_runtime: Callable[..., Any]
    open_torch: Callable[[torch.device], Any]
    open_cuda_core: Callable[[int, Cubins], Any]
    compile_kernels: Callable[..., Cubins]
    build_engine: Callable[[Bundle, str, tuple[int, int]], object]
    ceilings: dict[str, int] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where."""
        return self.timer.device

    def row(self, name: str) -> Row | None:
        """What an earlier stage found, or an earlier run of it."""
        return next((row for row in self.record.rows() if row.name == name), None)


def on_gpu(device: str, repeats: int, record: Record) -> Bench:
    """A GPU of this machine.

    Raises:
        RuntimeError: There is none.
    """
    if not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} finds no NVIDIA GPU here")
    where = torch.device("cuda", torch.device(device).index or 0)
    torch.cuda.set_device(where)
    cores = usable_cores()
    return Bench(
        timer=Timer(where),
        record=record,
        cores=cores,
        multiprocessors=torch.cuda.get_device_properties(where).multi_processor_count,
        size=Size(),
        plan=Plan(repeats=repeats),
        shipped=lambda: (Bundle.open("camvid"), (1024, 2048)),
        open_runtime=Runtime,
        open_torch=_open_torch,
        open_cuda_core=_open_cuda_core,
        compile_kernels=lambda *which: ahead.compile_at_once(*which, cores),
        build_engine=_build_engine,
    )


def parts_of(stage: str, bench: Bench) -> Sequence[Part]:
    """A stage's parts, in their order."""
    size, timer, plan = bench.size, bench.timer, bench.plan
    if stage == "probe":
        return [
            ("what is installed", lambda: probe.look(bench.device)),
            ("numba", probe.compiled),
            ("triton", lambda: probe.launched(bench.device)),
        ]
    if stage == "kernels-right":
        return [("checks", lambda: checks.run_checks(checks.KERNELS, max(1, bench.cores - 2), "--noconftest"))]
    if stage == "frame-right":
        chosen = ("-m", "gpu", "-k", "not compiled")  # that takes minutes, and is a stage of its own
        return [("checks", lambda: checks.run_checks(checks.FRAMES, min(bench.cores, 6), *chosen))]
    if stage == "ahead":
        return [("kernels compiled ahead", lambda: _ahead(bench))]
    if stage == "memcheck":
        return [("memcheck", lambda: memcheck.check(min(bench.cores, 8)))]
    if stage == "kernels":
        return _kernels(bench)
    if stage == "frame":
        return [("whole frames", lambda: _frame(bench))]
    if stage == "tiles":
        return [
            ("variants", lambda: variants.variants(size, timer, bench.multiprocessors)),
            ("tiles", lambda: variants.tiles(size, timer)),
        ]
    if stage == "compile":
        chosen = ("-m", "gpu", "-k", "compiled")
        return [
            ("fuse_labels", lambda: fusion.compiled_fusion(size, timer)),
            ("checks", lambda: checks.run_checks(checks.FRAMES, 1, *chosen)),
            ("whole frames", lambda: _frames(bench, cascade.COMPILED)),
        ]
    if stage == "precisions":
        return [("whole frames", lambda: _frames(bench, cascade.PRECISIONS))]
    if stage == "tensorrt":
        return [(f"TensorRT in {', '.join(cascade.TENSORRT)}", lambda: _tensorrt(bench, plan))]
    raise ValueError(f"there is no stage {stage}")


def _kernels(bench: Bench) -> Sequence[Part]:
    torch.backends.cudnn.benchmark = True  # the best of its algorithms, for the baselines as for the engine
    size, timer = bench.size, bench.timer
    reached = ceilings.measure_ceilings(timer, **bench.ceilings)
    return [
        ("ceilings", lambda: ceilings.ceilings_found(reached)),
        ("graphs", lambda: ceilings.graphs(timer)),
        ("fuse_labels", lambda: fusion.fusion(size, timer, reached)),
        ("select and refine", lambda: refinement.refinement(size, timer, reached)),
        ("preprocess", lambda: preprocessing.preprocessing(size, timer, reached)),
        ("calibrate_final", lambda: calibration.calibration(size, timer)),
        ("instances", lambda: instances.told_apart(timer)),
    ]


def _ahead(bench: Bench) -> Iterator[Found]:
    fault = probe.cuda_core_fault()
    if fault:
        raise Missing(fault)
    (bundle, frame), gpu = bench.shipped(), bench.open_torch(bench.device)
    front, stage3 = (open_engine(bundle, graph, OPTIONS, gpu) for graph in ("front", "refine"))
    yield from ahead.measure(
        bundle, frame, (front, stage3), gpu, bench.open_cuda_core, bench.compile_kernels, bench.plan.repeats
    )


@contextmanager
def _setting(bench: Bench, *, with_graphs: bool = False) -> Iterator[Setting]:
    """A bundle in a temporary folder, and what the reference makes of it."""
    with TemporaryDirectory() as folder:
        bundle = cascade.make_bundle(Path(folder) / "bundle", bench.plan, bench.device, with_graphs=with_graphs)
        yield Setting.of(bundle, bench.plan, bench.device, bench.open_runtime)


def _frame(bench: Bench) -> Iterator[Found]:
    """The baseline and what it is a baseline of, then where the frame goes."""
    with _setting(bench) as setting:
        torch.backends.cudnn.benchmark = True
        yield from cascade.measure(setting, cascade.TORCH)
        engine = open_engine(setting.bundle, "front", OPTIONS, bench.open_torch(bench.device))
        image = cascade.image_of(bench.plan, engine, bench.device)
        yield from cascade.overhead(engine, image, bench.timer, bench.row("frame/torch_fp16"))
        yield from dearest("front_fp16", lambda: engine.run({"image": image}), bench.device)


def _frames(bench: Bench, which: Sequence[Variant]) -> Iterator[Found]:
    """Other ways to run frames, held against the baseline of the stage `frame`, where that was run."""
    baseline = bench.row(f"frame/{cascade.BASELINE}")
    if baseline is None:
        yield f"no baseline: run the stage frame into {bench.record.path.name} first"
    with _setting(bench) as setting:
        torch.backends.cudnn.benchmark = True
        yield from cascade.measure(setting, which, baseline)


def _tensorrt(bench: Bench, plan: Plan) -> Iterator[Found]:
    """Engines that `build-engine` builds, one precision after the other."""
    if find_spec("tensorrt") is None:
        raise Missing("TensorRT is not installed: pip install 'errseg-rt[tensorrt]'")
    baseline = bench.row(f"frame/{cascade.BASELINE}")
    with _setting(bench, with_graphs=True) as setting:
        for precision in cascade.TENSORRT:
            start = time.perf_counter()
            try:
                bench.build_engine(setting.bundle, precision, plan.frame)
            except ErrsegError as error:
                yield f"tensorrt_{precision}: not built, {str(error).splitlines()[0]}"
                continue
            yield Row(f"build/tensorrt_{precision}", time.perf_counter() - start, "s", note="both graphs, and kernels")
            yield from cascade.measure(setting, cascade.of_tensorrt(precision), baseline)


def _build_engine(bundle: Bundle, precision: str, frame: tuple[int, int]) -> object:
    from errseg_rt.export.engines.builds import BuildOptions, build_engine
    from errseg_rt.export.engines.profiles import Profile

    return build_engine(bundle, BuildOptions("tensorrt", precision, Profile.parse(f"{frame[0]}x{frame[1]}")))


def _open_torch(device: torch.device) -> Any:
    from errseg_rt.places.torch_gpu import TorchGpu

    return TorchGpu(device)


def _open_cuda_core(index: int, cubins: Cubins) -> Any:
    from errseg_rt.places.cuda_core_gpu import CudaCoreGpu

    return CudaCoreGpu(index, cubins)
