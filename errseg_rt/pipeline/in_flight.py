"""A frame that is under way, or done."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
        self._outcome, self._held, self._seen = outcome, held, seen
        self._marks: Marks | None = marks
        self._timings: Mapping[str, float] = {}

    def done(self) -> bool:
        """Whether `result` would return at once."""
        with self._outcome.place.entered():
            marks = self._marks
            return marks is None or marks.done()

    def result(self) -> Segmentation:
        """Wait for the frame, and give what is known of it.

        Raises:
            EngineError: A branch gave values that are not finite.
        """
        with self._outcome.place.entered():
            marks = self._marks
            if marks is not None:
                self._timings = marks.milliseconds()
                marks = self._marks = self._held = None  # what is a GPU's goes while that is the thread's
        result = self._outcome.on_host(self._timings)
        seen, self._seen = self._seen, lambda result: None
        seen(result)
        return result
