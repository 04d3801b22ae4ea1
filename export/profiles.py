"""The sizes of frames that an engine is built for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from errseg_rt.built_engines import Shapes
from errseg_rt.input_spec import InputSpec

if TYPE_CHECKING:
    import onnx

Size = tuple[int, int]

# Pixels of the input to one of these outputs of the front graph, which the refine graph takes in.
STRIDES = {"image": 1, "logits": 4, "low": 4, "coarse": 8}


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
        """The same for the network's input, where these are sizes of frames."""
        return Profile(*(spec.input_size(size) for size in (self.smallest, self.best, self.largest)))

    def shapes(self, graph: onnx.GraphProto) -> Shapes:
        """Shapes of a graph's inputs, batch 1: those of the front or the refine graph.

        Args:
            graph: Knows the channels.
        """
        return {
            value.name: tuple(self._shape(value, size) for size in (self.smallest, self.best, self.largest))  # type: ignore[misc]
            for value in graph.input
        }

    def _shape(self, value: onnx.ValueInfoProto, size: Size) -> tuple[int, ...]:
        channels, *sides = (side.dim_value for side in value.type.tensor_type.shape.dim[1:])
        if value.name not in STRIDES:
            return (1, channels, *sides)  # the gate, one weight per channel
        return (1, channels, *(-(-side // STRIDES[value.name]) for side in size))

    def __str__(self) -> str:
        sizes = [self.smallest, self.best, self.largest]
        if len(set(sizes)) == 1:
            sizes = sizes[:1]
        return "..".join(f"{height}x{width}" for height, width in sizes)
