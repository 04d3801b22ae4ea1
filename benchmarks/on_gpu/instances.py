"""Telling instances apart, against the kernel for CPUs, which it equals in every bit: checked first, then timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.instances import CORES, Scene, nuclei_scene, street_scene
from benchmarks.on_gpu.data import HALF
from benchmarks.on_gpu.record import Found
from benchmarks.on_gpu.rows import against
from benchmarks.on_gpu.timing import Timer, Wrong, quantiles
from errseg_rt.kernels import InstanceMap
from errseg_rt.kernels.instances.launches import DeviceThings, enqueue_instances
from errseg_rt.kernels.torch_launcher import TorchLauncher

SCENES: dict[str, Callable[[], Scene]] = {"1024x2048": street_scene, "696x520": nuclei_scene}
"""What is measured, by what a row's name ends in."""
CALLS_ON_HOST = 9


def told_apart(timer: Timer) -> Iterator[Found]:
    """Instances as one CUDA graph, against the CPU: nothing is copied back, nor waited for, whatever a frame shows."""
    host = Timer(torch.device("cpu"))
    for name, make in SCENES.items():
        made = make()
        scene = made._replace(logits=made.logits.astype(np.float16).astype(np.float32))  # as the GPU is given them
        on_gpu, wanted = _enqueued(scene, timer.device), scene.ours()
        found, count = on_gpu(), int(wanted.count)
        pairs = ((found.map, wanted.map), (found.classes[:count], wanted.classes[:count]),
                 (found.scores[:count], wanted.scores[:count]))  # fmt: skip
        if int(found.count) != count or not all(np.array_equal(ours.cpu().numpy(), theirs) for ours, theirs in pairs):
            raise Wrong(f"instances@{name}: other instances than the CPU's")
        times = quantiles([host.time(scene.ours).middle for _ in range(CALLS_ON_HOST)])
        grid, frame = ("x".join(map(str, size)) for size in (scene.geometry.grid_size, scene.geometry.output_size))
        note = (
            f"height x width: grid {grid}, frame {frame}; {count} instances, fp16, one CUDA graph, nothing copied to "
            f"the host; against the CPU, {CORES} threads"
        )
        yield against(f"instances/gpu@{name}", timer.captured(on_gpu), times, note, "ms")


def _enqueued(scene: Scene, device: torch.device) -> Callable[[], InstanceMap[torch.Tensor]]:
    """What a frame's instances are found by on a GPU; the table of things is brought there once, as a runtime does."""
    arrays = (torch.from_numpy(array).to(device) for array in (scene.logits, scene.boxes, scene.labels))
    logits, boxes, labels = arrays
    half, launcher = logits.to(HALF), TorchLauncher(device)
    things = DeviceThings.brought(
        scene.spec, len(scene.classes), lambda table, dtype: torch.from_numpy(table).to(device)
    )
    return lambda: enqueue_instances(launcher, half, None, None, boxes, labels, scene.geometry, things)
