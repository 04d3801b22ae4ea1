"""Arrays in the memory of a GPU, where there is no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

_ITEM_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "uint8": 1, "bool": 1}


def bytes_of(shape: Sequence[int], dtype: str) -> int:
    """Bytes of an array."""
    return math.prod(shape) * _ITEM_SIZES[dtype]


class DeviceArray:
    """A C-contiguous array: what the launches of kernels read of one.

    Args:
        address: Where it begins.
        shape: Its shape.
        dtype: Its name.
        owner: What must be held for the memory to stay.
    """

    def __init__(self, address: int, shape: Sequence[int], dtype: str, owner: object) -> None:
        self.address, self.shape, self.dtype, self.owner = address, tuple(shape), dtype, owner

    @property
    def size(self) -> int:
        """Bytes."""
        return bytes_of(self.shape, self.dtype)

    def stride(self) -> tuple[int, ...]:
        """Elements from one index to the next, by axis."""
        return tuple(math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))

    def is_contiguous(self) -> bool:
        """It always is."""
        return True

    def reshape(self, *shape: int) -> DeviceArray:
        """The same elements in another shape."""
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"{list(self.shape)} has not the elements of {list(shape)}")
        return DeviceArray(self.address, shape, self.dtype, self.owner)

    def __getitem__(self, index: int) -> DeviceArray:
        """One of the arrays along the first axis."""
        step = bytes_of(self.shape[1:], self.dtype)
        return DeviceArray(self.address + index * step, self.shape[1:], self.dtype, self.owner)

    def __len__(self) -> int:
        """Length of the first axis."""
        return self.shape[0]


class Scratch:
    """Memory that is asked for in the same order, frame after frame, and lies where it lay.

    Args:
        allocate: Gives memory of so many bytes: where it is, and what holds it.
    """

    def __init__(self, allocate: Callable[[int], tuple[int, Any]]) -> None:
        self._allocate, self._next = allocate, 0
        self._blocks: list[tuple[int, int, Any]] = []  # bytes, address, owner

    def begin(self) -> None:
        """Begin again with the first block."""
        self._next = 0

    def take(self, shape: Sequence[int], dtype: str) -> DeviceArray:
        """The next block, as an array; made, or made anew, where it is too small."""
        size = max(1, bytes_of(shape, dtype))
        if self._next == len(self._blocks):
            self._blocks.append((size, *self._allocate(size)))
        elif self._blocks[self._next][0] < size:
            self._blocks[self._next] = (size, *self._allocate(size))
        _, address, owner = self._blocks[self._next]
        self._next += 1
        return DeviceArray(address, shape, dtype, owner)

    @property
    def blocks(self) -> list[Any]:
        """What holds the memory as it is now: to be held by whoever captured its addresses."""
        return [owner for _, _, owner in self._blocks]
