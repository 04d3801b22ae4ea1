"""Memory of a GPU and a stream on it, by whichever library is there: torch, cuda-core or pycuda.

All three work in the device's primary context, so that they can be mixed with one another in one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from errseg_rt.errors import EngineError

Bytes = npt.NDArray[np.uint8]


class Block(Protocol):
    """Device memory that stays as long as this object is held."""

    @property
    def address(self) -> int:
        """Where it begins; a multiple of 256."""
        ...


class DeviceMemory(Protocol):
    """Allocates on one device and copies on one stream."""

    def enter(self) -> int:
        """Make the device current in the calling thread; handle of the stream."""
        ...

    def leave(self) -> None:
        """Undo `enter`."""
        ...

    def allocate(self, size: int) -> Block:
        """At least one byte.

        Raises:
            EngineError: There is not as much.
        """
        ...

    def copy_in(self, block: Block, data: Bytes) -> None:
        """Enqueue a copy from the host; `data` is C-contiguous and stays until `wait`."""
        ...

    def copy_out(self, data: Bytes, block: Block) -> None:
        """Enqueue a copy to the host, likewise."""
        ...

    def wait(self) -> None:
        """Until all that was enqueued is done."""
        ...


class TorchMemory:
    """Memory of torch's allocator."""

    def __init__(self, index: int = 0) -> None:
        import torch

        self._torch = torch
        self._device = torch.device("cuda", index)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def enter(self) -> int:
        """As `DeviceMemory` says; torch finds its device by itself."""
        return int(self._stream.cuda_stream)

    def leave(self) -> None:
        """Nothing is to be undone."""

    def allocate(self, size: int) -> Block:
        """A tensor's bytes."""
        try:
            return _TorchBlock(self._torch.empty(max(size, 1), dtype=self._torch.uint8, device=self._device))
        except self._torch.cuda.OutOfMemoryError as error:
            raise _out_of_memory(size, error) from error

    def copy_in(self, block: Block, data: Bytes) -> None:
        """On this object's stream."""
        with self._torch.cuda.stream(self._stream):
            block.tensor[: data.size].copy_(self._torch.from_numpy(data), non_blocking=True)  # type: ignore[attr-defined]

    def copy_out(self, data: Bytes, block: Block) -> None:
        """On this object's stream."""
        with self._torch.cuda.stream(self._stream):
            self._torch.from_numpy(data).copy_(block.tensor[: data.size], non_blocking=True)  # type: ignore[attr-defined]

    def wait(self) -> None:
        """For this object's stream."""
        self._stream.synchronize()


class _TorchBlock:
    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    @property
    def address(self) -> int:
        return int(self.tensor.data_ptr())


class CudaCoreMemory:
    """Memory of cuda-core, NVIDIA's own bindings: what a container without torch needs."""

    def __init__(self, index: int = 0) -> None:
        from cuda.bindings import driver
        from cuda.core import Device

        self._driver, self._device = driver, Device(index)
        self._device.set_current()
        self._stream = self._device.create_stream()

    def enter(self) -> int:
        """As `DeviceMemory` says."""
        self._device.set_current()
        return int(self._stream.handle)

    def leave(self) -> None:
        """Nothing is to be undone: the primary context stays current."""

    def allocate(self, size: int) -> Block:
        """A buffer of the device's memory pool, usable on this object's stream."""
        try:
            return _CudaCoreBlock(self._device.allocate(max(size, 1), stream=self._stream))
        except Exception as error:  # cuda-core has one kind of error for all of the driver's
            raise _out_of_memory(size, error) from error

    def copy_in(self, block: Block, data: Bytes) -> None:
        """On this object's stream."""
        self._check(self._driver.cuMemcpyHtoDAsync(block.address, data.ctypes.data, data.size, self._stream.handle))

    def copy_out(self, data: Bytes, block: Block) -> None:
        """On this object's stream."""
        self._check(self._driver.cuMemcpyDtoHAsync(data.ctypes.data, block.address, data.size, self._stream.handle))

    def wait(self) -> None:
        """For this object's stream."""
        self._stream.sync()

    def _check(self, result: tuple[Any, ...]) -> None:
        if int(result[0]):
            raise EngineError(f"the GPU failed to copy ({result[0]}); see nvidia-smi")


class _CudaCoreBlock:
    def __init__(self, buffer: Any) -> None:
        self._buffer = buffer

    @property
    def address(self) -> int:
        return int(self._buffer.handle)


class PyCudaMemory:
    """Memory of pycuda, for those who have it. The primary context is shared, and pushed by each thread that enters."""

    def __init__(self, index: int = 0) -> None:
        import pycuda.driver as driver

        driver.init()
        self._driver = driver
        self._context = driver.Device(index).retain_primary_context()
        self._context.push()
        try:
            self._stream = driver.Stream()
        finally:
            self._context.pop()

    def enter(self) -> int:
        """As `DeviceMemory` says."""
        self._context.push()
        return int(self._stream.handle)

    def leave(self) -> None:
        """Pop the context that `enter` pushed."""
        self._context.pop()

    def allocate(self, size: int) -> Block:
        """By `cuMemAlloc`."""
        try:
            return _PyCudaBlock(self._driver.mem_alloc(max(size, 1)))
        except self._driver.MemoryError as error:
            raise _out_of_memory(size, error) from error

    def copy_in(self, block: Block, data: Bytes) -> None:
        """On this object's stream."""
        self._driver.memcpy_htod_async(block.address, data, self._stream)

    def copy_out(self, data: Bytes, block: Block) -> None:
        """On this object's stream."""
        self._driver.memcpy_dtoh_async(data, block.address, self._stream)

    def wait(self) -> None:
        """For this object's stream."""
        self._stream.synchronize()


class _PyCudaBlock:
    def __init__(self, allocation: Any) -> None:
        self._allocation = allocation

    @property
    def address(self) -> int:
        return int(self._allocation)


def open_memory(index: int = 0) -> DeviceMemory:
    """By the first library that is there: torch, cuda-core, pycuda.

    Raises:
        EngineError: None of them is.
    """
    reasons = []
    kinds: dict[str, Callable[[int], DeviceMemory]]
    kinds = {"torch": TorchMemory, "cuda-core": CudaCoreMemory, "pycuda": PyCudaMemory}
    for name, kind in kinds.items():
        try:
            return kind(index)
        except (ImportError, OSError, RuntimeError, AssertionError) as error:  # a torch made for the CPU asserts
            reasons.append(f"{name}: {error}")
    raise EngineError(
        f"no library manages the GPU's memory ({'; '.join(reasons)}): pip install cuda-core, or torch with CUDA"
    )


def _out_of_memory(size: int, error: Exception) -> EngineError:
    return EngineError(
        f"the GPU has no {size / 1e6:,.0f} MB left ({error}); free memory there, or build for a smaller --shape"
    )
