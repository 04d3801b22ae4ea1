"""What is known of a network, and who says so: what a user reads before trusting a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from errseg_rt.export.wrap.looks import Looks
from errseg_rt.export.wrap.meaning import Meaning
from errseg_rt.system.lines import one_line

FILE, RUN, GIVEN, DEFAULT = "file", "a run of it", "given", "default"
"""Who says something of a network: its file, a run on made-up inputs, the user, or nobody."""


@dataclass(frozen=True)
class Fact:
    """Something that is known of a network.

    Attributes:
        name: Of what.
        value: What.
        source: Who says so.
    """

    name: str
    value: str
    source: str


def facts_of(
    looks: Looks, meaning: Meaning, *, output: str | None, threshold: float | None, is_changed: bool, is_alone: bool
) -> Iterator[Fact]:
    """What a network takes and gives.

    Args:
        looks: What was read.
        meaning: What its values mean.
        output: What the user said of it.
        threshold: Likewise.
        is_changed: Whether it computes in another precision than its file says.
        is_alone: Whether it takes one frame where its file says several.
    """
    given, ends = looks.input, looks.ends
    precision = "other precision than float32, computed in that" if is_changed else str(given.dtype)
    channels = "grey" if given.channels == 1 else "3 channels"
    yield Fact("input", f"{one_line(given.name)}: {given.layout}, {channels}, {precision}", FILE)
    if is_alone:
        yield Fact("batch", "fixed, but one frame goes as well", RUN)
    elif given.batch and given.batch > 1:
        yield Fact("batch", f"{given.batch} frames: each frame is computed {given.batch} times", FILE)
    yield Fact("output", one_line(looks.output), GIVEN if output else FILE)
    if ends.cut:
        yield Fact("cut off its end", ", ".join(ends.cut), FILE)
    yield Fact("values", _values(looks, meaning), meaning.source)
    if meaning.threshold is not None:
        below = "below, a pixel is class 0"
        if looks.channels > 1:
            below = "where no channel exceeds it, a pixel is class 0"
        source = GIVEN if threshold is not None else DEFAULT if ends.threshold is None else FILE
        yield Fact("threshold", f"{meaning.threshold:.4g}: {below}", source)


def _values(looks: Looks, meaning: Meaning) -> str:
    if meaning.kind == "labels":
        return "labels alone: no error map"
    return f"{meaning.kind} of {looks.channels} channel{'s' * (looks.channels > 1)}, {meaning.by}"
