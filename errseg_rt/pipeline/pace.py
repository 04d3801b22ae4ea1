"""From a deadline to a budget of work, by what recent frames have cost on this machine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_RECENT = 32
"""Frames that are remembered. The dearest of them is reckoned with, so that of frames that all need all of their time
about one in `_RECENT` comes late."""
_FIRST_WORK = 20_000_000
"""Multiply-adds that a frame gets while their cost is not known: a millisecond or two."""
_LEAST_WORK = 10_000_000
"""Multiply-adds from which a frame tells what they cost; below, the time is that of all else that refinement does."""
_OVERHEAD = 30_000_000
"""Multiply-adds that take as long as all else, rather too many than too few."""


class _Cost(NamedTuple):
    work: float  # multiply-adds of refinement
    refine_ms: float
    rest_ms: float  # after the front graph, without refinement

    def affordable(self, left_ms: float) -> float:
        """Multiply-adds that there is time for: in proportion, but for what does not shrink with them."""
        times = left_ms / self.refine_ms
        return times * self.work + min(0.0, (times - 1) * _OVERHEAD)


class Pace:
    """Keeps frames within a deadline; may be used from several threads at once."""

    def __init__(self) -> None:
        self._recent: deque[_Cost] = deque(maxlen=_RECENT)
        self._lock = threading.Lock()

    def budget(self, deadline_ms: float, elapsed_ms: float, most: int) -> int:
        """Multiply-adds of refinement that a frame has time for.

        Args:
            deadline_ms: Milliseconds from the frame's start to its labels.
            elapsed_ms: From the frame's start to the end of its front graph.
            most: Multiply-adds of the dense stage, beyond which there is nothing to do.
        """
        with self._lock:
            recent = list(self._recent)
        left_ms = deadline_ms - elapsed_ms - max((cost.rest_ms for cost in recent), default=0.0)
        if left_ms <= 0:
            return 0
        telling = [cost for cost in recent if cost.work >= _LEAST_WORK and cost.refine_ms > 0]
        affordable = min((cost.affordable(left_ms) for cost in telling), default=_FIRST_WORK)
        return int(max(0, min(affordable, most)))

    def saw(self, work: float, timings: Mapping[str, float]) -> None:
        """Learn from a frame.

        Args:
            work: Multiply-adds of its refinement.
            timings: Milliseconds by step.
        """
        rest_ms = sum(timings[step] for step in ("select", "fuse"))
        with self._lock:
            self._recent.append(_Cost(work, timings["refine"], rest_ms))


class LatePace:
    """Keeps frames of one size within a deadline where only whole frames are timed, when they are over.

    Their time is taken for a part that is constant, and so much for a multiply-add of refinement. While recent frames
    do not tell the two apart, as long as all did the same work, all of it is put down to the work: with that the budget
    moves too little rather than too much, and the next frames tell more. May be used from several threads at once.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=_RECENT)  # work, milliseconds
        self._lock = threading.Lock()

    def budget(self, deadline_ms: float, most: int) -> int:
        """Multiply-adds of refinement that a frame has time for; `most` are those of the dense stage."""
        with self._lock:
            recent = list(self._recent)
        if not recent:
            return min(_FIRST_WORK, most)
        cost = _slope(recent)
        if not cost:  # nothing was refined, so that nothing is known of its cost
            late = max(milliseconds for _, milliseconds in recent) > deadline_ms
            return 0 if late else min(_FIRST_WORK, most)
        rest = max(milliseconds - cost * work for work, milliseconds in recent)
        return int(max(0, min((deadline_ms - rest) / cost, most)))

    def saw(self, work: float, milliseconds: float) -> None:
        """Learn from a frame: multiply-adds of its refinement, and its time."""
        with self._lock:
            self._recent.append((work, milliseconds))


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Milliseconds of a multiply-add, by least squares; where that tells nothing, all time over all work, or 0."""
    works, times = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((work - works) ** 2 for work, _ in points)
    slope = sum((work - works) * (time - times) for work, time in points) / spread if spread else 0.0
    return slope if slope > 0 else times / works if works else 0.0
