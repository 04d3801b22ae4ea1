"""WebSockets: a client's own frames, one in flight, and the frames of the service's source, the next once one is shown.

Latency does not grow: of frames that come faster than they are segmented the newest is taken, and a client that shows
frames slowly is sent fewer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from errseg_rt.errors import ErrsegError
from errseg_rt.options import check_limits
from errseg_rt.service.guard import PROTOCOL
from errseg_rt.service.limits import picture_of
from errseg_rt.service.refusal import GoneError, RefusalError
from errseg_rt.service.views import PARTS, message_of
from errseg_rt.service.work import Wanted
from errseg_rt.system.json_text import parse_json
from errseg_rt.system.lines import one_line

if TYPE_CHECKING:
    from errseg_rt.service.live import Live
    from errseg_rt.service.state import Service
    from errseg_rt.video.stream import Shot

GOODBYE, BAD, IDLE = 1001, 1008, 1013
"""Codes with which a stream is closed: the service ends; what the client sent is none; the client does nothing."""
_LONGEST = 4096  # characters of a message in text
_SETTINGS = ("threshold", "budget")


class Talk:
    """One end of a WebSocket: what came in is kept, of frames the newest.

    Args:
        socket: Accepted already.
        service: Whose it is.
        settle: Takes settings that the client sends.
    """

    def __init__(self, socket: WebSocket, service: Service, settle: Callable[[dict[str, Any]], None]) -> None:
        self._socket, self._service, self._settle = socket, service, settle
        self._changed = asyncio.Event()
        self.frame: bytes | None = None
        self.number, self.dropped = 0, 0
        self.shown = -1
        self._fault: RefusalError | None = None
        self._is_gone = False

    async def listen(self) -> None:
        """Take what the client sends, until it is gone or sends what is none."""
        try:
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if message.get("bytes") is not None:
                    self.dropped += self.frame is not None
                    self.frame, self.number = message["bytes"], self.number + 1
                else:
                    self._take(message["text"])
                self._changed.set()
        except RefusalError as fault:
            self._fault = fault
        finally:
            self._is_gone = self._fault is None
            self._changed.set()

    async def until(self, is_so: Callable[[], bool], seconds: float) -> None:
        """Wait until something is so of what came in.

        Raises:
            RefusalError: The client sent what is none.
            WebSocketDisconnect: It is gone.
            asyncio.TimeoutError: It was not so within so many seconds.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            self.check()
            if is_so():
                return
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), max(0.0, end - loop.time()))

    async def until_shown(self, index: int, seconds: float) -> None:
        """Wait until the client says that it has shown a frame; raises as `until`."""
        await self.until(lambda: self.shown >= index, seconds)

    def check(self) -> None:
        """Raise as `until`, where the client is gone, or sent what is none."""
        if self._fault is not None:
            raise self._fault
        if self._is_gone:
            raise WebSocketDisconnect

    async def gone(self) -> None:
        """Return when the client is gone."""
        while not self._is_gone and self._fault is None:
            self._changed.clear()
            await self._changed.wait()

    def _take(self, text: str) -> None:
        try:
            if len(text) > _LONGEST:
                raise ValueError(f"it is longer than {_LONGEST} characters")
            given = parse_json(text)
            if not isinstance(given, dict):
                raise ValueError("it is no JSON object")
            strange = [name for name in given if name not in (*_SETTINGS, "shown", "parts")]
            if strange:
                raise ValueError(f"it has {one_line(strange[0])!r}")
            check_limits(given.get("threshold"), given.get("budget"), None)
            parts = given.get("parts", [])
            if not isinstance(parts, list) or any(part not in PARTS for part in parts):
                raise ValueError(f"parts are of {', '.join(PARTS)}")
            shown = given.get("shown", self.shown)
            if type(shown) is not int:
                raise ValueError("shown is the number of a frame")
        except ValueError as error:
            raise RefusalError(
                400, f'a message in text is a JSON object of settings, such as {{"threshold": 0.5}}: {error}'
            ) from None
        self.shown = shown
        settings = {name: value for name, value in given.items() if name != "shown"}
        if settings:
            self._settle(settings)


