"""Which feature maps of a network to take as taps, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from errseg_rt.bundle.contract import GRID_STRIDE
from errseg_rt.errors import DataError
from errseg_rt.taps.maps import FeatureMap, Maps, distance, tap_strides

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
    """Taps of a network, from where it is deepest: what is reduced on the way there, and what comes after it.

    Args:
        maps: Its feature maps.
        logits: The name of that which holds the class logits.
        grid_stride: Stride of the grid on which the cascade works.

    Returns:
        For `low`, `mid`, `deep`, `high` and `logits`.

    Raises:
        DataError: The network has no feature maps but its logits.
    """
    end = maps[logits]
    inner = [each for each in maps.all if each.name != logits and maps.behind(end, each)]
    inner = [each for each in inner if each.is_end] or inner
    if not inner:
        raise DataError(f"no feature map [1, channels, height, width] lies before {logits}, so that there are no taps")
    coarsest = max(each.stride for each in inner)
    deepest = [each for each in inner if each.stride == coarsest][-1]
    before = [each for each in inner if maps.behind(deepest, each) or each is deepest]
    before = _passages_first(maps, before, deepest)
    after = [each for each in inner if maps.behind(each, deepest)]
    wanted = tap_strides(grid_stride)
    deep, high = _around(before, after, deepest, wanted["deep"])
    low, mid = (_encoder(before, deep, wanted[name]) for name in ("low", "mid"))
    return {"low": low, "mid": mid, "deep": deep, "high": high, "logits": Proposed(end, "the class logits")}


def _passages_first(maps: Maps, before: list[FeatureMap], deepest: FeatureMap) -> list[FeatureMap]:
    """Of each stride those alone that no way leads past, where there are some: what lies within a block is left out."""
    passages = [each for each in before if maps.is_passage(each, deepest)]
    strides = {each.stride for each in passages}
    return [each for each in before if each.stride not in strides or each in passages]


def _encoder(before: list[FeatureMap], deep: Proposed, wanted: int) -> Proposed:
    """The last map at a stride on the way down; where that is no finer than the end of the way, the end."""
    found = _last_near(before, wanted, deep.map)
    if found.stride >= deep.map.stride:
        return deep
    return Proposed(found, f"the last at stride {found.stride} before the network goes further down")


def _around(
    before: list[FeatureMap], after: list[FeatureMap], deepest: FeatureMap, wanted: int
) -> tuple[Proposed, Proposed]:
    """The maps before and after what sees the whole of the picture."""
    deep = _last_near(before, wanted, deepest)
    if deep.stride < deepest.stride:  # the network goes on down: what comes up again has seen the whole
        high = _last_near([deepest, *after], wanted, deepest)
        why = "the deepest" if high is deepest else f"the last at stride {high.stride} on the way up"
        return (
            Proposed(deep, f"the last at stride {deep.stride} before the network goes further down"),
            Proposed(high, why),
        )
    level = [each for each in before if each.stride == deep.stride]
    high = level[-1]
    # What is narrower than what comes after it is within a layer that looks far, not the end of the encoder.
    context = [each for each in level if each.is_spread and each.channels >= high.channels]
    if context:
        return Proposed(context[-1], "what a context module reads"), Proposed(high, "what comes of the context module")
    steps = [(after.depth - each.depth, each) for each, after in zip(level, level[1:], strict=False)]
    widest = max((step for step, _ in steps), default=0)
    if widest < _MODULE:
        return Proposed(high, f"the last at stride {high.stride}"), Proposed(high, f"the last at stride {high.stride}")
    deep = [each for step, each in steps if step == widest][-1]
    return (
        Proposed(deep, f"before the largest module at stride {deep.stride}, of {widest} operators"),
        Proposed(high, f"the last at stride {high.stride}"),
    )


def _last_near(maps: Iterable[FeatureMap], wanted: int, instead: FeatureMap) -> FeatureMap:
    """The last of those whose stride is nearest to the wanted one."""
    found = list(maps) or [instead]
    least = min(distance(each.stride, wanted) for each in found)
    return [each for each in found if distance(each.stride, wanted) == least][-1]
