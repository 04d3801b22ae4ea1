"""Masks as COCO's compressed run lengths: how many pixels are outside, inside, outside, and so on, down the columns.

A count, from the fourth on less the one two before it, is written in digits of five bits, the lowest first, each as one
character from "0" on; a sixth bit says that more follow, the fifth of the last digit is the sign (`rleToString` of
https://github.com/cocodataset/cocoapi).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.frames.runs import runs_of

_FIRST = 48  # character of the digit 0
_BITS, _MORE, _SIGN = 5, 32, 16
_MOST_DIGITS = 13  # of an int64


def encode_masks(index: npt.NDArray[np.integer[Any]], count: int) -> list[dict[str, Any]]:
    """The mask of each of the ids 1..count of an index map, in one pass over it.

    Args:
        index: Whose each pixel is, integers `[H, W]`, none above `count`.
        count: Number of masks.

    Returns:
        `size`, which is `[H, W]`, and `counts`, a text, of each.
    """
    runs = runs_of(np.asarray(index).T.reshape(1, -1))
    order = np.argsort(runs.ids, kind="stable")
    ids, begins = runs.ids[order], runs.begins[order]
    ends = begins + runs.lengths[order]
    first = np.searchsorted(ids, np.arange(1, count + 2))
    size = [int(side) for side in index.shape]
    masks = []
    for low, high in zip(first[:-1].tolist(), first[1:].tolist(), strict=True):
        borders = np.empty(2 * (high - low) + 2, np.int64)
        borders[0], borders[-1] = 0, index.size
        borders[1:-1:2], borders[2:-1:2] = begins[low:high], ends[low:high]
        counts = np.diff(borders)
        masks.append({"size": size, "counts": _text(counts[:-1] if high > low and counts[-1] == 0 else counts)})
    return masks


def decode_mask(mask: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """The mask of compressed run lengths, `bool [H, W]`.

    Raises:
        ValueError: The counts are no text of run lengths, or not of this size.
    """
    height, width = mask["size"]
    counts = _counts(mask["counts"])
    if counts.min(initial=0) < 0 or counts.sum() != height * width:
        raise ValueError(f"run lengths of {counts.sum()} pixels, wanted {height}x{width}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, counts).reshape(width, height).T)


def _text(counts: npt.NDArray[np.int64]) -> str:
    values = counts.copy()
    values[3:] -= counts[1:-2]
    digits, is_used = [], []
    more = np.ones(len(values), bool)
    while more.any():
        digit = values & (_MORE - 1)
        values >>= _BITS
        is_used.append(more)
        more = more & (values != np.where(digit & _SIGN, -1, 0))
        digits.append(digit + _FIRST + _MORE * more)
    # Down the columns of these: all digits of a count, then those of the next.
    characters = np.stack(digits, 1)[np.stack(is_used, 1)].astype(np.uint8)
    return bytes(characters).decode("ascii")


def _counts(text: str | bytes) -> npt.NDArray[np.int64]:
    raw = np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8).astype(np.int64) - _FIRST
    is_last = raw & _MORE == 0
    if not raw.size or raw.min() < 0 or raw.max() >= 2 * _MORE or not is_last[-1]:
        raise ValueError(f"{text!r:.40} are no run lengths")
    ends = np.flatnonzero(is_last) + 1
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    place = np.arange(len(raw)) - np.repeat(starts, ends - starts)
    if place.max() >= _MOST_DIGITS:
        raise ValueError(f"{text!r:.40} are no run lengths")
    values = np.add.reduceat((raw & (_MORE - 1)) << (_BITS * place), starts)
    is_negative = raw[ends - 1] & _SIGN != 0
    values -= np.where(is_negative, np.int64(1) << (_BITS * (ends - starts)), 0)
    for first in (1, 2):  # each adds up on its own: outside and inside
        values[first::2] = np.cumsum(values[first::2])
    return values
