"""The whole frame, end to end: engines and precisions, sparse and dense, latency, frames per second, memory, energy."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save

from benchmarks.on_gpu.kernels import threshold_of
from benchmarks.on_gpu.timing import Energy, Times, Wrong, quantiles
from benchmarks.report import Row
from errseg_rt.bundle.bundle import WEIGHTS, Bundle, write_bundle
from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import CITYSCAPES
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.errors import ErrsegError
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.networks.cascade import Cascade, CascadeConfig
from errseg_rt.scenes import StreetScene

FLAGGED = 0.05
IN_FLIGHT = 3
_SPEC = InputSpec(multiple=16, plus_one=True, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        frame: Height and width.
        semantic: Name of the semantic network.
        error_width: Channels of the error-prediction branch.
        detail_width: Channels of the detail branch.
        repeats: Frames that are timed one by one; three times as many in flight.
    """

    frame: tuple[int, int] = (1025, 2049)
    semantic: str = "deeplabv3plus-xception65"
    error_width: int = 64
    detail_width: int = 144
    repeats: int = 100


@dataclass(frozen=True)
class Variant:
    """One way to run the bundle.

    Attributes:
        name: As rows have it.
        options: Of `Runtime`.
    """

    name: str
    options: dict[str, Any]


TENSORRT = ("fp32", "fp16", "bf16", "int8")


REFERENCE: dict[str, Any] = {"engine": "torch", "precision": "fp32", "detail": "dense"}


def variants(has_tensorrt: bool) -> list[Variant]:
    """What is compared; the first is the baseline of all others."""
    torch_engine: dict[str, Any] = {"engine": "torch", "precision": "fp16"}
    found = [
        Variant("torch_fp16_dense", {**torch_engine, "detail": "dense"}),
        Variant("torch_fp16", torch_engine),
        Variant("torch_fp32_dense", REFERENCE),
        Variant("torch_bf16", {**torch_engine, "precision": "bf16"}),
        Variant("torch_fp16_budget_5%", {**torch_engine, "budget": 0.05}),
        Variant("torch_compile_fp16_dense", {**torch_engine, "compiled": True, "detail": "dense"}),
        Variant("torch_compile_fp16", {**torch_engine, "compiled": True}),
    ]
    for precision in TENSORRT if has_tensorrt else ():
        options = {"engine": "tensorrt", "precision": precision, "build": "auto"}
        found += [
            Variant(f"tensorrt_{precision}_dense", {**options, "detail": "dense"}),
            Variant(f"tensorrt_{precision}", options),
        ]
    return found


