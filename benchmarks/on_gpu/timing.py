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
        """Run some work often, each time with an empty cache of second level."""
        if self.device.type == "cpu":
            start = time.perf_counter()
            work()
            took = 1000 * (time.perf_counter() - start)
            return Times(took, took, took)
        from triton.testing import do_bench

        with torch.cuda.device(self.device):
            low, middle, high = do_bench(work, warmup=100, rep=self.rep_ms, quantiles=list(QUANTILES))
        return Times(low, middle, high)

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


def measure_ceilings(timer: Timer, *, size: int = 1 << 30, side: int = 8192) -> Ceilings:
    """Copy `size` bytes, and multiply matrices of `side` by `side`."""
    source = torch.zeros(size, dtype=torch.uint8, device=timer.device)
    target = torch.empty_like(source)
    copy = 2 * size / timer.time(lambda: target.copy_(source)).middle
    left, right = (torch.randn(side, side, device=timer.device).half() for _ in range(2))
    return Ceilings(copy, 2 * side**3 / timer.time(lambda: left @ right).middle)


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
