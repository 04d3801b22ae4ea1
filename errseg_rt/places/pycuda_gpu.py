"""A GPU by pycuda, for those who have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pycuda.driver as driver

from errseg_rt.errors import EngineError
from errseg_rt.places.cubins import Cubin, Cubins
from errseg_rt.places.driver_gpu import DriverGpu

_CODES = {"int32": "i", "int64": "q", "float32": "f", "uint64": "P"}  # of `struct`, by which pycuda packs arguments


class PyCudaGpu(DriverGpu):
    """A `Gpu` in the device's primary context, which is shared with other libraries, and pushed while it is used.

    pycuda captures no graphs: what is captured is enqueued again, launch by launch.

    Args:
        index: Which GPU.
        cubins: Its kernels.
    """

    def __init__(self, index: int, cubins: Cubins) -> None:
        driver.init()
        device = driver.Device(index)
        self._context = device.retain_primary_context()
        super().__init__(index, device.compute_capability(), cubins)
        with self.entered():
            self._here = self.stream()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """As `Gpu` says."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def stream(self) -> PyCudaStream:
        """As `Gpu` says."""
        return PyCudaStream(driver.Stream())

    def handle(self) -> int:
        """As `Gpu` says."""
        return int(self._here.stream.handle)

    def event(self) -> PyCudaEvent:
        """As `Gpu` says."""
        return PyCudaEvent(driver.Event())

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """As `Gpu` says."""
        work()
        return work

    def _allocate(self, size: int) -> tuple[int, Any]:
        try:
            allocation = driver.mem_alloc(size)
        except driver.MemoryError as error:
            raise EngineError(
                f"the GPU has no {size / 1e6:,.0f} MB left ({error}); free memory there, or build for a smaller shape"
            ) from error
        return int(allocation), allocation

    def _allocate_pinned(self, size: int) -> npt.NDArray[np.uint8]:
        pages: npt.NDArray[np.uint8] = driver.pagelocked_empty(size, np.uint8)
        return pages

    def _copy_in(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        driver.memcpy_htod_async(address, data, self._here.stream)

    def _copy_out(self, data: npt.NDArray[np.uint8], address: int) -> None:
        driver.memcpy_dtoh_async(data, address, self._here.stream)

    def _copy_within(self, target: int, source: int, size: int) -> None:
        driver.memcpy_dtod_async(target, source, size, self._here.stream)

    def _set_zero(self, address: int, size: int) -> None:
        driver.memset_d8_async(address, 0, size, self._here.stream)

    def _wait(self) -> None:
        self._here.stream.synchronize()

    def _load(self, cubin: Cubin) -> Any:
        module = driver.module_from_buffer(cubin.code)
        function = module.get_function(cubin.name)
        if cubin.shared:
            function.set_attribute(driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, cubin.shared)
        return function, module  # held: functions go with their module

    def _call(self, function: Any, grid: tuple[int, ...], threads: int, shared: int, arguments: list[Any]) -> None:
        kernel, _ = function
        kernel.prepare("".join(_CODES[argument.dtype.name] for argument in arguments))
        values = (argument.item() for argument in arguments)
        kernel.prepared_async_call(grid, (threads, 1, 1), self._here.stream, *values, shared_size=shared)


class PyCudaStream:
    """A `Stream` of pycuda."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def wait_event(self, event: PyCudaEvent) -> None:
        """As `Stream` says."""
        self.stream.wait_for_event(event.event)


class PyCudaEvent:
    """An `Event` of pycuda."""

    def __init__(self, event: Any) -> None:
        self.event = event

    def record(self, stream: PyCudaStream) -> None:
        """As `Event` says."""
        self.event.record(stream.stream)

    def query(self) -> bool:
        """As `Event` says."""
        return bool(self.event.query())

    def synchronize(self) -> None:
        """As `Event` says."""
        self.event.synchronize()

    def elapsed_time(self, other: PyCudaEvent) -> float:
        """As `Event` says."""
        return float(self.event.time_till(other.event))
