"""What a client gets of a frame, by the header Accept: labels or error map as a PNG, or figures as JSON."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.service.drift import doubts, shares_of
from errseg_rt.service.refusal import RefusalError

LABELS, ERRORS, FIGURES = "image/png", "image/png;map=error", "application/json"
"""What may be asked for, in the order of our preference."""
_FORMS = {LABELS: ("image", "png", "labels"), ERRORS: ("image", "png", "error"), FIGURES: ("application", "json", "")}


class Answer(NamedTuple):
    """Body of an answer, and the media type that it has."""

    body: bytes
    media_type: str


def wanted(accept: str) -> str:
    """What a header Accept asks for: the form of the highest quality, or of ours the first.

    Raises:
        RefusalError: It asks for nothing that there is (406).
    """
    best, form = 0.0, ""
    for offer, (kind, subtype, name) in _FORMS.items():
        quality, precision = 0.0, -1
        for part in accept.split(",") if accept.strip() else ["*/*"]:
            media, *parameters = (text.strip().lower() for text in part.split(";"))
            given = dict(text.replace(" ", "").partition("=")[::2] for text in parameters)
            if media not in ("*/*", f"{kind}/*", f"{kind}/{subtype}"):
                continue
            # The error map is given to those who name it, and labels to those who name no map.
            if name == "error" and given.get("map") != "error":
                continue
            if name == "labels" and given.get("map", "labels") != "labels":
                continue
            how = ("*/*", f"{kind}/*", f"{kind}/{subtype}").index(media)
            if how > precision:
                precision, quality = how, _quality(given.get("q", "1"))
        if quality > best:
            best, form = quality, offer
    if not form:
        raise RefusalError(406, f"there is none of that kind; accept {', '.join(_FORMS)}")
    return form


def answered(form: str, result: Segmentation) -> Answer:
    """A frame's answer in a form.

    Raises:
        RefusalError: There is no error map (406).
    """
    if form == FIGURES:
        return Answer(json.dumps(figures(result), allow_nan=False).encode(), "application/json")
    if form == LABELS:
        return Answer(png(result.labels), "image/png")
    if result.error_probability is None:
        raise RefusalError(406, "the bundle has no error map: its network gives labels alone")
    return Answer(png(np.rint(result.error_map() * 255).astype(np.uint8)), "image/png")


def figures(result: Segmentation) -> dict[str, Any]:
    """What is known of a frame, in numbers."""
    return {
        "size": list(result.labels.shape),
        "shares": result.shares,
        "mean_error_probability": result.expected_error,
        "doubtful": shares_of(result.classes, *doubts(result)) if result.error_probability is not None else None,
        "flagged_share": result.flagged_share,
        "left_out": result.left_out,
        "work": result.work,
        "milliseconds": dict(result.timings),
    }


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    """A picture as a PNG, quickly rather than small."""
    return cv2.imencode(".png", picture, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes()


def _quality(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
