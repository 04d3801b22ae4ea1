"""The service's own source: its frames are segmented as they come, and the newest one is there for who looks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from errseg_rt.errors import ErrsegError
from errseg_rt.runtime import Runtime
from errseg_rt.service.metrics import Metrics
from errseg_rt.service.replicas import Remote
from errseg_rt.service.views import PARTS, message_of
from errseg_rt.video.given import Paced
from errseg_rt.video.picture import ENDED, Source
from errseg_rt.video.stream import Shot, Stream

_FIRST = 10.0  # seconds that a source gets for its first frame, or to fail


class Newest(NamedTuple):
    """The newest frame: its number, and the message that shows it."""

    number: int
    message: bytes


class Live:
    """Segments a source in threads of its own, from `start` to `close`.

    Args:
        runtime: Segments its frames.
        source: Gives them; what is there already is played at its own time.
        metrics: Count them.
        workers: Frames that are segmented side by side.
    """

    def __init__(self, runtime: Runtime | Remote, source: Source, metrics: Metrics, workers: int) -> None:
        played: Source = source if source.is_live else Paced(source)
        self._semantic = runtime.detail is not None
        self.stream = Stream(runtime, played, workers=workers, semantic=self._semantic)
        self.name, self.fault = source.name, ""
        self._metrics, self._source = metrics, source
        self._shot: Shot | None = None
        self._newest: Newest | None = None
        self._error: BaseException | None = None
        self._is_over = False
        self._listeners: set[Callable[[], None]] = set()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True, name="errseg-live")
        metrics.watch_source(lambda: self.stream.stats)

    def start(self) -> None:
        """Begin, and wait for the first frame.

        Raises:
            SourceError: The source cannot be opened.
        """
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._shot or self._error or self._is_over, _FIRST)
        if self._error is not None and self._shot is None:
            raise self._error

    @property
    def state(self) -> str:
        """Of the source: `"waiting"`, `"connected"`, `"lost"` or `"ended"`."""
        return ENDED if self.fault else self._source.state

    def change(self, **asked: float | None) -> None:
        """Change threshold and budget of frames to come, for all who look."""
        self.stream.change(**asked)

    async def after(self, index: int) -> Shot:
        """The newest frame, once it is another one than that of this index."""
        loop, is_there = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(is_there.set)

        with self._changed:
            self._listeners.add(tell)
        try:
            while self._shot is None or self._shot.index == index:
                is_there.clear()
                if self._shot is not None and self._shot.index != index:
                    break
                await is_there.wait()
            return self._shot
        finally:
            with self._changed:
                self._listeners.discard(tell)

    def message(self, shot: Shot) -> bytes:
        """The message that shows a frame; made once for all who look at the newest."""
        newest = self._newest
        if newest is not None and newest.number == shot.index:
            return newest.message
        more: dict[str, Any] = {"index": shot.index, "timestamp": shot.timestamp, "dropped": shot.dropped}
        more |= {"captured_at": shot.captured_at, "latency": shot.latency}
        message = message_of(shot.result, more, PARTS, shot.frame)
        self._newest = Newest(shot.index, message)
        return message

    def close(self) -> None:
        """End the threads."""
        self.stream.close()

    def _run(self) -> None:
        try:
            with self.stream:
                for shot in self.stream:
                    self._metrics.frame(shot.result)
                    self._offer(shot)
        except BaseException as error:  # whatever it is, the page says it
            self._error = error
            self.fault = str(error) if isinstance(error, ErrsegError) else type(error).__name__
        finally:
            self._is_over = True
            self._offer(self._shot)

    def _offer(self, shot: Shot | None) -> None:
        with self._changed:
            self._shot = shot
            self._changed.notify_all()
            for tell in self._listeners:
                tell()