async def own_frames(socket: WebSocket, service: Service) -> None:
    """Segment the frames that a client sends."""
    asked: dict[str, Any] = {"threshold": None, "budget": None, "parts": ["labels", "error"]}

    async def converse(talk: Talk) -> None:
        while True:
            await talk.until(lambda: talk.frame is not None, service.settings.idle_seconds)
            data, number, dropped = talk.frame, talk.number, talk.dropped
            assert data is not None
            talk.frame, talk.dropped = None, 0
            service.metrics.dropped(dropped)
            more = {"index": number, "dropped": dropped}
            try:
                message = await service.work.do(_seen(service, data, dict(asked), more), talk.gone, is_patient=True)
                await socket.send_bytes(message)
            except (ErrsegError, RefusalError, ValueError) as error:  # of this frame; the next may be whole
                await socket.send_json({"error": one_line(error), **more})

    await _held(socket, service, converse, asked.update)


async def own_source(socket: WebSocket, service: Service) -> None:
    """Show a client the newest frames of the service's source."""
    live = service.live
    if live is None:
        await socket.accept(_protocol(socket))
        await socket.send_json({"error": "the service has no source; start it as errseg-rt serve SOURCE"})
        await socket.close(IDLE)
        return

    def settle(settings: dict[str, Any]) -> None:
        if settings.get("budget") is not None and service.runtime.detail != "sparse":
            # The source would end by it.
            raise RefusalError(400, "a budget needs sparse refinement, and this service has none")
        live.change(**{name: value for name, value in settings.items() if name in _SETTINGS})

    async def converse(talk: Talk) -> None:
        index = -1
        while True:
            newer, gone = asyncio.ensure_future(live.after(index)), asyncio.ensure_future(talk.gone())
            try:
                await asyncio.wait((newer, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                newer.cancel()
                gone.cancel()
            talk.check()
            shot = newer.result()
            index = shot.index
            await socket.send_bytes(await service.work.do(partial(_shown, live, shot), is_patient=True))
            await talk.until_shown(index, service.settings.idle_seconds)

    await _held(socket, service, converse, settle)


def _shown(live: Live, shot: Shot, _: Wanted) -> bytes:
    return live.message(shot)


def _seen(service: Service, data: bytes, asked: dict[str, Any], more: dict[str, Any]) -> Callable[[Wanted], bytes]:
    """The job of a client's frame."""

    def job(wanted: Wanted) -> bytes:
        parts = asked.pop("parts")
        runtime = service.runtime
        frame = picture_of(data, runtime.options.max_pixels)
        wanted.check()
        result = runtime.segment(frame, semantic="semantic" in parts and runtime.detail is not None, **asked)
        service.metrics.frame(result, {"queue": wanted.waited})
        wanted.check()
        return message_of(result, more, parts)

    return job


async def _held(
    socket: WebSocket,
    service: Service,
    converse: Callable[[Talk], Any],
    settle: Callable[[dict[str, Any]], None],
) -> None:
    """Hold a conversation until the client is gone, is idle, sends what is none, or the service ends."""
    with service.room.seat():
        await socket.accept(_protocol(socket))
        talk = Talk(socket, service, settle)
        listening = asyncio.ensure_future(talk.listen())
        talking, ending = asyncio.ensure_future(converse(talk)), asyncio.ensure_future(service.closing.wait())
        try:
            await asyncio.wait((talking, ending), return_when=asyncio.FIRST_COMPLETED)
            code, text = GOODBYE, "the service ends"
            if talking.done():
                code, text = _reason(talking.exception(), service.settings.idle_seconds)
            if code:
                with suppress(RuntimeError, WebSocketDisconnect):  # gone in between
                    await socket.send_json({"goodbye" if code == GOODBYE else "error": text})
                    await socket.close(code, text[:100])
        finally:
            for task in (listening, talking, ending):
                task.cancel()
            await asyncio.gather(listening, talking, ending, return_exceptions=True)


def _reason(error: BaseException | None, seconds: float) -> tuple[int, str]:
    """Code and text with which a conversation ends that is over; code 0: nobody is there any more."""
    if isinstance(error, asyncio.TimeoutError):
        return IDLE, f"nothing came for {seconds:g} seconds"
    if isinstance(error, RefusalError):
        return BAD, one_line(error)
    if isinstance(error, WebSocketDisconnect) or error is None:
        return 0, ""
    if isinstance(error, GoneError):
        return 0, ""
    raise error


def _protocol(socket: WebSocket) -> str | None:
    """The sub-protocol that is answered, where the client offers it."""
    return PROTOCOL if PROTOCOL in socket.scope.get("subprotocols", ()) else None
