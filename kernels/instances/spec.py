"""How instances are found, as a bundle's manifest holds it."""

from __future__ import annotations

from dataclasses import dataclass

MOST = 65535
"""Instances of a frame at most: their numbers fit in 16 bits, as files of instances have them."""


@dataclass(frozen=True)
class InstanceSpec:
    """Which classes have instances, and how those are told apart.

    Attributes:
        classes: Ids of the things, the classes that have instances, ascending; a boxes map has four channels for each,
            in this order.
        top: n of the top-n masks: a pixel takes part for those things that are among its n classes of highest score.
            With 1 it takes part for its class alone.
        overlap: IoU of boxes above which a pixel is taken for one of the hypothesis that it is compared with.
        least_score: Hypotheses of less confidence, in 0..1, are dropped.
        least_pixels: Hypotheses of fewer pixels of the grid are dropped.
        least_fill: Hypotheses whose pixels are a smaller share of their box's area are dropped, 0..1. Where two things
            touch, a network's boxes lie between theirs: what comes of such pixels are rims that fill little of a box.
            (Not in the paper; 0 is as there.)
        region_overlap: IoU of masks above which the less confident of two hypotheses is dropped.
        most: Hypotheses that are looked for, for each thing and mask, and instances of a frame at most.
        hops: How often a pixel's box gives way to that of the pixel at its centre: the middle of an instance sees more
            of it than its rim. Only where the best class there is the same thing, and the boxes overlap by more than
            `overlap`: else the centre is hidden by something else. (Not in the paper; 0 is as there.)
        agreement: Whether a pixel's score counts times the IoU of its own box with its hypothesis's first one.
            (Not in the paper; False is as there.)
    """

    classes: tuple[int, ...]
    top: int = 1
    overlap: float = 0.5
    least_score: float = 0.0
    least_pixels: int = 1
    least_fill: float = 0.0
    region_overlap: float = 0.5
    most: int = 1024
    hops: int = 0
    agreement: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for what is out of range."""
        if not self.classes or not all(type(label) is int and 0 <= label < 255 for label in self.classes):
            raise ValueError(f"classes must be ids of one or more classes, 0 to 254, got {self.classes}")
        if list(self.classes) != sorted(set(self.classes)):
            raise ValueError(f"classes must ascend, each once, got {self.classes}")
        for name, least, greatest in (("top", 1, 8), ("least_pixels", 1, 1 << 24), ("most", 1, MOST), ("hops", 0, 8)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= greatest:
                raise ValueError(f"{name} must be a whole number, {least} to {greatest}, got {value!r}")
        for name in ("overlap", "region_overlap"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
        for name in ("least_score", "least_fill"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value <= 1:
                raise ValueError(f"{name} must be in 0..1, got {value!r}")
        if type(self.agreement) is not bool:
            raise ValueError(f"agreement must be true or false, got {self.agreement!r}")
