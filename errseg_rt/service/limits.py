"""How much is taken in: bytes while they are read, pixels before they are decoded, clients at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from errseg_rt.frames.formats import format_of
from errseg_rt.frames.reading import Pixels, Reading, frame_of
from errseg_rt.service.refusal import BusyError, GoneError, RefusalError

if TYPE_CHECKING:
    from starlette.requests import Request

FORMATS = ("JPEG", "PNG", "WebP", "TIFF", "BMP")
"""What is taken over a network: of these, time and memory are bounded by the pixels."""
_SCAN, _MOST_SCANS = b"\xff\xda", 100  # of a progressive JPEG, each of which goes over all pixels; ten are usual
_ASPECT, _LONG = 64, 4096  # times its short side that a long side may have; pixels that it may have in any case
_BODIES = 8  # times the largest body that all of them may take together


class Room:
    """Clients at a time, and the bytes of the bodies that they are sending.

    Args:
        max_clients: Most clients.
        max_bytes: Largest body.

    Attributes:
        clients: How many there are.
        bytes: How many of bodies that are not yet whole.
    """

    def __init__(self, max_clients: int, max_bytes: int) -> None:
        self.clients, self.bytes = 0, 0
        self._max_clients, self.max_bytes = max_clients, max_bytes

    @contextmanager
    def seat(self) -> Iterator[None]:
        """A seat for one client; BusyError where all are taken."""
        if self.clients >= self._max_clients:
            raise BusyError(f"{self.clients} clients are being served, and no more at a time; try again")
        self.clients += 1
        try:
            yield
        finally:
            self.clients -= 1

    async def body_of(self, request: Request, seconds: float) -> bytes:
        """The body of a request.

        Raises:
            RefusalError: It is too large (413) or too slow (408), or there is no room now (503).
            GoneError: The client is gone.
        """
        try:
            length = int(request.headers.get("content-length", 0))
        except ValueError:
            raise RefusalError(400, "Content-Length is no number") from None
        self._check(length)
        parts: list[bytes] = []
        size = 0
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            while True:
                try:
                    message = await asyncio.wait_for(request.receive(), max(0.0, until - loop.time()))
                except asyncio.TimeoutError:
                    raise RefusalError(408, f"the body was not there within {seconds:g} seconds") from None
                if message["type"] == "http.disconnect":
                    raise GoneError
                part = message.get("body", b"")
                size += len(part)
                self.bytes += len(part)
                self._check(size)
                if self.bytes > _BODIES * self.max_bytes:
                    raise BusyError("too much is being sent at the moment; try again")
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
        finally:
            self.bytes -= size

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            raise RefusalError(
                413, f"the body is over the limit of {self.max_bytes} bytes; send less, or have --max-bytes raised"
            )


def picture_of(data: bytes, max_pixels: int) -> Pixels:
    """The frame that an image file's content holds, BGR `uint8 [H, W, 3]`, upright.

    Raises:
        RefusalError: It is of a kind that is not taken over a network, or too narrow.
        FrameError: It is damaged, or larger than `max_pixels`, which its header tells.
    """
    kind = format_of(data)
    if data and (kind is None or kind.name not in FORMATS):
        what = f"is {kind.name}" if kind else "is no image of a kind that is known"
        raise RefusalError(415, f"the body {what}; send {', '.join(FORMATS)}")
    if kind is not None and kind.name == "JPEG" and data.count(_SCAN) > _MOST_SCANS:
        raise RefusalError(400, f"the image goes over its pixels more than {_MOST_SCANS} times; save it again")
    frame = frame_of(data, Reading(max_pixels))
    check_aspect(*frame.shape[:2])
    return frame


def check_aspect(height: int, width: int) -> None:
    """Raise RefusalError for a sliver: padded for the network, it would cost many times what its pixels do."""
    if max(height, width) > max(_LONG, _ASPECT * min(height, width)):
        raise RefusalError(400, f"a frame of {height}x{width} pixels is too narrow; cut it into parts")
