"""The whole frame, end to end: engines and precisions, sparse and dense, latency, frames per second, memory, energy."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save

from benchmarks.on_gpu.data import threshold_of
from benchmarks.on_gpu.record import Found
from benchmarks.on_gpu.streets import street
from benchmarks.on_gpu.timing import Energy, Timer, Times, Wrong, quantiles
from benchmarks.report import Row
from errseg_rt.bundle.bundle import WEIGHTS, Bundle, write_bundle
from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import CITYSCAPES
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.engines.engine import Engine
from errseg_rt.errors import ErrsegError
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.networks.cascade import Cascade, CascadeConfig

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
        views: Of a street: as many different frames.
    """

    frame: tuple[int, int] = (1025, 2049)
    semantic: str = "deeplabv3plus-xception65"
    error_width: int = 64
    detail_width: int = 144
    repeats: int = 100
    views: int = 4


@dataclass(frozen=True)
class Variant:
    """One way to run the bundle.

    Attributes:
        name: As rows have it.
        options: Of `Runtime`.
        budget: Of each frame.
    """

    name: str
    options: dict[str, Any]
    budget: float | None = None


REFERENCE: dict[str, Any] = {"engine": "torch", "precision": "fp32", "detail": "dense"}
_TORCH: dict[str, Any] = {"engine": "torch", "precision": "fp16"}
BASELINE = "torch_fp16_dense"
TORCH = (
    Variant(BASELINE, {**_TORCH, "detail": "dense"}),
    Variant("torch_fp16", _TORCH),
    Variant("torch_fp16_budget_5%", _TORCH, budget=0.05),
)
COMPILED = (Variant("torch_compile_fp16", {**_TORCH, "compiled": True}),)
PRECISIONS = (Variant("torch_bf16", {**_TORCH, "precision": "bf16"}), Variant("torch_fp32_dense", REFERENCE))
TENSORRT = ("fp16", "int8", "bf16", "fp32")


def of_tensorrt(precision: str) -> tuple[Variant, ...]:
    """Sparse and dense, by an engine that was built."""
    options = {"engine": "tensorrt", "precision": precision}
    name = f"tensorrt_{precision}"
    return Variant(name, options), Variant(f"{name}_dense", {**options, "detail": "dense"})


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
    step = 1 + (plan.frame[0] > 513)
    frame = np.ascontiguousarray(street(plan.frame).frame[::step, ::step])
    size = (frame.shape[0], frame.shape[1])
    image = torch.from_numpy(preprocess(frame, size, _SPEC.input_size(size), mean=_SPEC.mean, std=_SPEC.std)).to(device)
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


@dataclass(frozen=True)
class Setting:
    """What every variant is run on, and held against.

    Attributes:
        bundle: What `make_bundle` made.
        plan: What is run.
        device: Where.
        open_runtime: `Runtime`, or for tests what stands in for it.
        frames: Of a street.
        threshold: What flags `FLAGGED` of the first frame.
        wanted: Labels of the first frame by torch in fp32, dense.
    """

    bundle: Bundle
    plan: Plan
    device: torch.device
    open_runtime: Callable[..., Any]
    frames: list[Frame]
    threshold: float
    wanted: Frame

    @classmethod
    def of(cls, bundle: Bundle, plan: Plan, device: torch.device, open_runtime: Callable[..., Any]) -> Setting:
        """Run the reference."""
        frames = [street(plan.frame, view).frame for view in range(plan.views)]
        with open_runtime(bundle, device=str(device), **REFERENCE) as runtime:
            threshold = threshold_of(runtime.branches(frames[0]).error_logit, FLAGGED)
            wanted = runtime.segment(frames[0], threshold=threshold).labels
        return cls(bundle, plan, device, open_runtime, frames, threshold, wanted)


