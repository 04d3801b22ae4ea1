"""Built engines: from a bundle's graphs to what an engine runs fastest on this machine, held against fp32."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from errseg_rt.bundle.built import ANY_SHAPE, REPORT, BuiltEngine, EngineStore, Shapes, add_file
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.fitting import BUILT_PRECISIONS, built_engines, key_here
from errseg_rt.errors import EngineError
from errseg_rt.export.engines.frames import Frames, load_frames
from errseg_rt.export.engines.parity import compare
from errseg_rt.export.engines.precision import LOW_PRECISIONS, lower
from errseg_rt.export.engines.profiles import Profile
from errseg_rt.export.engines.quantise import quantise
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.options import Options
from errseg_rt.pipeline.open import open_way
from errseg_rt.places.cubins import KERNELS
from errseg_rt.places.driver import find_gpu

BARS = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.995, "int8": 0.99}
"""Share of equal labels that every branch of a build must reach, by precision."""
DEFAULT_SHAPE = "1024x2048"
"""Size of frames that TensorRT engines are built for unless another is given: that of Cityscapes."""
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        engine: `"tensorrt"` or `"onnxruntime"`.
        precision: A key of `BARS`.
        shape: Sizes of frames, for TensorRT; None: any, for onnxruntime.
        bar: Least share of equal labels, branch by branch; None: parity is not measured.
        frames: Folder of frames to calibrate and to check on; None: rendered streets.
        workspace: Most scratch memory of a layer of TensorRT, in GiB; None: all that is free.
        timing_cache: File in which TensorRT keeps its timings.
    """

    engine: str
    precision: str
    shape: Profile | None = None
    bar: float | None = None
    frames: Path | None = None
    workspace: float | None = None
    timing_cache: Path | None = None


@dataclass(frozen=True)
class Built:
    """An engine that is in its bundle.

    Attributes:
        engine: The engine.
        report: Its parity with the reference, as JSON has it; None where it was not measured.
        is_new: Whether it was built now.
    """

    engine: BuiltEngine
    report: dict[str, Any] | None
    is_new: bool


def check_target(bundle: str, options: BuildOptions, shapes: Sequence[str], out: Path | None = None) -> None:
    """Raise EngineError where an engine cannot be built, since this is not the machine that is to run it.

    TensorRT times layers on the GPU that it builds for: none can be built for a GPU that is elsewhere.

    Args:
        bundle: As a user names it.
        options: How to build.
        shapes: Sizes of frames as a user gives them.
        out: Where the bundle is copied to first.
    """
    if options.engine != "tensorrt":
        return
    try:
        find_gpu()
    except EngineError as error:
        words = ["errseg-rt", "build-engine", bundle, "--precision", options.precision]
        words += [word for shape in shapes for word in ("--shape", shape)]
        words += ["--out", str(out)] if out else []
        raise EngineError(
            f"a TensorRT engine is built on the GPU that runs it, and there is none here ({error}): on the machine "
            f"that has it, run {shlex.join(words)}"
        ) from error


def build_engine(bundle: Bundle, options: BuildOptions, report: Report = lambda phase, done, steps: None) -> Built:
    """Build an engine into its bundle, or find it there.

    Nothing is left in the bundle but a whole engine, whenever this is ended.

    Args:
        bundle: The bundle.
        options: How to build.
        report: Is told what goes on, steps done, and steps in all; from any thread.

    Raises:
        EngineError: It cannot be built here (`check_target`), another builder is at work, or a branch is under the bar.
        BundleError: The bundle cannot be written to.
        DataError: The frames' labels are not those of the bundle's classes.
        FrameError: The frames cannot be read.
    """
    check_target(str(bundle.folder), options, [str(options.shape)] if options.shape else [])
    inputs = options.shape.of_input(bundle.manifest.input) if options.shape else None
    key = key_here(bundle, options.engine, options.precision, str(inputs or ANY_SHAPE))
    store = bundle.engines
    found = store.find(key)
    if found and (options.bar is None or REPORT in found.files):
        return Built(found, json.loads(found.read(REPORT)) if REPORT in found.files else None, is_new=False)
    size = (options.shape or Profile.parse(DEFAULT_SHAPE)).best
    with store.locked(), store.building() as workshop:
        needs_frames = options.precision == "int8" or options.bar is not None
        frames = load_frames(options.frames, bundle.manifest, size) if needs_frames else Frames([], [], [])
        profiles, files = _files(bundle, options, inputs, frames, report)
        built = workshop.put(key, str(options.shape or ANY_SHAPE), profiles, files)
        parity = None
        if options.bar is not None:
            parity = _check(bundle, workshop, options, options.bar, frames, report)
            built = add_file(built, REPORT, (json.dumps(parity, indent=2) + "\n").encode())
        return Built(store.adopt(built), parity, is_new=True)


