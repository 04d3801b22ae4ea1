"""How the pixels of a frame lie on the grid: frame -> content -> padded input -> grid."""

from dataclasses import dataclass

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

    def rows(self) -> Interpolation:
        """Return where the H output rows lie on the h grid rows."""
        return self._interpolate(0)

    def cols(self) -> Interpolation:
        """Return where the W output columns lie on the w grid columns."""
        return self._interpolate(1)

    def seen(self) -> tuple[int, int]:
        """Return how many grid rows and columns, from the first, some pixel of the frame is made from."""
        rows, cols = (int((axis.lower + (axis.weight > 0)).max()) + 1 for axis in (self.rows(), self.cols()))
        return rows, cols

    def _interpolate(self, axis: int) -> Interpolation:
        grid, padded = self.grid_size[axis], self.input_size[axis]
        content, output = self.content_size[axis], self.output_size[axis]
        position = np.arange(output, dtype=np.float64)
        if content != output:
            position = np.clip((position + 0.5) * content / output - 0.5, 0, content - 1)
        if self.align_corners:
            position = position * (grid - 1) / max(padded - 1, 1)
        else:
            position = (position + 0.5) * grid / padded - 0.5
        position = np.clip(position, 0, grid - 1)
        lower = np.minimum(np.floor(position), max(grid - 2, 0))
        return Interpolation(lower.astype(np.int32), position - lower)
