"""Connections that do nothing are closed: heads that never end, and answers that nobody reads.

One that was made just before the end may still say what it came for.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HEAD_SECONDS = 10.0
"""Within which the head of a request must be there, and the rest of a body whose request is answered already."""
STALL_SECONDS = 20.0
"""After which an answer of which nothing more is taken is given up."""
LAST_SECONDS = 1.0
"""In which a connection that has sent nothing yet when the service ends, may still send its request."""
MOST = 1000
"""Connections at a time, whether they do anything or not; one more is closed at once."""


class _Reading:
    """Gives up where nothing is taken of what is sent.

    A mixin of uvicorn's protocols.
    """

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    _stall: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()  # type: ignore[misc]
        self._look_again(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()  # type: ignore[misc]
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _look_again(self, left: int) -> None:
        self._stall = self.loop.call_later(STALL_SECONDS, self._look, left)

    def _look(self, before: int) -> None:
        self._stall = None
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self.transport.abort()
        else:
            self._look_again(left)


class HttpConnection(_Reading, H11Protocol):
    """A connection of HTTP; h11 bounds the size of heads, and this the time for them."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """As uvicorn's."""
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
        else:
            self._await_head()

    def data_received(self, data: bytes) -> None:
        """As uvicorn's."""
        super().data_received(data)
        is_waiting = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing() or self.transport.get_protocol() is not self or not is_waiting:
            self._forget_head()
        elif self._head is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        self._forget_head()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """As uvicorn's, which closes a new connection although its request may be on its way."""
        if self.cycle is None:
            self.loop.call_later(min(LAST_SECONDS, (self.config.timeout_graceful_shutdown or 0) / 2), self._close)
        else:
            self._close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _await_head(self) -> None:
        self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class StreamConnection(_Reading, WebSocketsSansIOProtocol):
    """A connection of a WebSocket."""

    async def send(self, message: Any) -> None:
        """As uvicorn's, which takes a refusal with a body for a fault of ours, and logs it as one."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True
