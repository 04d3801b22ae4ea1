"""The sizes of frames that an engine is built for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from errseg_rt.bundle.built import Shapes
from errseg_rt.bundle.contract import CONTRACT, Size
from errseg_rt.bundle.input_spec import InputSpec

if TYPE_CHECKING:
    import onnx


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

    def shapes(self, graph: onnx.GraphProto, grid_stride: int) -> Shapes:
        """Shapes of a graph's inputs, batch 1: those of the front or the refine graph.

        Args:
            graph: Knows the channels.
            grid_stride: Of the bundle.
        """
        channels = {value.name: value.type.tensor_type.shape.dim[1].dim_value for value in graph.input}

        def of(name: str, size: Size) -> tuple[int, ...]:
            return CONTRACT[name].shape(channels[name], size, grid_stride)

        return {name: (of(name, self.smallest), of(name, self.best), of(name, self.largest)) for name in channels}

    def __str__(self) -> str:
        sizes = [self.smallest, self.best, self.largest]
        if len(set(sizes)) == 1:
            sizes = sizes[:1]
        return "..".join(f"{height}x{width}" for height, width in sizes)
