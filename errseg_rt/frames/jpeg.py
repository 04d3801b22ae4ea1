"""JPEG files: strict decoding, and the one kind of damage that Huffman codes hide."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_SEQUENTIAL, _TABLES, _SCAN, _END = (0xC0, 0xC1), 0xC4, 0xDA, b"\xff\xd9"  # markers of frames, Huffman tables, scans
_AC = 0x10  # bit in the number of a table: of AC coefficients
_END_OF_BLOCK = 0
_ZEROS = bytes(32)


def decode_jpeg(data: bytes, lenient: bool) -> npt.NDArray[np.uint8]:
    """Pixels, BGR `uint8 [H, W, 3]`.

    Raises:
        ValueError: libjpeg warns of something, or there are zeros where there was data, unless `lenient`; or nothing
            can be decoded.
    """
    import simplejpeg

    if not lenient and is_zeroed(data):
        raise ValueError("a part of it is zero")
    return np.asarray(simplejpeg.decode_jpeg(data, "BGR", strict=not lenient), np.uint8)


def is_zeroed(data: bytes) -> bool:
    """Whether a sequential JPEG holds zeros that no picture is coded as.

    Zeros are codes, too, by which a decoder gets through a lost sector, and often back into step. But almost every
    block of a picture ends in a code for that, so that where this has a one in it, runs of zeros are short. Where it
    has none, as optimised tables may have it, flat pictures are long runs of zeros, and this tells nothing.
    """
    components = 0
    codes: dict[int, int] = {}
    for marker, body, end in _segments(data):
        if marker in _SEQUENTIAL:
            components = body[5]
        elif marker == _TABLES:
            codes.update(_codes_of_zeros(body))
        elif marker == _SCAN:
            # The first component's blocks stand in every part of a scan of all components.
            if body[0] != components or codes.get(body[2] & 0xF, _END_OF_BLOCK) == _END_OF_BLOCK:
                return False
            last = data.find(_END, end)
            return data.find(_ZEROS, end, last if last >= 0 else len(data)) >= 0
    return False


def _codes_of_zeros(body: bytes) -> Iterator[tuple[int, int]]:
    """Number of each table of AC coefficients, and what the code without a one means in it."""
    at = 0
    while at + 17 < len(body):
        if body[at] & _AC:
            yield body[at] & 0xF, body[at + 17]  # codes are given out in order, from zeros on
        at += 17 + sum(body[at + 1 : at + 17])


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, content and end of each segment ahead of the first scan's data."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # fill
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at + 4 : end], end
        if data[at + 1] == _SCAN:
            return
        at = end
