"""How far an engine is from torch, on the same frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from errseg_rt.runtime import Runtime


@dataclass(frozen=True)
class Parity:
    """Two engines on the same frames.

    Attributes:
        pixels: Pixels compared.
        equal: Of these, how many have the same fused label.
        flagged_differ: Grid pixels that only one of the two flagged.
        error_difference: Largest difference of the error probability.
    """

    pixels: int
    equal: int
    flagged_differ: int
    error_difference: float

    @property
    def agreement(self) -> float:
        """Share of equal labels, in 0..1."""
        return self.equal / self.pixels


def compare(reference: Runtime, other: Runtime, frames: Iterable[npt.NDArray[np.uint8]]) -> Parity:
    """Run two runtimes over frames and compare what they say.

    Args:
        reference: The one to hold the other against.
        other: The other.
        frames: BGR, `uint8 [H, W, 3]`.

    Raises:
        ValueError: There is no frame.
    """
    pixels = equal = flagged = 0
    worst = 0.0
    for frame in frames:
        a, b = reference.segment(frame), other.segment(frame)
        pixels += a.labels.size
        equal += int((a.labels == b.labels).sum())
        flagged += int((a.flagged != b.flagged).sum())
        worst = max(worst, float(np.abs(a.error_probability - b.error_probability).max()))
    if not pixels:
        raise ValueError("no frame to compare on")
    return Parity(pixels, equal, flagged, worst)
