"""Taps as users name them, held against the feature maps that a network has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from errseg_rt.errors import DataError
from errseg_rt.system.fields import nearest
from errseg_rt.taps.maps import FeatureMap, Maps, in_words, nearest_stride, tap_strides

TAPS = ("low", "mid", "deep", "high", "logits")
_WANTED = "low=NAME,mid=NAME,deep=NAME,high=NAME"


@dataclass(frozen=True)
class Tap:
    """A feature map that a branch works on, and the stride that it is brought to.

    Attributes:
        tensor: Its name in the network.
        channels: Number of channels.
        stride: Its stride.
        wanted: Stride that it is brought to; that of logits stays as it is, unless it is finer.
        is_exact: Whether its sides are those of the input over its stride, rounded up.
    """

    tensor: str
    channels: int
    stride: int
    wanted: int
    is_exact: bool = True

    def __str__(self) -> str:
        how = "" if self.stride == self.wanted else f", resized to stride {self.wanted}"
        return f"{self.tensor} (stride {self.stride}, {self.channels} channels){how}"


def parse_taps(text: str) -> dict[str, str]:
    """Names by tap, of `low=NAME,mid=NAME,deep=NAME,high=NAME[,logits=NAME]`; a name may hold commas and signs.

    Raises:
        DataError: It is something else.
    """
    parts = re.split(rf",(?=\w+=)(?=(?:{'|'.join(TAPS)})=)", text.strip())
    taps: dict[str, str] = {}
    for part in parts:
        tap, sign, name = part.partition("=")
        tap = tap.strip()
        if not sign or not name.strip():
            raise DataError(f"--taps {text}: wanted {_WANTED}, got {part!r}")
        if tap in taps:
            raise DataError(f"--taps {text}: {tap} stands there twice")
        taps[tap] = name.strip()
    check_names(taps, f"--taps {text}")
    return taps


def check_names(taps: Mapping[str, str], where: str) -> None:
    """Raises DataError for a tap that there is not, and for one that is not named; all but the logits must be."""
    for tap in taps:
        if tap not in TAPS:
            raise DataError(f"{where}: there is no tap {tap!r}; {nearest(tap, TAPS)}")
    missing = [tap for tap in TAPS if tap not in taps and tap != "logits"]
    if missing:
        raise DataError(
            f"{where}: {' and '.join(missing)} not named; wanted {_WANTED}, as errseg-rt taps proposes them"
        )


def choose(maps: Maps, names: Mapping[str, str], classes: int, grid_stride: int, where: str) -> dict[str, Tap]:
    """The feature maps of some names as taps.

    A tap has its own stride, or, where the network has no map at that, the nearest that it has.

    Args:
        maps: All feature maps of the network.
        names: For every tap.
        classes: Number of classes.
        grid_stride: Stride of the grid.
        where: What the network is, for messages.

    Raises:
        DataError: A name is that of no feature map, or of one at another stride; or the logits have another number of
            classes.
    """
    fitting = [each for each in maps.all if each.channels == classes]
    logits = _map(maps, "logits", names["logits"], where, fitting)
    if logits.channels != classes:
        others = f"of {classes} channels there are {in_words(fitting)}" if fitting else f"no map has {classes} channels"
        raise DataError(f"{where}: logits={logits} for {classes} classes: {others}")
    inner = maps.before(logits)
    if not inner:
        raise DataError(f"{where}: logits={logits}: no feature map lies before it, to be a tap")
    strides = tap_strides(grid_stride)
    taps = {tap: _chosen(maps, inner, tap, names[tap], strides[tap], where) for tap in ("low", "mid", "deep")}
    # What has seen the whole lies behind `deep`; where nothing there has its stride, what is coarser has seen more.
    deep, high = maps[names["deep"]], names["high"]
    end = [each for each in inner if maps.behind(each, deep)] or inner
    if strides["high"] not in {each.stride for each in end}:
        end = [each for each in (*end, deep) if each.name == high and each.stride >= deep.stride] or end
    taps["high"] = _chosen(maps, end, "high", names["high"], strides["high"], where)
    wanted = max(logits.stride, grid_stride)
    return {**taps, "logits": Tap(logits.name, logits.channels, logits.stride, wanted, logits.is_exact)}


def _chosen(maps: Maps, inner: list[FeatureMap], tap: str, name: str, stride: int, where: str) -> Tap:
    taken = nearest_stride({each.stride for each in inner}, stride)
    fitting = [each for each in inner if each.stride == taken]
    found = _map(maps, tap, name, where, fitting)
    if found.stride != taken:
        wanted = f"stride {stride}" if taken == stride else f"stride {taken}, the nearest to {stride} that there is"
        raise DataError(f"{where}: {tap}={found}: wanted {wanted}: {in_words(fitting)}")
    return Tap(found.name, found.channels, found.stride, stride, found.is_exact)


def _map(maps: Maps, tap: str, name: str, where: str, fitting: list[FeatureMap]) -> FeatureMap:
    if name not in maps:
        alike = nearest(name, [each.name for each in maps.all])
        hint = f"{alike} " if alike.startswith("did") else ""
        raise DataError(f"{where}: {tap}={name}: no feature map is called so; {hint}There are {in_words(fitting)}")
    return maps[name]
