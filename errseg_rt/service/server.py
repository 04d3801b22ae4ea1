"""From its start to its end: a signal turns the service unready, what runs is finished, streams are told goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from errseg_rt.errors import DataError
from errseg_rt.service.app import create_app
from errseg_rt.service.connection import HttpConnection, StreamConnection
from errseg_rt.service.state import Service

_DRAIN = 3.0  # seconds, or a quarter of the grace, in which new requests are still served and /readyz says not to come
_LAST = 0.1  # seconds in which connections that the kernel holds are taken before the port is closed, which resets them
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))


class Server(uvicorn.Server):
    """Serves until a signal comes; then it ends within its grace, and a second signal ends it at once.

    Args:
        service: What is served.
        told: Is called once it listens.
        tls: Files of a certificate and of its key; None: no TLS.

    Attributes:
        signal: The signal that it ended by; None: none so far.

    Raises:
        DataError: The certificate cannot be used.
    """

    def __init__(
        self,
        service: Service,
        told: Callable[[], None] = lambda: None,
        *,
        tls: tuple[str, str] | None = None,
    ) -> None:
        grace = service.settings.grace
        self._told = told
        self._service, self._drain = service, min(_DRAIN, grace / 4)
        config = uvicorn.Config(
            create_app(service),
            http=HttpConnection,
            ws=StreamConnection,
            ws_max_size=service.settings.max_message,
            ws_per_message_deflate=False,  # it would unpack what is small on the wire
            ssl_certfile=tls[0] if tls else None,
            ssl_keyfile=tls[1] if tls else None,
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, int(grace - self._drain)),
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise DataError(f"{tls and tls[0]}: certificate and key cannot be used ({error})") from error
        super().__init__(config)
        self.signal: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def end(self, number: int) -> None:
        """End as the first or second signal does; may be called from any thread."""
        if self.signal is not None:
            self.force_exit = self.should_exit = True
            return
        self.signal = number
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._begin_to_end)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._told()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but that no connection is reset that a client takes for made."""
        for listening in sockets or []:
            _take_no_more(listening)
        await asyncio.sleep(_LAST)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but that a signal that was heeded does not end the process once more."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def heed(number: int, _: FrameType | None) -> None:
            self.end(number)

        before = {number: signal.signal(number, heed) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _begin_to_end(self) -> None:
        self._service.closing.set()
        assert self._loop is not None
        self._loop.call_later(self._drain, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything costly is done.

    Raises:
        DataError: The port is in use, or the address is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        if os.name == "posix":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{host}:{port}: cannot be listened at ({reason}); give another --port or --host") from error
    return found


def _take_no_more(listening: socket.socket) -> None:
    """Let the kernel make no new connections, while those that it holds can still be taken; Linux alone can."""
    if sys.platform != "linux":
        return
    attach_filter = 26  # SO_ATTACH_FILTER, which Python does not name
    refuse_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # one instruction of BPF: keep 0 bytes
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        listening.setsockopt(socket.SOL_SOCKET, attach_filter, struct.pack("HP", 1, ctypes.addressof(refuse_all)))
