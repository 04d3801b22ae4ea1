"""What the GPU reaches at most, and what a CUDA graph costs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch

from benchmarks.on_gpu.record import Found
from benchmarks.on_gpu.rows import single
from benchmarks.on_gpu.timing import Ceilings, Timer
from benchmarks.report import Row


def measure_ceilings(timer: Timer, *, size: int = 1 << 30, side: int = 8192) -> Ceilings:
    """Copy `size` bytes, and multiply matrices of `side` by `side`."""
    source = torch.randint(256, (size,), dtype=torch.uint8, device=timer.device)
    target = torch.empty_like(source)
    copy = 2 * size / timer.time(lambda: target.copy_(source)).middle
    left, right = (torch.randn(side, side, device=timer.device).half() for _ in range(2))
    return Ceilings(copy, 2 * side**3 / timer.time(lambda: left @ right).middle)


def ceilings_found(ceilings: Ceilings) -> Iterator[Found]:
    """As rows."""
    note = "read and written, within the GPU's memory"
    yield Row("gpu/copy_bandwidth", ceilings.copy / 1e6, "GB/s", note=note)
    yield Row("gpu/matrix_rate", ceilings.matrix / 1e9, "TFLOP/s", note="fp16, float32 sums")


def graphs(timer: Timer) -> Iterator[Found]:
    """What a CUDA graph costs between two events: it is in the times of all rows that are one."""
    tensor = torch.zeros(1, device=timer.device)

    def launch() -> torch.Tensor:
        return tensor.add_(1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of an empty graph
        yield single("gpu/empty_graph", timer.captured(lambda: None), "between two events")
    without = 1e3 * timer.time(launch).middle
    yield single("gpu/graph_of_one_small_launch", timer.captured(launch), f"without a graph: {without:.2f} us")