def measure(setting: Setting, variants: Sequence[Variant], baseline: Row | None = None) -> Iterator[Found]:
    """Rows of some variants; one that cannot be run is named with its reason.

    Args:
        setting: What they are run on.
        variants: Which; those that share their options and follow one another share a runtime.
        baseline: What frames are held against; None: the first variant.
    """
    wrong = []
    for key, group in groupby(variants, key=lambda variant: sorted(variant.options.items())):
        names = list(group)
        try:
            with setting.open_runtime(
                setting.bundle, device=str(setting.device), threshold=setting.threshold, **dict(key)
            ) as runtime:
                for variant in names:
                    rows, remarks = _of_variant(setting, runtime, variant)
                    baseline = baseline or rows[0]
                    yield _with_baseline(rows[0], baseline)
                    yield from rows[1:]
                    yield from remarks
        except Wrong as error:
            wrong.append(str(error))
        except (ErrsegError, RuntimeError, ImportError, ValueError) as error:
            yield f"{', '.join(each.name for each in names)}: not measured, {str(error).splitlines()[0]}"
    if wrong:
        raise Wrong("; ".join(wrong))


def _of_variant(setting: Setting, runtime: Any, variant: Variant) -> tuple[list[Row], list[str]]:
    plan, device, frames, budget = setting.plan, setting.device, setting.frames, variant.budget
    first = runtime.segment(frames[0], budget=budget)
    agreement = float((first.labels == setting.wanted).mean())
    if agreement < 0.5:  # random weights have many near ties; a wrong graph gives about 1 in 19
        raise Wrong(f"{variant.name}: only {agreement:.1%} of the labels are those of fp32")
    runtime.warm_up(plan.frame)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for frame in frames:
        runtime.segment(frame, budget=budget)
    latencies, computed = [], []
    for index in range(plan.repeats):
        start = time.perf_counter()
        result = runtime.segment(frames[index % len(frames)], budget=budget)
        latencies.append(1000 * (time.perf_counter() - start))
        computed.append(result.timings["compute"])
    on_gpu, whole = quantiles(computed), quantiles(latencies)
    energy, count = Energy(device), 3 * plan.repeats
    before, start = energy.joules(), time.perf_counter()
    waiting: deque[Any] = deque()
    for index in range(count):
        waiting.append(runtime.submit(frames[index % len(frames)], budget=budget))
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
    if before is None or after is None:
        return rows, [f"energy/{variant.name}: not measured, NVML does not say"]
    note = "a frame, three in flight, by NVML"
    return [*rows, Row(f"energy/{variant.name}", (after - before) / count, "J", note=note)], []


def _times(name: str, times: Times, note: str) -> Row:
    return Row(name, times.middle, "ms", quantiles=(times.low, times.middle, times.high), note=note)


def _with_baseline(row: Row, baseline: Row) -> Row:
    """The row, held against another."""
    note = row.note + ("; bar: at most 7.1 ms" if row.name == "frame/tensorrt_fp16" else "")
    low, _, high = row.quantiles or 3 * (row.value,)
    best, _, worst = baseline.quantiles or 3 * (baseline.value,)
    ratio = baseline.value / row.value
    return Row(row.name, row.value, row.unit, baseline.value, ratio, (best / high, ratio, worst / low), note)


def image_of(plan: Plan, engine: Engine, device: torch.device) -> torch.Tensor:
    """The first frame as a front graph takes it, channels last."""
    frame, (content, padded) = street(plan.frame).frame, _SPEC.sizes(plan.frame)
    image = torch.from_numpy(preprocess(frame, content, padded, mean=_SPEC.mean, std=_SPEC.std))
    dtype = getattr(torch, engine.inputs["image"].dtype)
    return image.to(device, dtype).to(memory_format=torch.channels_last)


def overhead(engine: Any, image: torch.Tensor, timer: Timer, whole: Row | None) -> Iterator[Found]:
    """What error prediction, refinement and fusion add: the frame less its semantic branch, as a share of the frame.

    Args:
        engine: The front graph, a `TorchGpuEngine`.
        image: What it takes.
        timer: Times work.
        whole: The whole frame, where it was measured.
    """
    network, is_narrow = engine.graph.cascade, image.dtype != torch.float32

    def semantic() -> Any:
        with torch.no_grad(), torch.autocast(timer.device.type, torch.float16, enabled=is_narrow, cache_enabled=False):
            return network.taps(image)

    alone = timer.captured(semantic).middle
    yield Row("semantic/torch_fp16", alone, "ms", note="the semantic branch alone, logits on the grid")
    if whole is not None:
        note = f"{whole.value:.2f} ms a frame, {alone:.2f} ms of it semantic; bar: at most 20 % (with preprocessing)"
        yield Row("cascade/gpu_overhead@torch_fp16", 100 * (1 - alone / whole.value), "%", note=note)
