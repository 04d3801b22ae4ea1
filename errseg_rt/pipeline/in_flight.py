"""A frame that is under way, or done."""

from __future__ import annotations

from collections.abc import Callable

from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.pipeline.outcome import Outcome
from errseg_rt.places.place import Marks


class FrameInFlight:
    """A frame that is under way, or done.

    Args:
        outcome: What comes of it, in memory of the host.
        marks: Tell when that is there.
        held: What must not go before that.
        seen: Is told of the result, once.
    """

    def __init__(
        self,
        outcome: Outcome,
        marks: Marks,
        held: object = None,
        seen: Callable[[Segmentation], None] = lambda result: None,
    ) -> None:
        self._outcome, self._marks, self._held, self._seen = outcome, marks, held, seen

    def done(self) -> bool:
        """Whether `result` would return at once."""
        with self._outcome.place.entered():
            return self._marks.done()

    def result(self) -> Segmentation:
        """Wait for the frame, and give what is known of it.

        Raises:
            EngineError: A branch gave values that are not finite.
        """
        with self._outcome.place.entered():
            timings = self._marks.milliseconds()
        self._held, result = None, self._outcome.on_host(timings)
        seen, self._seen = self._seen, lambda result: None
        seen(result)
        return result
