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
    order = order[np.searchsorted(runs.ids[order], 1) :]
    ids, begins, ends = runs.ids[order], runs.begins[order], (runs.begins + runs.lengths)[order]
    own = np.bincount(ids - 1, minlength=count)  # runs of each mask
    # Two counts a run, what is outside before it and its own length, and one for the rest, mask after mask.
    last = 2 * np.cumsum(own) + np.arange(count)
    first = last - 2 * own
    counts = np.zeros(2 * len(ids) + count, np.int64)
    place = 2 * np.arange(len(ids)) + ids - 1
    before = np.where(np.diff(ids, prepend=0) > 0, 0, np.roll(ends, 1))
    counts[place], counts[place + 1] = begins - before, ends - begins
    has_runs = own > 0
    counts[last] = index.size
    counts[last[has_runs]] -= ends[np.cumsum(own)[has_runs] - 1]
    is_late = np.arange(len(counts)) - np.repeat(first, last - first + 1) > 2
    values = counts.copy()
    values[is_late] -= counts[np.flatnonzero(is_late) - 2]
    characters, is_used = _digits(values)
    is_used[last[has_runs & (counts[last] == 0)]] = False  # no rest
    text = bytes(characters[is_used]).decode("ascii")
    ends = np.concatenate([[0], np.cumsum(is_used.sum(axis=1))])
    size = [int(side) for side in index.shape]
    bounds = zip(ends[first].tolist(), ends[last + 1].tolist(), strict=True)
    return [{"size": size, "counts": text[low:high]} for low, high in bounds]


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


def _digits(values: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Each of n numbers as characters, `uint8 [n, most]`, and which of them it has, `bool [n, most]`."""
    rest = values.copy()
    digits: list[npt.NDArray[np.int64]] = []
    is_used: list[npt.NDArray[np.bool_]] = []
    more = np.ones(len(values), bool)
    while not digits or more.any():
        digit = rest & (_MORE - 1)
        rest >>= _BITS
        is_used.append(more)
        more = more & (rest != np.where(digit & _SIGN, -1, 0))
        digits.append(digit + _FIRST + _MORE * more)
    return np.stack(digits, axis=1).astype(np.uint8), np.stack(is_used, axis=1)


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
