"""How a frame becomes a network's input: sizes, padding and normalisation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from errseg_rt.kernels.preprocess.checks import REDUCTIONS
from errseg_rt.system.fields import check_fields, require

Size = tuple[int, int]
"""Height and width in pixels."""


MAX_PIXELS = 2**24
"""Largest frame, height times width, that is taken unless another limit is given."""
LARGEST_SCALE = 16.0
"""Largest factor on a frame's sides."""


class Normalisation(NamedTuple):
    """What `errseg_rt.kernels.preprocess` is told, so that planes come out in the order that the network wants.

    Attributes:
        mean: Mean colour in 0..1, in the order of the planes.
        std: Standard deviation, likewise.
        color: The frame's channel order for planes in RGB; the other one, for planes in BGR.
        reduce: How a frame is made smaller.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    color: str
    reduce: str


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
        color: Order of the planes that the network takes, `"rgb"` or `"bgr"`.
        reduce: How a frame is made smaller where no side grows: `"area"`, which keeps what is thin, or `"bilinear"`, as
            many networks saw their frames in training.
        size: Height and width, where the network takes no other: the frame is stretched to it, and not padded. None: it
            takes any.
    """

    scale: float = 1.0
    enlarge_up_to: int = 0
    work_pixels: int = 0
    multiple: int = 16
    plus_one: bool = False
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    color: str = "rgb"
    reduce: str = "area"
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Raises FieldError, a ValueError, for values that no frame can be brought to."""
        check_fields(self)
        require(self, "scale", 0 < self.scale <= LARGEST_SCALE, f"a positive number up to {LARGEST_SCALE}")
        for name, least in (("enlarge_up_to", 0), ("work_pixels", 0), ("multiple", 1)):
            require(self, name, getattr(self, name) >= least, f"{least} or more")
        require(self, "std", min(self.std) > 0, "positive numbers")
        require(self, "color", self.color in ("rgb", "bgr"), "rgb or bgr")
        require(self, "reduce", self.reduce in REDUCTIONS, " or ".join(REDUCTIONS))
        require(self, "size", self.size is None or min(self.size) > 0, "two numbers of 1 or more")

    def content_size(self, frame: Size) -> Size:
        """Size of the frame within the input, before padding."""
        if self.size:
            return self.size
        scale = self.scale
        if scale > 1 and self.enlarge_up_to:
            scale = max(1.0, min(scale, math.sqrt(self.enlarge_up_to / (frame[0] * frame[1]))))
        content = max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))
        if self.work_pixels and content[0] * content[1] > self.work_pixels:
            return _reduced(content, self.work_pixels)
        return content

    def input_size(self, frame: Size) -> Size:
        """Size of the padded input."""
        if self.size:
            return self.size
        height, width = (self._padded(side) for side in self.content_size(frame))
        return height, width

    def sizes(self, frame: Size, scale: float = 1.0) -> tuple[Size, Size]:
        """Size of the frame within the input, and of the padded input.

        Args:
            frame: Height and width.
            scale: A factor on top of this one's own, which neither `enlarge_up_to` nor `work_pixels` limits.

        Raises:
            ValueError: `scale` is no scale, or the network takes one size only.
        """
        content = self.content_size(frame)
        if self.size:
            if scale != 1:
                raise ValueError(f"the network takes inputs of {self.size[0]}x{self.size[1]} only, at no other scale")
            return content, content
        spec = replace(self, scale=scale, enlarge_up_to=0, work_pixels=0)
        return spec.content_size(content), spec.input_size(content)

    def normalisation(self, color: str) -> Normalisation:
        """How a frame of a channel order, `"bgr"` or `"rgb"`, becomes the planes that the network takes."""
        if self.color == "rgb":
            return Normalisation(self.mean, self.std, color, self.reduce)
        # Planes in the other order are those of a frame whose channels are taken for the other ones.
        (red, green, blue), (of_red, of_green, of_blue) = self.mean, self.std
        other = "rgb" if color == "bgr" else "bgr"
        return Normalisation((blue, green, red), (of_blue, of_green, of_red), other, self.reduce)

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
