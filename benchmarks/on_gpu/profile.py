"""Where the time of a frame's graph goes: its dearest operations and kernels, by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.on_gpu.record import Found
from benchmarks.report import Row

RUNS, SHOWN = 3, 12


def dearest(name: str, work: Callable[[], object], device: torch.device) -> Iterator[Found]:
    """Milliseconds of the dearest operations, by the shapes of their operands, and of the dearest kernels.

    Args:
        name: What is run.
        work: Runs it, not as a CUDA graph, whose kernels belong to no operation.
        device: Where it runs.
    """
    is_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_gpu else [])]

    def wait() -> None:
        if is_gpu:
            torch.cuda.synchronize(device)

    for _ in range(2):
        work()
    wait()
    with profile(activities=activities, record_shapes=True) as ran:
        for _ in range(RUNS):
            work()
        wait()
    spent = "self_device_time_total" if is_gpu else "self_cpu_time_total"
    entries = ran.key_averages(group_by_input_shape=True)
    kernels = [each for each in entries if each.device_type == torch.autograd.DeviceType.CUDA]
    operations = [each for each in entries if each.device_type != torch.autograd.DeviceType.CUDA]
    for kind, found in (("operation", operations), ("kernel", kernels)):
        yield from _rows(f"profile/{name}/{kind}", found, spent)


def _rows(name: str, entries: Iterable[Any], spent: str) -> Iterator[Row]:
    ordered = sorted(entries, key=lambda entry: -getattr(entry, spent))
    for rank, entry in enumerate(ordered[:SHOWN], 1):
        milliseconds = getattr(entry, spent) / 1000 / RUNS
        if milliseconds > 0:
            shapes = [shape for shape in entry.input_shapes or () if shape]
            note = f"{entry.count / RUNS:g} times a frame{f'; {shapes}' if shapes else ''}"
            yield Row(f"{name}_{rank}:{entry.key[:80]}", milliseconds, "ms", note=note[:300])
