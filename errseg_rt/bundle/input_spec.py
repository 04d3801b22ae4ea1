"""How a frame becomes a network's input: sizes, padding and normalisation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from errseg_rt.system.fields import check_fields, require

Size = tuple[int, int]
"""Height and width in pixels."""


MAX_PIXELS = 2**24
"""Largest frame, height times width, that is taken unless another limit is given."""
LARGEST_SCALE = 16.0
"""Largest factor on a frame's sides."""


@dataclass(frozen=True)
class InputSpec:
    """The input that a network wants.

    Attributes:
        scale: Factor from frame to input.
        enlarge_up_to: Pixels at which enlarging stops; a frame that already has as many is taken as it is, since the
            factor is there to show small frames at the size the network knows. 0: no limit.
        work_pixels: Most pixels, height times width, of the frame within the input; what `scale` would make larger is
            reduced to that, since the network knows no objects that large, and time and memory grow with every pixel.
            0: no limit.
        multiple: The padded sides are multiples of this.
        plus_one: The padded sides are one more than a multiple (networks whose grids align corners).
        mean: Mean colour, RGB in 0..1; also what the padding holds.
        std: Standard deviation of the colours, RGB in 0..1.
    """

    scale: float = 1.0
    enlarge_up_to: int = 0
    work_pixels: int = 0
    multiple: int = 16
    plus_one: bool = False
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        """Raises FieldError, a ValueError, for values that no frame can be brought to."""
        check_fields(self)
        require(self, "scale", 0 < self.scale <= LARGEST_SCALE, f"a positive number up to {LARGEST_SCALE}")
        for name, least in (("enlarge_up_to", 0), ("work_pixels", 0), ("multiple", 1)):
            require(self, name, getattr(self, name) >= least, f"{least} or more")
        require(self, "std", min(self.std) > 0, "positive numbers")

    def content_size(self, frame: Size) -> Size:
        """Size of the frame within the input, before padding."""
        scale = self.scale
        if scale > 1 and self.enlarge_up_to:
            scale = max(1.0, min(scale, math.sqrt(self.enlarge_up_to / (frame[0] * frame[1]))))
        content = max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))
        if self.work_pixels and content[0] * content[1] > self.work_pixels:
            return _reduced(content, self.work_pixels)
        return content

    def input_size(self, frame: Size) -> Size:
        """Size of the padded input."""
        height, width = (self._padded(side) for side in self.content_size(frame))
        return height, width

    def sizes(self, frame: Size, scale: float = 1.0) -> tuple[Size, Size]:
        """Size of the frame within the input, and of the padded input.

        Args:
            frame: Height and width.
            scale: A factor on top of this one's own, which neither `enlarge_up_to` nor `work_pixels` limits.

        Raises:
            ValueError: `scale` is no scale.
        """
        content = self.content_size(frame)
        spec = replace(self, scale=scale, enlarge_up_to=0, work_pixels=0)
        return spec.content_size(content), spec.input_size(content)

    def _padded(self, side: int) -> int:
        extra = int(self.plus_one)
        return max(1, math.ceil((side - extra) / self.multiple)) * self.multiple + extra


def _reduced(size: Size, pixels: int) -> Size:
    """The largest size of the same aspect, to a rounding, that has at most as many pixels and no longer side.

    The short side is rounded down and the long one follows it, so that the aspect is off by less than a pixel of the
    long side, unless the short one is a single pixel. In whole numbers: no size is ever a pixel over.
    """
    short, long = sorted(size)
    reduced = max(1, math.isqrt(pixels * short // long))
    longer = min(round(reduced * long / short), pixels // reduced)
    return (reduced, longer) if size[0] <= size[1] else (longer, reduced)
