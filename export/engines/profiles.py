"""The sizes of frames that an engine is built for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from errseg_rt.bundle.built import Shapes
from errseg_rt.bundle.input_spec import InputSpec

if TYPE_CHECKING:
    import onnx

Size = tuple[int, int]

STRIDES = {"image": 1, "logits": 4, "error_logit": 4, "detail_logits": 4, "low": 4, "coarse": 8}
"""Pixels of the network's input to one of a map, by the name that the graphs give it."""


@dataclass(frozen=True)
class Profile:
    """Sizes `(H, W)` of the network's input.

    Attributes:
        smallest: The smallest.
        best: That for which the engine is made fastest.
        largest: The largest.
    """

    smallest: Size
    best: Size
    largest: Size

    def __post_init__(self) -> None:
        """Raises ValueError for sizes out of order."""
        for low, middle, high in zip(self.smallest, self.best, self.largest, strict=True):
            if not 0 < low <= middle <= high:
                raise ValueError(f"sizes must not fall: {self}")

    @classmethod
    def parse(cls, text: str) -> Profile:
        """Read `"HxW"`, `"HxW..HxW"` (made for the largest) or `"HxW..HxW..HxW"`.

        Raises:
            ValueError: The text is none of these, or its sizes fall.
        """
        if not re.fullmatch(r"\d+x\d+(\.\.\d+x\d+){0,2}", text):
            raise ValueError(f"{text!r} is neither HxW nor HxW..HxW nor HxW..HxW..HxW")
        sizes: list[Size] = [(int(h), int(w)) for h, w in (part.split("x") for part in text.split(".."))]
        return cls(sizes[0], sizes[len(sizes) // 2], sizes[-1])

    def of_input(self, spec: InputSpec) -> Profile:
        """The same for the network's input, where these are sizes of frames.

        It holds the input of each of the three; of a larger frame that may be the less wide or high one.
        """
        sizes = [spec.input_size(size) for size in (self.smallest, self.best, self.largest)]
        rows, cols = zip(*sizes, strict=True)
        return Profile((min(rows), min(cols)), sizes[1], (max(rows), max(cols)))

    def shapes(self, graph: onnx.GraphProto) -> Shapes:
        """Shapes of a graph's inputs, batch 1: those of the front or the refine graph.

        Args:
            graph: Knows the channels.
        """
        channels = {value.name: value.type.tensor_type.shape.dim[1].dim_value for value in graph.input}
        return {
            name: tuple(shape_of(name, count, size) for size in (self.smallest, self.best, self.largest))  # type: ignore[misc]
            for name, count in channels.items()
        }

    def __str__(self) -> str:
        sizes = [self.smallest, self.best, self.largest]
        if len(set(sizes)) == 1:
            sizes = sizes[:1]
        return "..".join(f"{height}x{width}" for height, width in sizes)


def shape_of(name: str, channels: int, size: Size) -> tuple[int, int, int, int]:
    """Shape of an input or output of the graphs, batch 1.

    Args:
        name: Of the input or output.
        channels: That it has.
        size: Of the network's input.
    """
    if name not in STRIDES:
        return (1, channels, 1, 1)  # the gate, one weight per channel
    height, width = (-(-side // STRIDES[name]) for side in size)
    return (1, channels, height, width)
