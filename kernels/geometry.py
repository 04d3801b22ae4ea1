"""How the pixels of a frame lie on the grid: frame -> content -> padded input -> grid."""

from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Interpolation:
    """Where each output pixel of one axis lies between grid lines.

    Attributes:
        lower: int32 [n], the grid line at or before the pixel; never decreasing. The other one is
            `min(lower + 1, grid - 1)`.
        weight: float64 [n] in [0, 1], the share of the other grid line.
    """

    lower: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float64]

    def shares(self, lines: int) -> npt.NDArray[np.float64]:
        """Return what each of the grid's lines adds to the mean over the output pixels, float64 [lines], in sum 1."""
        other = np.minimum(self.lower + 1, lines - 1)
        pixels = np.bincount(self.lower, 1 - self.weight, lines) + np.bincount(other, self.weight, lines)
        shares: npt.NDArray[np.float64] = pixels / len(self.lower)
        return shares


@dataclass(frozen=True)
class Axis:
    """One axis in whole numbers: output pixel x lies at `clip(slope * x + offset, first, last) / unit` on the grid.

    Attributes:
        slope: Units from one output pixel to the next, above zero unless the grid has but one line.
        offset: Units at output pixel 0, before clipping.
        first: Least position, in units.
        last: Greatest position, in units.
        unit: Units from one grid line to the next.
        lines: How many grid lines there are.
        pixels: How many output pixels there are.
    """

    slope: int
    offset: int
    first: int
    last: int
    unit: int
    lines: int
    pixels: int

    def interpolation(self) -> Interpolation:
        """Return where every output pixel lies."""
        position = np.clip(self.slope * np.arange(self.pixels, dtype=np.int64) + self.offset, self.first, self.last)
        lower = np.minimum(position // self.unit, max(self.lines - 2, 0))
        return Interpolation(lower.astype(np.int32), (position - lower * self.unit) / self.unit)

    def cells(self) -> tuple[int, int]:
        """Return the first and the last cell, by their lower grid lines, that may hold output pixels."""
        last = max(self.lines - 2, 0)
        return min(self.first // self.unit, last), min(self.last // self.unit, last)

    def seen(self) -> int:
        """Return how many grid lines, from the first, some output pixel is made from."""
        greatest = min(max(self.slope * (self.pixels - 1) + self.offset, self.first), self.last)
        return -(-greatest // self.unit) + 1


@dataclass(frozen=True)
class Geometry:
    """The sizes (height, width) a frame passes through, in pixels, and how the grid is aligned with the input.

    The frame (`output_size`) was resized to `content_size` with half-pixel centres, as `cv2.resize` does, then padded
    at bottom and right to `input_size`; the network maps its input to `grid_size`.

    Attributes:
        grid_size: (h, w) of the grid.
        input_size: (Hi, Wi) of the padded network input.
        content_size: (Hc, Wc), the part of the input that shows the frame.
        output_size: (H, W) of the frame.
        align_corners: True where the centres of the first and last grid pixels are those of the first and last input
            pixels (networks for sizes 16n+1); False where their outer edges coincide.

    Raises:
        ValueError: a size is not a pair of positive ints, or the content is larger than the input.
    """

    grid_size: tuple[int, int]
    input_size: tuple[int, int]
    content_size: tuple[int, int]
    output_size: tuple[int, int]
    align_corners: bool

    def __post_init__(self) -> None:
        for name in ("grid_size", "input_size", "content_size", "output_size"):
            size = getattr(self, name)
            if not (isinstance(size, tuple) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)):
                raise ValueError(f"{name} must be a tuple (height, width) of positive ints, got {size!r}")
        if any(content > padded for content, padded in zip(self.content_size, self.input_size, strict=True)):
            raise ValueError(
                f"the content must fit in the input: {self.content_size = } is larger than {self.input_size = }"
            )

    def axes(self) -> tuple[Axis, Axis]:
        """Return where output rows, and output columns, lie on the grid."""
        return self._axis(0), self._axis(1)

    def rows(self) -> Interpolation:
        """Return where the H output rows lie on the h grid rows."""
        return self._axis(0).interpolation()

    def cols(self) -> Interpolation:
        """Return where the W output columns lie on the w grid columns."""
        return self._axis(1).interpolation()

    def seen(self) -> tuple[int, int]:
        """Return how many grid rows and columns, from the first, some pixel of the frame is made from."""
        return self._axis(0).seen(), self._axis(1).seen()

    def _axis(self, axis: int) -> Axis:
        grid, padded = self.grid_size[axis], self.input_size[axis]
        content, output = self.content_size[axis], self.output_size[axis]
        # Output pixel x shows the content at ((2 x + 1) content / output - 1) / 2, within [0, content - 1].
        slope, offset, last = 2 * content, content - output, 2 * output * (content - 1)
        unit = 2 * output
        if self.align_corners:
            stretch, shift, unit = grid - 1, 0, unit * max(padded - 1, 1)
        else:
            stretch, shift, unit = 2 * grid, output * 2 * (grid - padded), unit * 2 * padded
        first = min(max(shift, 0), unit * (grid - 1))
        last = min(max(stretch * last + shift, 0), unit * (grid - 1))
        slope, offset = stretch * slope, stretch * offset + shift
        common = gcd(slope, offset, first, last, unit)
        return Axis(
            slope // common,
            offset // common,
            first // common,
            last // common,
            unit // common,
            lines=grid,
            pixels=output,
        )
