"""How a frame becomes a network's input: sizes, padding and normalisation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

Size = tuple[int, int]
"""Height and width in pixels."""


MAX_PIXELS = 2**24
"""Largest frame, height times width, that is taken unless another limit is given."""
_LARGEST_SCALE = 16.0


@dataclass(frozen=True)
class InputSpec:
    """The input that a network wants.

    Attributes:
        scale: Factor from frame to input.
        enlarge_up_to: Pixels at which enlarging stops; a frame that already has as many is taken as it is, since the
            factor is there to show small frames at the size the network knows. 0: no limit.
        multiple: The padded sides are multiples of this.
        plus_one: The padded sides are one more than a multiple (networks whose grids align corners).
        mean: Mean colour, RGB in 0..1; also what the padding holds.
        std: Standard deviation of the colours, RGB in 0..1.
    """

    scale: float = 1.0
    enlarge_up_to: int = 0
    multiple: int = 16
    plus_one: bool = False
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        """Raises ValueError for values that no frame can be brought to."""
        if not 0 < self.scale <= _LARGEST_SCALE:
            raise ValueError(f"scale must be a positive number up to {_LARGEST_SCALE}, got {self.scale}")
        if type(self.multiple) is not int or type(self.plus_one) is not bool or type(self.enlarge_up_to) is not int:
            raise ValueError(
                f"sizes are whole numbers: {self.multiple = }, {self.plus_one = }, {self.enlarge_up_to = }"
            )
        if self.multiple < 1 or self.enlarge_up_to < 0:
            raise ValueError(f"sizes must be positive: {self.multiple = }, {self.enlarge_up_to = }")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(0 < part < math.inf for part in self.std):
            raise ValueError(f"mean and std are three numbers, std positive: {self.mean = }, {self.std = }")
        if not all(map(math.isfinite, self.mean)):
            raise ValueError(f"the mean colour must be finite, got {self.mean}")

    def content_size(self, frame: Size) -> Size:
        """Size of the frame within the input, before padding."""
        scale = self.scale
        if scale > 1 and self.enlarge_up_to:
            scale = max(1.0, min(scale, math.sqrt(self.enlarge_up_to / (frame[0] * frame[1]))))
        return max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))

    def input_size(self, frame: Size) -> Size:
        """Size of the padded input."""
        height, width = (self._padded(side) for side in self.content_size(frame))
        return height, width

    def sizes(self, frame: Size, scale: float = 1.0) -> tuple[Size, Size]:
        """Size of the frame within the input, and of the padded input.

        Args:
            frame: Height and width.
            scale: A factor on top of this one's own, which has no limit of `enlarge_up_to`.

        Raises:
            ValueError: `scale` is no scale.
        """
        content = self.content_size(frame)
        spec = replace(self, scale=scale, enlarge_up_to=0)
        return spec.content_size(content), spec.input_size(content)

    def _padded(self, side: int) -> int:
        extra = int(self.plus_one)
        return max(1, math.ceil((side - extra) / self.multiple)) * self.multiple + extra
