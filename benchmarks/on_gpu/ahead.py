"""The path behind the front graph without torch: kernels compiled ahead, launched through cuda-core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.on_gpu.cascade import FLAGGED, Plan
from benchmarks.on_gpu.kernels import threshold_of
from benchmarks.on_gpu.timing import Wrong, quantiles
from benchmarks.report import Row
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.engine import Engine
from errseg_rt.export.engines.kernels import Signature, compile_kernels
from errseg_rt.export.engines.profiles import Profile
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels.launch import dtype_of
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.options import Limits
from errseg_rt.pipeline.flight import Flight
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.scenes import StreetScene


class Held:
    """A graph that gives what it once gave: arrays of another GPU's library, with the same values."""

    def __init__(self, gpu: Any, engine: Engine, outputs: Mapping[str, torch.Tensor]) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self._outputs = {
            name: gpu.bring(tensor.float().cpu().contiguous().numpy(), dtype_of(tensor))
            for name, tensor in outputs.items()
        }

    def run(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same for any input."""
        return self._outputs


def measure(
    bundle: Bundle, plan: Plan, engines: tuple[Engine, Engine], gpu: Any, open_gpu: Callable[..., Any]
) -> Iterator[Row]:
    """Hold labels against those of the same cascade in torch, then time it; the front graph's outputs are given.

    Args:
        bundle: What `cascade.make_bundle` made.
        plan: What is run.
        engines: Its front and its refine graph in torch, on `gpu`.
        gpu: A `TorchGpu`.
        open_gpu: Makes a `CudaCoreGpu` of its index and compiled kernels.
    """
    frame = StreetScene(5, *plan.frame).frame(0).frame
    theirs = Flight(Pipeline(bundle, *engines, gpu, detail="sparse"))
    limits = Limits(threshold_of(theirs.branches(frame).error_logit, FLAGGED))
    wanted = theirs.submit(frame, Ask(), limits).result()
    spec = bundle.manifest.input
    content, padded = spec.sizes(plan.frame)
    image = preprocess(frame, content, padded, mean=spec.mean, std=spec.std)
    dtype = getattr(torch, engines[0].inputs["image"].dtype)
    front = engines[0].run({"image": torch.from_numpy(image).to(gpu.device, dtype)})
    signatures = [Signature(engine.inputs, engine.outputs) for engine in engines]
    size = f"{plan.frame[0]}x{plan.frame[1]}"
    cubins = compile_kernels(bundle, signatures[0], signatures[1], Profile.parse(size), gpu.capability)
    other = open_gpu(gpu.device.index, cubins)
    with other.entered():
        held = Held(other, engines[0], front)
        ours = Flight(Pipeline(bundle, held, engines[1], other, detail="sparse"))
    found = ours.submit(frame, Ask(), limits).result()
    if not np.array_equal(found.flagged, wanted.flagged):
        raise Wrong(f"kernels compiled ahead flag {np.sum(found.flagged != wanted.flagged)} other pixels")
    differs = float((found.labels != wanted.labels).mean())
    if differs > 1e-4:  # `low` comes as planes here, so that sums differ in rounding
        raise Wrong(f"kernels compiled ahead give other labels on {differs:.2e} of the pixels")
    times = quantiles([ours.submit(frame, Ask(), limits).result().timings["compute"] for _ in range(plan.repeats)])
    yield Row(
        f"cascade/without_torch_post_front@{FLAGGED:.0%}", times.middle, "ms",
        quantiles=(times.low, times.middle, times.high),
        note=f"{len(cubins)} kernels, {len(cubins.to_bytes()) / 1e3:.0f} kB; other labels than torch's: {differs:.1e}",
    )  # fmt: skip
