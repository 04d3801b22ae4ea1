"""From a deadline to a budget of work, by what recent frames have cost on this machine."""

from __future__ import annotations

import threading
from collections import deque
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
    work: int  # multiply-adds of refinement
    refine_ms: float
    rest_ms: float  # after the front graph, without refinement

    def affordable(self, left_ms: float) -> float:
        """Multiply-adds that there is time for: in proportion, but for what does not shrink with them."""
        times = left_ms / self.refine_ms
        return times * self.work + min(0.0, (times - 1) * _OVERHEAD)


class Pace:
    """Keeps frames within a deadline; may be used from several threads at once.

    Args:
        deadline_ms: Milliseconds from the start of a frame to its labels.
    """

    def __init__(self, deadline_ms: float) -> None:
        self.deadline_ms = deadline_ms
        self._recent: deque[_Cost] = deque(maxlen=_RECENT)
        self._lock = threading.Lock()

    def budget(self, elapsed_ms: float, most: int) -> int:
        """Multiply-adds of refinement that a frame has time for.

        Args:
            elapsed_ms: From the frame's start to the end of its front graph.
            most: Multiply-adds of the dense stage, beyond which there is nothing to do.
        """
        with self._lock:
            recent = list(self._recent)
        left_ms = self.deadline_ms - elapsed_ms - max((cost.rest_ms for cost in recent), default=0.0)
        if left_ms <= 0:
            return 0
        telling = [cost for cost in recent if cost.work >= _LEAST_WORK and cost.refine_ms > 0]
        affordable = min((cost.affordable(left_ms) for cost in telling), default=_FIRST_WORK)
        return int(max(0, min(affordable, most)))

    def saw(self, work: int, refine_ms: float, rest_ms: float) -> None:
        """Learn from a frame.

        Args:
            work: Multiply-adds of its refinement.
            refine_ms: Milliseconds that refinement took.
            rest_ms: Milliseconds of all else after the front graph.
        """
        with self._lock:
            self._recent.append(_Cost(work, refine_ms, rest_ms))
