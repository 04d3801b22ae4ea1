"""A GPU without torch: what cuda-core and pycuda share."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.errors import EngineError, FrameError
from errseg_rt.kernels.launch import WARP, Launch, argument_type, next_power_of_2
from errseg_rt.places.arrays import DeviceArray, Scratch, bytes_of
from errseg_rt.places.cubins import Cubin, Cubins
from errseg_rt.places.gpu import Launches
from errseg_rt.system.bfloat16 import from_bfloat16, to_bfloat16

_NUMPY = {"bfloat16": "uint16"}  # where NumPy has another name
_SCALARS = {"i32": np.int32, "i64": np.int64, "fp32": np.float32}


class DriverGpu(Launches, ABC):
    """A `Gpu` whose arrays are `DeviceArray`s, and whose kernels were compiled ahead.

    The library's part is what is abstract here.

    Args:
        index: Which GPU.
        capability: Compute capability of the GPU.
        cubins: Its kernels.
    """

    def __init__(self, index: int, capability: tuple[int, int], cubins: Cubins) -> None:
        self.index, self.capability, self._cubins = index, capability, cubins
        self._loaded: dict[str, tuple[Cubin, Any]] = {}  # with its function, by the launch's code
        self._scratch = Scratch(self._allocate)
        self._here: Any = None  # the current stream
        self._pinned: dict[int, list[npt.NDArray[np.uint8]]] = {}  # that is free, by bytes

    @property
    def name(self) -> str:
        """As `Place` says."""
        return f"cuda:{self.index}"

    def begin(self) -> None:
        """As `Place` says."""
        self._scratch.begin()

    def empty(self, shape: Sequence[int], dtype: str) -> DeviceArray:
        """As `Launcher` says; scratch memory."""
        return self._scratch.take(shape, dtype)

    def zeros(self, shape: Sequence[int], dtype: str) -> DeviceArray:
        """As `Launcher` says; scratch memory."""
        array = self.empty(shape, dtype)
        if array.size:
            self._set_zero(array.address, array.size)
        return array

    def lasting(self, shape: Sequence[int], dtype: str) -> DeviceArray:
        """As `Gpu` says."""
        array = DeviceArray(0, shape, dtype, None)
        array.address, array.owner = self._allocate(max(1, array.size))
        return array

    def bring(self, values: npt.NDArray[np.float32], dtype: str) -> DeviceArray:
        """As `Gpu` says."""
        encoded = to_bfloat16(values) if dtype == "bfloat16" else np.ascontiguousarray(values, dtype)
        array = self.lasting(values.shape, dtype)
        self._copy_in(array.address, encoded.reshape(-1).view(np.uint8))
        self._wait()  # the encoded values go
        return array

    def address(self, array: DeviceArray) -> int:
        """As `Gpu` says."""
        return array.address

    def pinned(self, shape: Sequence[int], dtype: str) -> npt.NDArray[Any]:
        """As `Gpu` says; what is freed is kept for later."""
        size = bytes_of(shape, dtype)
        room = next_power_of_2(max(1, size))  # so that frames of any size share a few kinds of blocks
        free = self._pinned.setdefault(room, [])
        # Blocks come back whenever one is collected, in any thread: no lock, which that thread might hold.
        block = free.pop() if free else self._allocate_pinned(room)
        lent = _Lent(block)
        weakref.finalize(lent, self._give_back, block)
        return np.asarray(lent)[:size].view(_NUMPY.get(dtype, dtype)).reshape(tuple(shape))

    def taken(self, frame: Any) -> DeviceArray:
        """As `Place` says: there is nobody to read it."""
        raise FrameError(f"without torch a frame is a NumPy array uint8 [H, W, 3], got {type(frame).__name__}")

    def host(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """As `Place` says."""
        return from_bfloat16(array) if array.dtype == np.uint16 else array

    def given_away(self, arrays: Mapping[str, Any], stream: Any) -> Mapping[str, Any]:
        """As `Gpu` says: nobody could."""
        raise EngineError("results stay on the GPU as torch's tensors, and there is no torch: use segment()")

    def copy(self, target: Any, source: Any) -> None:
        """As `Gpu` says."""
        if isinstance(source, np.ndarray):
            self._copy_in(target.address, source.reshape(-1).view(np.uint8))
        elif isinstance(target, np.ndarray):
            self._copy_out(target.reshape(-1).view(np.uint8), source.address)
        else:
            self._copy_within(target.address, source.address, source.size)

    def current(self) -> Any:
        """The one of `on`, or else the first that was made."""
        return self._here

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        """As `Gpu` says; for one thread at a time."""
        before, self._here = self._here, stream
        try:
            yield
        finally:
            self._here = before

    def launch(self, launch: Launch) -> None:
        """As `Launcher` says."""
        code = launch.code
        if code not in self._loaded:
            cubin = self._cubins.of(code)
            self._loaded[code] = cubin, self._load(cubin)
        cubin, function = self._loaded[code]
        arguments = [packed(argument) for argument in launch.arguments] + [np.uint64(0)] * cubin.pointers
        grid = (*launch.grid, 1, 1)[:3]
        self._call(function, grid, WARP * launch.warps, cubin.shared, arguments)

    def _give_back(self, block: npt.NDArray[np.uint8]) -> None:
        self._pinned[block.size].append(block)

    @abstractmethod
    def _allocate(self, size: int) -> tuple[int, Any]:
        """So many bytes of the GPU: where they are, and what holds them; EngineError where there are not as many."""

    @abstractmethod
    def _allocate_pinned(self, size: int) -> npt.NDArray[np.uint8]:
        """So many bytes of pinned memory."""

    @abstractmethod
    def _copy_in(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        """Enqueue a copy from the host."""

    @abstractmethod
    def _copy_out(self, data: npt.NDArray[np.uint8], address: int) -> None:
        """Enqueue a copy to the host."""

    @abstractmethod
    def _copy_within(self, target: int, source: int, size: int) -> None:
        """Enqueue a copy on the GPU."""

    @abstractmethod
    def _set_zero(self, address: int, size: int) -> None:
        """Enqueue the filling of memory with zeros."""

    @abstractmethod
    def _wait(self) -> None:
        """Until all that the current stream holds is done."""

    @abstractmethod
    def _load(self, cubin: Cubin) -> Any:
        """The function of compiled code, ready for as much shared memory as it wants."""

    @abstractmethod
    def _call(self, function: Any, grid: tuple[int, ...], threads: int, shared: int, arguments: list[Any]) -> None:
        """Enqueue a function with NumPy's scalars as its arguments, of which pointers are uint64."""


def packed(argument: Any) -> Any:
    """An argument of a launch, as NumPy's scalar of the type that the kernel was compiled for."""
    if isinstance(argument, DeviceArray):
        return np.uint64(argument.address)
    value = getattr(argument, "value", argument)
    return _SCALARS[argument_type(argument)](value)


class _Lent:
    """Pinned memory in use: an array that is made from this holds it, and with it goes the last one that looks in."""

    def __init__(self, block: npt.NDArray[np.uint8]) -> None:
        self._block = block
        self.__array_interface__ = block.__array_interface__
