"""How a network wants its frames: what no file says, and the user must."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from errseg_rt.errors import DataError
from errseg_rt.export.wrap.facts import FILE, GIVEN
from errseg_rt.export.wrap.looks import Input

Triple = tuple[float, float, float]
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TERM = re.compile(rf"({_NUMBER})(?:([*/])({_NUMBER}))?")
_LARGEST_MEAN = 1.5  # in 0..1: what lies beyond was given in other units
COLORS = ("rgb", "bgr")
REDUCES = ("bilinear", "area")
"""How frames are made smaller for a network of one size: the first, as most are used, unless the user says another."""


@dataclass(frozen=True)
class Normalisation:
    """What becomes of a pixel: `(value / 255 - mean) / std`, plane by plane.

    Attributes:
        mean: Of red, green and blue, in 0..1.
        std: Likewise.
        color: Order of the planes.
        source: Who says so.
    """

    mean: Triple
    std: Triple
    color: str
    source: str


def _of_bytes(values: Triple) -> Triple:
    red, green, blue = (value / 255 for value in values)
    return red, green, blue


PRESETS: Mapping[str, Normalisation] = MappingProxyType(
    {
        "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "rgb", "--normalise imagenet"),
        "0..1": Normalisation((0.0,) * 3, (1.0,) * 3, "rgb", "--normalise 0..1"),
        "-1..1": Normalisation((0.5,) * 3, (0.5,) * 3, "rgb", "--normalise -1..1"),
        "0..255": Normalisation((0.0,) * 3, (1 / 255,) * 3, "rgb", "--normalise 0..255"),
        "caffe": Normalisation(_of_bytes((123.68, 116.779, 103.939)), (1 / 255,) * 3, "bgr", "--normalise caffe"),
    }
)
"""Conventions by name: torchvision's, plain ranges, and that of Caffe's ImageNet networks (BGR less its mean)."""


@dataclass(frozen=True)
class Given:
    """What a user says of it, as texts; None: nothing.

    Attributes:
        normalise: A key of `PRESETS`.
        mean: A number, or three in the order of `color`.
        std: Likewise.
        scale: What a pixel of 0..255 is multiplied with first.
        color: `"rgb"` or `"bgr"`.
        reduce: How larger frames are made smaller, one of `REDUCES`.
    """

    normalise: str | None = None
    mean: str | None = None
    std: str | None = None
    scale: str | None = None
    color: str | None = None
    reduce: str | None = None

    @property
    def has_values(self) -> bool:
        """Whether it says how values are normalised."""
        return any((self.normalise, self.mean, self.std, self.scale))


def missing(given: Given, network: Input) -> list[str]:
    """Options that have to be given, and are not."""
    options = []
    if not given.has_values and network.dtype.kind == "f":
        options.append(f"--normalise {'|'.join(PRESETS)} (or --mean, --std and --scale)")
    if given.color is None and given.normalise is None and network.channels == 3:
        options.append("--color rgb|bgr")
    return options


def normalisation_of(given: Given, network: Input) -> Normalisation:
    """What a user says, where nothing is `missing`.

    Raises:
        DataError: It is no normalisation; the message names the option.
    """
    color = given.color
    if color not in (None, *COLORS):
        raise DataError(f"--color {color}: wanted rgb or bgr, the order of the planes that the network takes")
    if network.dtype.kind in "iu":
        if given.has_values and _name(given.normalise) != "0..255":
            raise DataError("the network takes whole numbers 0..255: leave out --normalise, --mean, --std and --scale")
        return Normalisation((0.0,) * 3, (1 / 255,) * 3, color or "rgb", FILE if color is None else GIVEN)
    if given.normalise is not None:
        if given.mean or given.std or given.scale:
            raise DataError("--normalise says mean, std and scale: leave them out, or --normalise")
        preset = PRESETS.get(_name(given.normalise) or "")
        if preset is None:
            raise DataError(
                f"--normalise {given.normalise}: there are {', '.join(PRESETS)}; or give --mean, --std, --scale"
            )
        return Normalisation(preset.mean, preset.std, color or preset.color, preset.source)
    mean, std = _triple("mean", given.mean or "0"), _triple("std", given.std or "1")
    scale = _number("scale", given.scale) if given.scale else _scale_of(mean if given.mean else None)
    if scale <= 0:
        raise DataError(f"--scale {given.scale}: wanted a positive number, as 1 or 1/255")
    if color == "bgr":
        mean, std = mean[::-1], std[::-1]
    # (x scale - mean) / std is (x / 255 - m) / s for m = mean / (255 scale), and s likewise.
    red, green, blue = (value / (255 * scale) for value in mean)
    of_red, of_green, of_blue = (value / (255 * scale) for value in std)
    if not all(-_LARGEST_MEAN <= value <= _LARGEST_MEAN for value in (red, green, blue)):
        raise DataError(
            f"--mean {given.mean}: is no colour after --scale {given.scale}: means in 0..255 go with --scale 1"
        )
    if min(of_red, of_green, of_blue) <= 0:
        raise DataError(f"--std {given.std}: wanted positive numbers")
    return Normalisation((red, green, blue), (of_red, of_green, of_blue), color or "rgb", GIVEN)


def _name(text: str | None) -> str | None:
    """A preset's name, also as a range with a dash."""
    return {"0-1": "0..1", "-1-1": "-1..1", "0-255": "0..255"}.get(text or "", text)


def _scale_of(mean: Triple | None) -> float:
    """The scale that a mean goes with, where that can be told.

    Raises:
        DataError: It cannot.
    """
    if mean is None or not any(mean):
        raise DataError("--scale is missing: 1 for values in 0..255, 1/255 for values in 0..1, before --mean and --std")
    return 1.0 if max(map(abs, mean)) > _LARGEST_MEAN else 1 / 255


def _triple(name: str, text: str) -> Triple:
    values = [_number(name, part) for part in re.split(r"[,\s]+", text.strip().strip("[]()"))]
    if len(values) not in (1, 3):
        raise DataError(f"--{name} {text}: wanted one number, or three as 0.485,0.456,0.406")
    first, second, third = values * (3 // len(values))
    return first, second, third


def _number(name: str, text: str) -> float:
    """A number, a fraction or a product."""
    found = _TERM.fullmatch(text.strip())
    if not found or (found[2] == "/" and float(found[3]) == 0):
        raise DataError(f"--{name} {text}: wanted a number, or a fraction as 1/255")
    value = float(found[1])
    if found[2]:
        value = value / float(found[3]) if found[2] == "/" else value * float(found[3])
    return value