def make_bundle(folder: Path, plan: Plan, device: torch.device, *, with_graphs: bool = False) -> Bundle:
    """A bundle with random weights, whose norms have the statistics of a rendered street, so that values stay sane.

    Args:
        folder: Where it is written.
        plan: Its networks.
        device: Where those statistics are taken.
        with_graphs: Whether to export the ONNX graphs, which TensorRT builds from.
    """
    torch.manual_seed(0)
    config = CascadeConfig(plan.semantic, len(CITYSCAPES), plan.error_width, plan.detail_width)
    cascade = Cascade(config)
    for branch, spread in ((cascade.error, 0.3), (cascade.detail, 0.3)):
        torch.nn.init.normal_(branch.head.weight, std=spread / branch.head.in_channels**0.5)
    cascade = cascade.to(device)
    size = (min(plan.frame[0], 513), min(plan.frame[1], 1025))
    image = torch.from_numpy(
        preprocess(StreetScene(1, *size).frame(0).frame, size, _SPEC.input_size(size), mean=_SPEC.mean, std=_SPEC.std)
    ).to(device)
    with torch.no_grad():
        norms = [module for module in cascade.semantic.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
        # Two images, since a norm behind a global average sees one value of each.
        cascade.semantic(torch.cat([image, image.flip(3)]))
        cascade.eval()
        for name in ("error", "detail"):
            cascade.freeze_norms(name, lambda: (cascade(image), None)[1])
    cascade = cascade.cpu().eval()
    files = {WEIGHTS: save({key: tensor.contiguous() for key, tensor in cascade.state_dict().items()})}
    if with_graphs:
        from errseg_rt.export.graphs import export_graphs

        files |= {f"graphs/{graph}.onnx": data for graph, data in export_graphs(cascade).items()}
    manifest = Manifest(
        name="random",
        classes=CITYSCAPES,
        input=_SPEC,
        align_corners=cascade.semantic.align_corners,
        threshold=0.7,
        lowest_threshold=0.7,
        calibration=Calibration((-4.0, 0.0, 4.0), (0.02, 0.3, 0.9)),
        cascade=cascade.config.to_dict(),
        provenance={"weights": "random, for timing alone"},
    )
    return write_bundle(folder, manifest, files)


def measure(
    bundle: Bundle, plan: Plan, device: torch.device, open_runtime: Callable[..., Any], *, has_tensorrt: bool
) -> Iterator[Row]:
    """Rows of every variant; one that cannot be run is named with its reason.

    Args:
        bundle: What `make_bundle` made.
        plan: What is run.
        device: Where.
        open_runtime: `Runtime`, or for tests what stands in for it.
        has_tensorrt: Whether TensorRT is installed.
    """
    frames = [StreetScene(5, *plan.frame).frame(20 * view).frame for view in range(4)]
    with open_runtime(bundle, device=str(device), **REFERENCE) as runtime:
        threshold = threshold_of(runtime.branches(frames[0]).error_logit, FLAGGED)
    with open_runtime(bundle, device=str(device), threshold=threshold, **REFERENCE) as runtime:
        wanted = runtime.segment(frames[0]).labels
    baseline, wrong = None, []
    for variant in variants(has_tensorrt):
        try:
            with open_runtime(bundle, device=str(device), threshold=threshold, **variant.options) as runtime:
                rows, latency = _of_runtime(runtime, variant, frames, plan, device, wanted)
        except Wrong as error:
            wrong.append(str(error))
            continue
        except (ErrsegError, RuntimeError, ImportError, ValueError) as error:
            print(f"frame/{variant.name}: not measured, {str(error).splitlines()[0]}", flush=True)
            continue
        baseline = baseline or latency
        rows[0] = _with_baseline(rows[0], latency, baseline)
        yield from rows
    if not has_tensorrt:
        print("frame/tensorrt_*: not measured, TensorRT is not installed: pip install 'errseg-rt[tensorrt]'")
    if wrong:
        raise Wrong("; ".join(wrong))


def _of_runtime(
    runtime: Any, variant: Variant, frames: list[Frame], plan: Plan, device: torch.device, wanted: Frame
) -> tuple[list[Row], Times]:
    first = runtime.segment(frames[0])
    agreement = float((first.labels == wanted).mean())
    if agreement < 0.5:  # random weights have many near ties; a wrong graph gives about 1 in 19
        raise Wrong(f"{variant.name}: only {agreement:.1%} of the labels are those of fp32")
    runtime.warm_up(plan.frame)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for frame in frames:
        runtime.segment(frame)
    latencies, computed = [], []
    for index in range(plan.repeats):
        start = time.perf_counter()
        result = runtime.segment(frames[index % len(frames)])
        latencies.append(1000 * (time.perf_counter() - start))
        computed.append(result.timings["compute"])
    on_gpu, whole = quantiles(computed), quantiles(latencies)
    energy, count = Energy(device), 3 * plan.repeats
    before, start = energy.joules(), time.perf_counter()
    waiting: deque[Any] = deque()
    for index in range(count):
        waiting.append(runtime.submit(frames[index % len(frames)]))
        if len(waiting) == IN_FLIGHT:
            waiting.popleft().result()
    while waiting:
        waiting.popleft().result()
    took, after = time.perf_counter() - start, energy.joules()
    tail = float(np.quantile(latencies, 0.99))
    note = (
        f"{plan.frame[0]}x{plan.frame[1]}, batch 1; {first.flagged_share:.1%} flagged, {first.work:.1%} of the dense "
        f"work; labels as fp32: {agreement:.2%}"
    )
    rows = [
        _times(f"frame/{variant.name}", on_gpu, note),
        _times(f"latency/{variant.name}", whole, f"from host to host; 99th percentile {tail:.2f} ms"),
        Row(f"fps/{variant.name}", count / took, "1/s", note=f"{IN_FLIGHT} frames in flight, {count} frames"),
    ]
    if device.type == "cuda":
        note = "peak that torch allocated; TensorRT's own memory is not in it"
        rows.append(Row(f"memory/{variant.name}", torch.cuda.max_memory_allocated(device) / 1e6, "MB", note=note))
    if before is not None and after is not None:
        rows.append(
            Row(f"energy/{variant.name}", (after - before) / count, "J", note="a frame, three in flight, by NVML")
        )
    else:
        print(f"energy/{variant.name}: not measured, NVML does not say")
    return rows, on_gpu


def _times(name: str, times: Times, note: str) -> Row:
    return Row(name, times.middle, "ms", quantiles=(times.low, times.middle, times.high), note=note)


def _with_baseline(row: Row, ours: Times, theirs: Times) -> Row:
    """The row, held against the first variant."""
    note = row.note + ("; bar: at most 7.1 ms" if row.name == "frame/tensorrt_fp16" else "")
    return Row(
        row.name, row.value, row.unit, theirs.middle, theirs.middle / ours.middle,
        (theirs.low / ours.high, theirs.middle / ours.middle, theirs.high / ours.low), note,
    )  # fmt: skip


def overhead(bundle: Bundle, plan: Plan, engine: Any, timer: Any, frame_ms: dict[str, float]) -> Iterator[Row]:
    """What error prediction, refinement and fusion add: the frame less its semantic branch, as a share of the frame.

    Args:
        bundle: What `make_bundle` made.
        plan: What is run.
        engine: The front graph, a `TorchGpuEngine` in fp16.
        timer: Times work.
        frame_ms: Milliseconds of the frame by variant.
    """
    image = torch.zeros((1, 3, *_SPEC.input_size(plan.frame)), device=timer.device, dtype=torch.float16)
    image = image.to(memory_format=torch.channels_last)
    network = engine.graph.cascade

    def semantic() -> Any:
        with torch.no_grad(), torch.autocast(timer.device.type, torch.float16, cache_enabled=False):
            return network.taps(image)

    alone = timer.captured(semantic).middle
    yield Row("semantic/torch_fp16", alone, "ms", note="the semantic branch alone, logits on the grid")
    whole = frame_ms.get("torch_fp16")
    if whole:
        note = f"{whole:.2f} ms a frame, {alone:.2f} ms of it semantic; bar: at most 20 % (preprocessing counted in)"
        yield Row("cascade/gpu_overhead@torch_fp16", 100 * (1 - alone / whole), "%", note=note)
