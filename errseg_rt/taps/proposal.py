"""Which feature maps of a network to take as taps, and why."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from errseg_rt.bundle.contract import GRID_STRIDE
from errseg_rt.errors import DataError
from errseg_rt.taps.maps import FeatureMap, Maps, nearest_stride, tap_strides

_MODULE = 10  # operators between two passages from which they are taken for a module, not a layer


@dataclass(frozen=True)
class Proposed:
    """A tap and why it is proposed.

    Attributes:
        map: The feature map.
        reason: In a few words.
    """

    map: FeatureMap
    reason: str


def propose(maps: Maps, logits: str, grid_stride: int = GRID_STRIDE) -> dict[str, Proposed]:
    """Taps of a network, told from where it is coarsest: what it goes through on the way there, and what comes after.

    Args:
        maps: Its feature maps.
        logits: The name of that which holds the class logits.
        grid_stride: Stride of the grid on which the cascade works.

    Returns:
        For `low`, `mid`, `deep`, `high` and `logits`.

    Raises:
        DataError: The network has no feature maps before its logits.
    """
    if logits not in maps:
        raise DataError(f"{logits} is no feature map [1, channels, height, width], so that it cannot be the logits")
    way = _Way(maps, maps[logits])
    wanted = tap_strides(grid_stride)
    deep, high = way.around(wanted["deep"])
    low, mid = (way.down(wanted[name], deep) for name in ("low", "mid"))
    return {"low": low, "mid": mid, "deep": deep, "high": high, "logits": Proposed(maps[logits], "the class logits")}


class _Way:
    """The feature maps that logits are made of, before and after the last of the coarsest ones.

    Attributes:
        maps: All of them, in the order in which they are computed.
        coarsest: The last of the coarsest.
        before: Those that it is made of, and itself; at each stride those that no way leads past, where there are some:
            the others lie within blocks.
        after: Those that are made of it.
    """

    def __init__(self, maps: Maps, logits: FeatureMap) -> None:
        inner = maps.before(logits)
        if not inner:
            raise DataError(f"no feature map [1, channels, height, width] lies before {logits.name}, to be a tap")
        ends = {each.stride for each in inner if each.is_end}
        self.maps = [each for each in inner if each.is_end or each.stride not in ends]
        top = max(each.stride for each in self.maps)
        self.coarsest = [each for each in self.maps if each.stride == top][-1]
        before = [each for each in self.maps if each is self.coarsest or maps.behind(self.coarsest, each)]
        passages = [each for each in before if maps.is_passage(each, self.coarsest)]
        strides = {each.stride for each in passages}
        self.before = [each for each in before if each in passages or each.stride not in strides]
        self.after = [each for each in self.maps if maps.behind(each, self.coarsest)]

    def _at(self, stride: int, part: list[FeatureMap]) -> list[FeatureMap]:
        """Maps at the stride that is nearest to one, of a part where that has some."""
        taken = nearest_stride({each.stride for each in self.maps}, stride)
        return [each for each in part if each.stride == taken] or [each for each in self.maps if each.stride == taken]

    def down(self, stride: int, deep: Proposed) -> Proposed:
        """The last map at a stride on the way down; where that is where the way ends, its end."""
        found = self._at(stride, self.before)[-1]
        if found.stride == deep.map.stride:
            return deep
        return self._last(found)

    def around(self, stride: int) -> tuple[Proposed, Proposed]:
        """The maps before and after what sees the whole of the picture."""
        level = self._at(stride, self.before)
        if level[-1].stride < self.coarsest.stride:  # the network goes on down: what comes up again has seen the whole
            up = [each for each in self.after if each.stride == level[-1].stride]
            high = up[-1] if up else self.coarsest
            return self._last(level[-1]), Proposed(high, "the last on the way up" if up else "the coarsest")
        # What is narrower than what comes after it is within a layer that looks far, not the end of the encoder.
        high = level[-1]
        context = [each for each in level if each.is_spread and each.channels >= high.channels]
        if context:
            return Proposed(context[-1], "what a context module reads"), Proposed(high, "what comes of that module")
        steps = [(after.depth - each.depth, each) for each, after in itertools.pairwise(level)]
        widest = max((step for step, _ in steps), default=0)
        last = Proposed(high, f"the last at stride {high.stride}, the coarsest")
        if widest < _MODULE:
            return last, last
        deep = [each for step, each in steps if step == widest][-1]
        return Proposed(deep, f"before the largest module at stride {deep.stride}, of {widest} operators"), last

    def _last(self, found: FeatureMap) -> Proposed:
        if found in self.before:
            return Proposed(found, f"the last at stride {found.stride} before the network goes further down")
        return Proposed(found, f"the last at stride {found.stride}; there is none on the way down")
