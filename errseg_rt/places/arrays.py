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
    """An array without gaps: what the launches of kernels read of one.

    Args:
        address: Where it begins.
        shape: Its shape.
        dtype: Its name.
        owner: What must be held for the memory to stay.
        stride: Elements from one index to the next, by axis; None: C-contiguous.
    """

    def __init__(
        self, address: int, shape: Sequence[int], dtype: str, owner: object, stride: tuple[int, ...] | None = None
    ) -> None:
        self.address, self.shape, self.dtype, self.owner = address, tuple(shape), dtype, owner
        self._stride = stride

    @property
    def size(self) -> int:
        """Bytes."""
        return bytes_of(self.shape, self.dtype)

    def stride(self) -> tuple[int, ...]:
        """Elements from one index to the next, by axis."""
        return self._stride or _contiguous(self.shape)

    def is_contiguous(self) -> bool:
        """Whether its elements lie in the order of C; where an axis has one index, its stride is of no matter."""
        steps = zip(self.shape, self.stride(), _contiguous(self.shape), strict=True)
        return not self.size or all(step == wanted for size, step, wanted in steps if size > 1)

    def permute(self, *axes: int) -> DeviceArray:
        """The same elements with the axes in another order."""
        shape, stride = (tuple(each[axis] for axis in axes) for each in (self.shape, self.stride()))
        return DeviceArray(self.address, shape, self.dtype, self.owner, stride)

    def reshape(self, *shape: int) -> DeviceArray:
        """The same elements in another shape."""
        if math.prod(shape) != math.prod(self.shape) or not self.is_contiguous():
            raise ValueError(f"{list(self.shape)} of strides {list(self.stride())} cannot have the shape {list(shape)}")
        return DeviceArray(self.address, shape, self.dtype, self.owner)

    def __getitem__(self, index: int) -> DeviceArray:
        """One of the arrays along the first axis."""
        step, *inner = self.stride()
        address = self.address + index * step * _ITEM_SIZES[self.dtype]
        return DeviceArray(address, self.shape[1:], self.dtype, self.owner, tuple(inner))

    def __len__(self) -> int:
        """Length of the first axis."""
        return self.shape[0]


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


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
