"""From an ONNX file of anybody's network to a bundle of a semantic network alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from errseg_rt.bundle.bundle import Bundle, write_bundle
from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.class_files import open_classes
from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.errors import DataError
from errseg_rt.export.model_card import model_card
from errseg_rt.export.wrap.facts import DEFAULT, GIVEN, RUN, Fact
from errseg_rt.export.wrap.network import Network
from errseg_rt.export.wrap.preprocessing import REDUCES, Given, Normalisation, missing, normalisation_of

_KNOTS = np.linspace(-16, 16, 65)  # 0.002 from the sigmoid at most
_THRESHOLD = 0.5


@dataclass(frozen=True)
class Wrapped:
    """A network with all that is needed to run it on frames.

    Attributes:
        network: As it was read.
        classes: Its classes.
        input: How frames become its input.
        facts: What was read and given, for a user to read.
    """

    network: Network
    classes: ClassSet
    input: InputSpec
    facts: tuple[Fact, ...]

    def manifest(self, name: str) -> Manifest:
        """The manifest of its bundle, but for the files."""
        network = self.network
        read: dict[str, Any] = {fact.name: {"value": fact.value, "source": fact.source} for fact in self.facts}
        return Manifest(
            name=name,
            classes=self.classes,
            input=self.input,
            align_corners=bool(network.align_corners),
            threshold=_THRESHOLD,
            lowest_threshold=_THRESHOLD,
            calibration=Calibration(tuple(_KNOTS.tolist()), tuple((1 / (1 + np.exp(-_KNOTS))).tolist())),
            cascade={"semantic": "onnx", "read": read},
            grid_stride=network.stride,
            error="none" if network.meaning.kind == "labels" else "max_softmax",
            is_calibrated=False,
            has_detail=False,
            provenance=network.provenance,
        )


def complete(network: Network, given: Given, classes: str | None) -> Wrapped:
    """A network, and what its user says of frames and classes.

    Args:
        network: As it was read.
        given: How frames are normalised.
        classes: As `errseg_rt.bundle.class_files.open_classes` takes them; None: made up, where their number is known.

    Raises:
        DataError: Something has to be said that is not, all of it named in one line; or what was said does not fit.
    """
    wanted = [*missing(given, network.looks.input), *network.missing()]
    if classes is None and network.meaning.classes is None:
        wanted.append("--classes N|FILE|NAME (it gives labels, without their number)")
    if wanted:
        raise DataError(f"{network.path}: the file does not say how it is to be used; give {'; '.join(wanted)}")
    found, fact = classes_of(network, classes)
    values = normalisation_of(given, network.looks.input)
    spec = spec_of(network, values, given)
    facts = (*network.facts, fact, *_facts(network, values, given))
    return Wrapped(network, found, spec, facts)


def classes_of(network: Network, classes: str | None) -> tuple[ClassSet, Fact]:
    """The classes of a network, and who says so.

    Raises:
        DataError: There are not as many as it has.
    """
    count = network.meaning.classes
    if count is not None and count > IGNORE:
        raise DataError(
            f"{network.path}: gives {count} classes a pixel, more than the {IGNORE} that labels have room for"
        )
    found = open_classes(classes if classes is not None else str(count)).classes
    if count is None and (highest := int(network.looks.values.max())) >= len(found):
        raise DataError(
            f"{network.path}: gives the label {highest}, beyond the {len(found)} of --classes {classes}; give them all"
        )
    if count is not None and len(found) != count:
        channels = network.looks.channels
        why = (
            "" if count == channels else f" (class 0 is where no channel exceeds the threshold; {channels} in the file)"
        )
        raise DataError(f"{network.path}: has {count} classes{why}, not the {len(found)} of --classes {classes}")
    names = ", ".join(found.names[:4]) + (", ..." if len(found) > 4 else "")
    if classes is None:
        return found, Fact("classes", f"{len(found)}: {names} (made-up names; --classes names them)", RUN)
    return found, Fact("classes", f"{len(found)}: {names}", GIVEN)


def spec_of(network: Network, values: Normalisation, given: Given) -> InputSpec:
    """How frames become a network's input.

    Raises:
        DataError: There is no such way to make them smaller.
    """
    if given.reduce not in (None, *REDUCES):
        raise DataError(f"--reduce {given.reduce}: there are {' and '.join(REDUCES)}")
    return InputSpec(
        multiple=network.multiple,
        mean=values.mean,
        std=values.std,
        color=values.color,
        reduce=given.reduce or REDUCES[0],
        size=network.size,
    )


def _facts(network: Network, values: Normalisation, given: Given) -> list[Fact]:
    numbers = f"less {_shown(values.mean)}, over {_shown(values.std)} (red, green, blue in 0..1)"
    facts = [Fact("normalised", numbers, values.source)]
    if network.looks.input.channels == 3:
        facts.append(Fact("channels", values.color.upper(), values.source))
    if network.size:
        way = f"larger frames are reduced by {given.reduce or REDUCES[0]} interpolation (--reduce)"
        facts.append(Fact("reducing", way, GIVEN if given.reduce else DEFAULT))
    return facts


def write(wrapped: Wrapped, folder: Path, name: str, license_file: Path | None = None) -> Bundle:
    """Write a wrapped network as a bundle.

    Args:
        wrapped: The network.
        folder: Where the bundle shall lie; a bundle that is there is replaced.
        name: What it shall be called.
        license_file: Terms of the weights, taken into the bundle.

    Raises:
        DataError: The network cannot be converted, or the licence cannot be read.
        BundleError: `folder` holds something else.
    """
    manifest = wrapped.manifest(name)
    files = {"graphs/front.onnx": wrapped.network.tidy_front(len(wrapped.classes)).SerializeToString()}
    files["MODEL_CARD.md"] = (model_card(manifest) + "\n" + _known(wrapped.facts)).encode()
    if license_file is not None:
        try:
            files["LICENSE.md"] = license_file.read_bytes()
        except OSError as error:
            raise DataError(f"{license_file}: cannot be read ({error.strerror})") from error
    return write_bundle(folder, manifest, files)


def _known(facts: tuple[Fact, ...]) -> str:
    """A part of the model card: what is known of the network, and who says so."""
    rows = [f"| {fact.name} | {fact.value.replace('|', '/')} | {fact.source} |" for fact in facts]
    return "\n".join(["## What is known of the network", "", "| | | known from |", "| --- | --- | --- |", *rows, ""])


def _shown(values: tuple[float, ...]) -> str:
    numbers = [f"{value:.4g}" for value in values]
    return numbers[0] if len(set(numbers)) == 1 else " ".join(numbers)
