"""Times, ceilings and energy of a GPU; on the CPU, which stands in for it in tests, times of single calls."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

QUANTILES = (0.1, 0.5, 0.9)
CACHE = 256 << 20
"""Bytes that empty a cache of second level: several times as many as any has."""


class Wrong(RuntimeError):  # noqa: N818 (a finding, not a fault)
    """A result that differs from its definition: it is not timed."""


@dataclass(frozen=True)
class Times:
    """Milliseconds: 10th, 50th and 90th percentile."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Ceilings:
    """What the device reaches at most.

    Attributes:
        copy: Bytes read and written in a millisecond by a copy within its memory.
        matrix: Floating-point operations in a millisecond by a product of large float16 matrices, float32 sums.
    """

    copy: float
    matrix: float

    def share(self, moved: float, operations: float, milliseconds: float) -> tuple[float, str]:
        """The larger share of a ceiling that was reached, and which."""
        shares = {"copy bandwidth": moved / self.copy, "matrix rate": operations / self.matrix}
        name = max(shares, key=lambda each: shares[each])
        return shares[name] / milliseconds, name


@dataclass(frozen=True)
class Timer:
    """Times what is enqueued on a device.

    Attributes:
        device: Where.
        rep_ms: For how long each thing is repeated, about.
    """

    device: torch.device
    rep_ms: int = 300

    def time(self, work: Callable[[], object]) -> Times:
        """Run some work often, each time with an empty cache of second level.

        While the GPU empties that, the host enqueues the work: it is emptied again until the host has had the time, so
        that what launches cost the host does not count, and no CUDA graph is needed, whose own launch would.
        """
        if self.device.type == "cpu":
            start = time.perf_counter()
            work()
            took = 1000 * (time.perf_counter() - start)
            return Times(took, took, took)
        with torch.cuda.device(self.device):
            cache = torch.empty(CACHE, dtype=torch.uint8, device=self.device)
            for _ in range(3):
                cache.zero_()
                work()
            emptying, _ = self._of_ten(cache.zero_)
            running, enqueueing = self._of_ten(work)
            times = min(1 + int(1.5 * enqueueing / emptying), 100)
            repeats = max(16, min(int(self.rep_ms / (running + times * emptying)), 1000))
            marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
            for begin, end in marks:
                for _ in range(times):
                    cache.zero_()
                begin.record()
                work()
                end.record()
            torch.cuda.synchronize()
        # By the first ones the GPU's clock has risen.
        return quantiles([begin.elapsed_time(end) for begin, end in marks[repeats // 4 :]])

    def _of_ten(self, work: Callable[[], object]) -> tuple[float, float]:
        """Milliseconds of some work on the GPU, and of the host that enqueues it."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            work()
        enqueued = time.perf_counter()
        torch.cuda.synchronize()
        return 100 * (time.perf_counter() - start), 100 * (enqueued - start)

    def captured(self, work: Callable[[], object]) -> Times:
        """Time some work as one CUDA graph, so that what its launches cost the host does not count."""
        return self.time(self.capture(work))

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        """Some work as one CUDA graph; RuntimeError where it waits for the device."""
        if self.device.type == "cpu":
            return work
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph, kept = torch.cuda.CUDAGraph(), []
        with torch.cuda.graph(graph), never_waiting(self.device):
            kept.append(work())  # its memory belongs to the graph
        return lambda: (graph.replay(), kept)[0]


@contextmanager
def never_waiting(device: torch.device) -> Iterator[None]:
    """RuntimeError from torch where the host waits for the GPU."""
    if device.type == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Energy:
    """Joules that a GPU has taken since its driver was loaded, by NVML; None where it does not say."""

    def __init__(self, device: torch.device) -> None:
        self._library, self._handle = None, ctypes.c_void_p()
        uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None) if device.type == "cuda" else None
        try:
            library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        name = f"GPU-{uuid}".encode()
        if (
            uuid is not None
            and library.nvmlInit_v2() == 0
            and library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(self._handle)) == 0
        ):
            self._library = library

    def joules(self) -> float | None:
        """Since the driver was loaded."""
        millijoules = ctypes.c_ulonglong()
        if (
            self._library is None
            or self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(millijoules)) != 0
        ):
            return None
        return millijoules.value / 1000


def quantiles(values: list[float]) -> Times:
    """Of some milliseconds."""
    return Times(*(float(each) for each in np.quantile(values, QUANTILES)))