def build_missing(bundle: Bundle, options: Options) -> None:
    """What `build="auto"` builds: the shapes of stale engines anew, or where there is none, the default shape.

    Args:
        bundle: The bundle.
        options: Of the runtime that is to be opened.

    Raises:
        EngineError: As `build_engine` says; under the precision's bar nothing is built.
    """
    kind = engine, precision = options.engine, options.arithmetic
    if engine == "torch" or kind == ("onnxruntime", "fp32"):
        return  # they run what lies in the bundle
    try:
        built_engines(bundle, engine, precision, options.index)
    except EngineError:
        there = {each.frames for each in bundle.engines.all() if (each.key.engine, each.key.precision) == kind}
        for frames in sorted(there or {DEFAULT_SHAPE}):
            shape = Profile.parse(frames) if engine == "tensorrt" else None
            build_engine(bundle, BuildOptions(engine, precision, shape, BARS[precision]))


def _files(
    bundle: Bundle, options: BuildOptions, inputs: Profile | None, frames: Frames, report: Report
) -> tuple[dict[str, Shapes], dict[str, bytes]]:
    """The built graphs by file name, and the shapes that they were built for."""
    models = {graph: bundle.read(f"graphs/{graph}.onnx") for graph in bundle.manifest.graphs}
    if options.precision == "int8":
        report("quantise", 0, 1)
        models["front"] = quantise(models["front"], list(_feeds(bundle, frames)), options.engine)
        report("quantise", 1, 1)
    if options.engine == "onnxruntime":
        # Refinement on the supports and everywhere must stay the same function: the refine graph is the bundle's.
        return {}, {"front.onnx": models["front"]}
    from errseg_rt.export.engines.tensorrt.plan import build_plan

    if inputs is None or options.shape is None:
        raise ValueError("TensorRT wants the sizes that it builds for")
    outside = "fp16" if options.precision == "int8" else options.precision
    if outside in LOW_PRECISIONS:
        models = {graph: lower(model, outside) for graph, model in models.items()}
    profiles, plans = {}, _kernels(bundle, models, options.shape, report)
    for graph, model in models.items():
        profiles[graph] = inputs.shapes(onnx.load_from_string(model).graph, bundle.manifest.grid_stride)
        plans[f"{graph}.plan"] = build_plan(
            model,
            graph,
            profiles[graph],
            workspace=options.workspace,
            timing_cache=options.timing_cache,
            report=_named(graph, report),
        )
    return profiles, plans


def _kernels(bundle: Bundle, models: Mapping[str, bytes], frames: Profile, report: Report) -> dict[str, bytes]:
    """The kernels for a runtime without torch, by file name; none where no Triton is installed."""
    if find_spec("triton") is None:
        return {}
    from errseg_rt.export.engines.kernels import compile_kernels, signature_of

    def told(done: int, count: int) -> None:
        report("kernels: compile", done, count)

    refine = signature_of(models["refine"]) if "refine" in models else None
    return {
        KERNELS: compile_kernels(
            bundle, signature_of(models["front"]), refine, frames, find_gpu().capability, told
        ).to_bytes()
    }


def _named(graph: str, report: Report) -> Report:
    return lambda phase, done, steps: report(f"{graph}: {phase}", done, steps)


def _feeds(bundle: Bundle, frames: Frames) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    """Inputs of the front graph."""
    spec = bundle.manifest.input
    for frame in frames.calibration:
        content, padded = spec.sizes((frame.shape[0], frame.shape[1]))
        yield {"image": preprocess(frame, content, padded, **spec.normalisation("bgr")._asdict())}


def _check(
    bundle: Bundle, workshop: EngineStore, options: BuildOptions, bar: float, frames: Frames, report: Report
) -> dict[str, Any]:
    """Parity with the fp32 graphs in onnxruntime, as JSON has it; EngineError names the branches under the bar."""

    def shown() -> Iterator[Any]:
        for index, frame in enumerate(frames.check):
            report("compare with the reference", index, len(frames.check))
            yield frame

    candidate = replace(bundle, engine_folder=workshop.folder)
    reference, other = (
        open_way(each, chosen)
        for each, chosen in ((bundle, Options()), (candidate, Options(options.engine, precision=options.precision)))
    )
    parity = compare(reference, other, shown(), frames.truths)
    lost = parity.under(bar)
    if lost:
        shares = ", ".join(f"{branch} {share:.3%}" for branch, share in lost.items())
        better = better_than(options.engine, options.precision)
        raise EngineError(
            f"{options.engine} in {options.precision} loses too many labels on {parity.frames} frames: {shares}, where "
            f"{bar:.2%} are wanted; nothing was built: try {better}, frames like your own, or a lower bar"
        )
    return {"bar": bar, "frames_from": str(options.frames or "rendered streets"), **asdict(parity)}


def better_than(engine: str, precision: str) -> str:
    """What of that engine loses fewer labels than a precision, in words."""
    if precision == "fp32":
        return "another engine"
    others = [each for each in LOW_PRECISIONS if each != precision and each in BUILT_PRECISIONS[engine]]
    return " or ".join(others) or "fp32, which needs no building"
