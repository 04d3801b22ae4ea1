"""The path behind the front graph without torch: kernels compiled ahead, launched through cuda-core."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from benchmarks.on_gpu.cascade import FLAGGED
from benchmarks.on_gpu.data import threshold_of
from benchmarks.on_gpu.record import Found
from benchmarks.on_gpu.streets import Size, street
from benchmarks.on_gpu.timing import Wrong, quantiles
from benchmarks.report import Row
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.engine import Engine
from errseg_rt.export.engines.kernels import Signature, compile_launch, launches
from errseg_rt.export.engines.profiles import Profile
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels.launch import dtype_of
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.options import Limits
from errseg_rt.pipeline.flight import Flight
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.places.cubins import Cubins


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


def compile_at_once(
    bundle: Bundle, front: Signature, stage3: Signature, frames: Profile, capability: tuple[int, int], cores: int
) -> Cubins:
    """What `compile_kernels` gives, by as many processes as there are cores."""
    found = launches(bundle, front, stage3, frames, capability)
    # Spawned: a process that has used a GPU is not forked.
    with ProcessPoolExecutor(max(1, min(cores, len(found))), get_context("spawn")) as pool:
        cubins = pool.map(partial(compile_launch, capability=capability), found.values())
        return Cubins(dict(zip(found, cubins, strict=True)))


def measure(
    bundle: Bundle,
    size: Size,
    engines: tuple[Engine, Engine],
    gpu: Any,
    open_gpu: Callable[..., Any],
    compile_kernels: Callable[..., Cubins],
    repeats: int,
) -> Iterator[Found]:
    """Hold labels against those of the same cascade in torch, then time it; the front graph's outputs are given.

    Args:
        bundle: The cascade.
        size: Of the frame.
        engines: Its front and its refine graph in torch, on `gpu`.
        gpu: A `TorchGpu`.
        open_gpu: Makes a `CudaCoreGpu` of its index and compiled kernels.
        compile_kernels: As `errseg_rt.export.engines.kernels` has it.
        repeats: Frames that are timed.
    """
    frame, spec = street(size).frame, bundle.manifest.input
    theirs = Flight(Pipeline(bundle, *engines, gpu, detail="sparse"))
    limits = Limits(threshold_of(theirs.branches(frame).error_logit, FLAGGED))
    wanted = theirs.submit(frame, Ask(), limits).result()
    # By the same kernel as theirs: a CPU rounds otherwise, and a pixel more is flagged, or one less.
    image = preprocess(
        torch.from_numpy(frame).to(gpu.device), *spec.sizes(size), mean=spec.mean, std=spec.std,
        dtype=engines[0].inputs["image"].dtype,
    )  # fmt: skip
    front = engines[0].run({"image": image})
    signatures = [Signature(engine.inputs, engine.outputs) for engine in engines]
    start = time.perf_counter()
    cubins = compile_kernels(bundle, *signatures, Profile.parse(f"{size[0]}x{size[1]}"), gpu.capability)
    took = time.perf_counter() - start
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
    yield f"the flagged pixels of torch, and its labels but on {differs:.1e} of the pixels"
    yield Row("ahead/compile", took, "s", note=f"{len(cubins)} kernels, {len(cubins.to_bytes()) / 1e3:.0f} kB")
    times = quantiles([ours.submit(frame, Ask(), limits).result().timings["compute"] for _ in range(repeats)])
    yield Row(
        f"cascade/without_torch_post_front@{FLAGGED:.0%}", times.middle, "ms",
        quantiles=(times.low, times.middle, times.high), note=f"{size[0]}x{size[1]}, the bundle {bundle.manifest.name}",
    )  # fmt: skip
