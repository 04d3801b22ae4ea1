"""What the values of a network's output mean: logits, probabilities or labels, and how the classes share them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from errseg_rt.errors import DataError
from errseg_rt.export.wrap.looks import Looks

ACTIVATIONS = ("logits", "softmax", "sigmoid", "labels")
_SUMS_TO_ONE = 1e-3
_HALF = 0.5


@dataclass(frozen=True)
class Meaning:
    """How the kept tensor becomes logits.

    Attributes:
        kind: What it holds: `"logits"`, `"probabilities"` or `"labels"`.
        by: What makes probabilities of logits, `"softmax"` over the classes or `"sigmoid"` for each; None for labels.
        threshold: Probability above which a channel is its class: of the only one, or of several beside a background.
        classes: How many classes come of it; None where labels do not say.
        source: Who says so, for the user to read.
    """

    kind: str
    by: str | None
    threshold: float | None
    classes: int | None
    source: str

    @property
    def level(self) -> float | None:
        """The threshold as a logit."""
        return None if self.threshold is None else math.log(self.threshold / (1 - self.threshold))


def meaning_of(looks: Looks, path: Path, activation: str | None, threshold: float | None) -> Meaning:
    """What the kept tensor means.

    Args:
        looks: What was read.
        path: The file, for messages.
        activation: What the user says: one of `ACTIVATIONS`.
        threshold: What the user says.

    Raises:
        DataError: The two contradict each other, or the user has to say it.
    """
    ends = looks.ends
    if looks.dtype.kind in "iub" or activation == "labels":
        if activation not in (None, "labels"):
            raise DataError(f"{path}: gives whole numbers, which are labels, not {activation}; leave out --activation")
        if activation == "labels" and looks.channels > 1 and not ends.has_labels:
            raise DataError(
                f"{path}: gives {looks.channels} channels a pixel, which are no labels; leave out --activation"
            )
        if looks.channels == 1:
            if threshold is not None:
                raise DataError(f"{path}: gives labels, which need no threshold; leave out --threshold")
            return Meaning(
                "labels", None, None, None, "a run of it: whole numbers" if looks.dtype.kind in "iub" else "given"
            )
    return _of_numbers(looks, path, None if activation == "labels" else activation, threshold)


def _of_numbers(looks: Looks, path: Path, activation: str | None, threshold: float | None) -> Meaning:
    cut, one = looks.ends.activation, looks.channels == 1
    if one and (activation == "softmax" or cut == "softmax"):
        raise DataError(f"{path}: gives one channel, which softmax makes 1 everywhere; give --activation sigmoid")
    if cut and activation not in (None, cut):
        raise DataError(f"{path}: ends in a {cut}, not in {activation}; leave out --activation")
    by = cut or activation or ("sigmoid" if one else "softmax")
    if by == "logits":
        by = "sigmoid" if one else "softmax"
    kind, source = (
        "logits",
        "file" if cut else "given" if activation else "a run of it: below 0 or above 1",
    )
    if not cut and activation != "logits":
        kind, source = _kind(looks, path, activation, source)
        by = by if activation else "sigmoid" if one else "softmax"
    if threshold is not None and by != "sigmoid":
        raise DataError(f"{path}: its {looks.channels} classes share one softmax, which has no threshold; leave it out")
    level = _threshold(looks, kind, threshold) if by == "sigmoid" and (one or threshold is not None) else None
    if level is not None and not 0 < level < 1:
        raise DataError(f"{path}: a threshold of {level}; give --threshold T, a probability between 0 and 1")
    classes = looks.channels + (level is not None)
    return Meaning(kind, by, level, classes, source)


def _kind(looks: Looks, path: Path, activation: str | None, source: str) -> tuple[str, str]:
    """Whether numbers are logits or probabilities, and who says so."""
    values, one = looks.values, looks.channels == 1
    if values.min() < 0 or values.max() > 1:
        if activation == "softmax" and not one and _sums_to_one(values):
            raise DataError(f"{path}: its values sum to one but lie outside 0..1; give --activation logits")
        return "logits", source
    if not one and _sums_to_one(values) and activation in (None, "softmax"):
        return "probabilities", "a run of it: they sum to one"
    if activation == "sigmoid":
        return "probabilities", "given, and a run of it: in 0..1"
    if activation == "softmax":
        return "logits", "given"
    raise DataError(
        f"{path}: its values lie in 0..1 without a softmax or sigmoid at its end, so that they may be probabilities or "
        "not; give --activation logits, softmax, sigmoid or labels"
    )


def _sums_to_one(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> bool:
    return bool(np.abs(values.sum(axis=0) - 1).max() < _SUMS_TO_ONE)


def _threshold(looks: Looks, kind: str, given: float | None) -> float:
    """The probability above which a channel is its class."""
    cut = looks.ends.threshold
    if given is not None or cut is None:
        return _HALF if given is None else given
    is_logit = kind == "logits" and looks.ends.activation is None
    return 1 / (1 + math.exp(-cut)) if is_logit else cut
