"""A GPU by cuda-core, NVIDIA's own bindings: what a container without torch needs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import driver
from cuda.core import Device, EventOptions, LaunchConfig, LegacyPinnedMemoryResource, ObjectCode, launch

from errseg_rt.errors import EngineError
from errseg_rt.places.cubins import Cubin, Cubins
from errseg_rt.places.driver_gpu import DriverGpu

_SHARED = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


class CudaCoreGpu(DriverGpu):
    """A `Gpu` in the device's primary context.

    Args:
        index: Which GPU.
        cubins: Its kernels.
    """

    def __init__(self, index: int, cubins: Cubins) -> None:
        try:
            self._device = Device(index)
            self._device.set_current()
        except Exception as error:  # cuda-core has one kind of error for all of the driver's
            raise EngineError(f"cuda-core finds no GPU {index} ({error}); see nvidia-smi") from error
        found = self._device.compute_capability
        super().__init__(index, (found.major, found.minor), cubins)
        self._here = self.stream()
        self._pages = LegacyPinnedMemoryResource()

    def entered(self) -> AbstractContextManager[object]:
        """As `Gpu` says: the context stays the thread's."""
        self._device.set_current()
        return nullcontext()

    def stream(self) -> CudaCoreStream:
        """As `Gpu` says."""
        return CudaCoreStream(self._device.create_stream())

    def handle(self) -> int:
        """As `Gpu` says."""
        return int(self._here.stream.handle)

    def event(self) -> CudaCoreEvent:
        """As `Gpu` says."""
        return CudaCoreEvent(self._device.create_event(EventOptions(timing_enabled=True)))

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """As `Gpu` says."""
        work()
        builder = self._here.stream.create_graph_builder()
        builder.begin_building("thread_local")
        try:
            work()
        except BaseException:
            with suppress(Exception):  # a capture that failed cannot be ended either; what failed it is told
                builder.end_building()
            raise
        builder.end_building()
        graph, held = builder.complete(), self._scratch.blocks
        builder.close()

        def replay() -> None:
            assert held is not None  # the graph has the addresses
            graph.launch(self._here.stream)

        return replay

    def _allocate(self, size: int) -> tuple[int, Any]:
        stream = self._here.stream if self._here else self._device.create_stream()
        try:
            buffer = self._device.allocate(size, stream=stream)
            stream.sync()  # the memory is for every stream
        except Exception as error:  # cuda-core has one kind of error for all of the driver's
            raise out_of_memory(size, error) from error
        return int(buffer.handle), buffer

    def _allocate_pinned(self, size: int) -> npt.NDArray[np.uint8]:
        buffer = self._pages.allocate(size)
        memory: Any = (ctypes.c_uint8 * size).from_address(int(buffer.handle))
        memory.owner = buffer
        pages: npt.NDArray[np.uint8] = np.frombuffer(memory, np.uint8)
        return pages

    def _copy_in(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        _check("copy", driver.cuMemcpyHtoDAsync(address, data.ctypes.data, data.size, self._here.stream.handle))

    def _copy_out(self, data: npt.NDArray[np.uint8], address: int) -> None:
        _check("copy", driver.cuMemcpyDtoHAsync(data.ctypes.data, address, data.size, self._here.stream.handle))

    def _copy_within(self, target: int, source: int, size: int) -> None:
        _check("copy", driver.cuMemcpyDtoDAsync(target, source, size, self._here.stream.handle))

    def _set_zero(self, address: int, size: int) -> None:
        _check("fill memory", driver.cuMemsetD8Async(address, 0, size, self._here.stream.handle))

    def _wait(self) -> None:
        self._here.stream.sync()

    def _load(self, cubin: Cubin) -> Any:
        kernel = ObjectCode.from_cubin(cubin.code).get_kernel(cubin.name)
        if cubin.shared:
            result = driver.cuKernelSetAttribute(_SHARED, cubin.shared, kernel.handle, self._device.device_id)
            _check(f"give {cubin.name} its shared memory", result)
        return kernel

    def _call(self, function: Any, grid: tuple[int, ...], threads: int, shared: int, arguments: list[Any]) -> None:
        launch(self._here.stream, LaunchConfig(grid=grid, block=threads, shmem_size=shared), function, *arguments)


class CudaCoreStream:
    """A `Stream` of cuda-core."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def wait_event(self, event: CudaCoreEvent) -> None:
        """As `Stream` says."""
        self.stream.wait(event.event)


class CudaCoreEvent:
    """An `Event` of cuda-core."""

    def __init__(self, event: Any) -> None:
        self.event = event

    def record(self, stream: CudaCoreStream) -> None:
        """As `Event` says."""
        stream.stream.record(self.event)

    def query(self) -> bool:
        """As `Event` says."""
        return bool(self.event.is_done)

    def synchronize(self) -> None:
        """As `Event` says."""
        self.event.sync()

    def elapsed_time(self, other: CudaCoreEvent) -> float:
        """As `Event` says."""
        return float(other.event - self.event)


def out_of_memory(size: int, error: Exception) -> EngineError:
    """What is said where the GPU has not as many bytes."""
    return EngineError(
        f"the GPU has no {size / 1e6:,.0f} MB left ({error}); free memory there, or build for a smaller shape"
    )


def _check(what: str, result: tuple[Any, ...]) -> None:
    if int(result[0]):
        raise EngineError(f"the GPU failed to {what} ({result[0]}); see nvidia-smi")
