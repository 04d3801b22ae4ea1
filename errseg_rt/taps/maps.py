"""Feature maps of a network, and what taps want of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from errseg_rt.bundle.contract import GRID_STRIDE
from errseg_rt.errors import DataError

STRIDES = (1, 2, 4, 8, 16, 32, 64)
"""Strides that a feature map may have."""
_MOST_LISTED = 8


@dataclass(frozen=True)
class FeatureMap:
    """A tensor `[B, channels, h, w]` that a network computes.

    Attributes:
        name: What it is called in the network.
        stride: Input pixels from one of its pixels to the next.
        channels: Number of channels.
        made_by: The operator that makes it.
        depth: Number of that operator, from 1, in the order in which they are computed.
        is_end: Whether it ends a layer: more than a norm or an activation reads it.
        is_spread: Whether a context module reads it: convolutions, and pooling or more convolutions beside them, of
            which some look far.
        is_learned: Whether the operator has weights that look at several channels or pixels.
        is_exact: Whether its sides are those of the input over its stride, rounded up.
    """

    name: str
    stride: int
    channels: int
    made_by: str = ""
    depth: int = 0
    is_end: bool = True
    is_spread: bool = False
    is_learned: bool = True
    is_exact: bool = True

    def __str__(self) -> str:
        return f"{self.name} (stride {self.stride}, {self.channels} channels)"


@dataclass(frozen=True)
class Maps:
    """All feature maps of a network.

    Attributes:
        all: In the order in which they are computed.
        operators: How many operators the network has.
        made_of: For each name, the names of the maps that the map is made of; a name that is missing is made of all
            maps before it.
    """

    all: tuple[FeatureMap, ...]
    operators: int = 0
    made_of: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {each.name: each for each in self.all})

    def __contains__(self, name: str) -> bool:
        return name in self._by_name  # type: ignore[attr-defined]

    def __getitem__(self, name: str) -> FeatureMap:
        found: FeatureMap = self._by_name[name]  # type: ignore[attr-defined]
        return found

    def behind(self, each: FeatureMap, other: FeatureMap) -> bool:
        """Whether a map is made of another."""
        made_of = self.made_of.get(each.name)
        return other.depth < each.depth if made_of is None else other.name in made_of

    def is_passage(self, each: FeatureMap, end: FeatureMap) -> bool:
        """Whether all that one map is made of either is behind another or is made of that: no way leads past it."""
        return all(
            other is each or self.behind(each, other) or self.behind(other, each)
            for other in self.all
            if self.behind(end, other)
        )

    def resolution(self, each: FeatureMap) -> int:
        """The stride at which a map was computed: that of the last map behind it, or itself, that has weights."""
        learned = [other for other in self.all if other.is_learned and (other is each or self.behind(each, other))]
        return learned[-1].stride if learned else each.stride

    def before(self, end: FeatureMap) -> list[FeatureMap]:
        """Those that class logits are made of, up to what the last weights read: what they give are the logits."""
        behind = [each for each in self.all if each is end or self.behind(end, each)]
        last = max((each.depth for each in behind if each.is_learned), default=end.depth)
        return [each for each in behind if each.depth < last]


def tap_strides(grid_stride: int = GRID_STRIDE) -> dict[str, int]:
    """The stride of each tap but the logits, which may have any."""
    return {"low": grid_stride, "mid": 2 * grid_stride, "deep": 4 * grid_stride, "high": 4 * grid_stride}


def grid_stride_of(maps: Maps, logits: str) -> int:
    """The stride at which branches best work: that at which the logits are computed, but 4 at most.

    Raises:
        DataError: That is no feature map.
    """
    if logits not in maps:
        raise DataError(f"{logits} is no feature map [1, channels, height, width], so that it cannot be the logits")
    stride = maps.resolution(maps[logits])
    return next(each for each in (GRID_STRIDE, 2, 1) if each <= stride)


def nearest_stride(strides: Collection[int], wanted: int) -> int:
    """The nearest of some strides, at least one; of two, the finer one, which loses nothing."""
    return min(strides, key=lambda stride: (abs(stride.bit_length() - wanted.bit_length()), stride))


def in_words(maps: Iterable[FeatureMap]) -> str:
    """A list of maps; of many, those that end a layer, and of those the last."""
    maps = list(maps)
    ends = [each for each in maps if each.is_end] or maps
    left_out = len(maps) - len(ends[-_MOST_LISTED:])
    more = f" and {left_out} more, which errseg-rt taps lists" if left_out else ""
    return f"{', '.join(map(str, ends[-_MOST_LISTED:]))}{more}"
