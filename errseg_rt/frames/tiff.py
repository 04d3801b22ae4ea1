"""The pixels of a TIFF, whose library reports little and raises nothing."""

from __future__ import annotations

import zlib
from typing import Any

from errseg_rt.frames.jpeg import decode_jpeg
from errseg_rt.frames.libtiff import overheard

_DEFLATE, _JPEG, _PACKBITS = (8, 32946), 7, 32773  # compressions of TIFF
_BITS, _COMPRESSION, _SAMPLES, _TABLES = 258, 259, 277, 347  # tags of TIFF; tables: what its JPEG strips share
_PHOTOMETRIC, _YCBCR = 262, 6
_PLACES = ((273, 279), (324, 325))  # tags of TIFF: where strips or tiles lie, and their lengths


def load_tiff(image: Any, data: bytes, lenient: bool) -> None:
    """Have Pillow load the pixels of a TIFF.

    Args:
        image: Its header, as Pillow reads it.
        data: The file.
        lenient: Take what can be decoded.

    Raises:
        ValueError, OSError, zlib.error: It is damaged.
    """
    if not lenient:
        _check_strips(image, data)
    fault: OSError | None = None
    with overheard() as said:
        try:
            image.load()
        except OSError as error:
            fault = error
    if said and not lenient:
        raise ValueError(said[0])
    if fault:
        raise fault


def _check_strips(image: Any, data: bytes) -> None:
    """Raise unless a TIFF's strips and tiles are what they must be, as far as libtiff takes no look.

    That are checksums, sound JPEG, and runs that make as many bytes as there are.
    """
    tags = image.tag_v2
    width, height = image.size
    most = 4 * width * height + (1 << 20)  # a tile may reach beyond the picture
    unpacked = 0
    for offsets, lengths in _PLACES:
        for start, length in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False):
            part = data[start : start + length]
            if tags.get(_COMPRESSION) in _DEFLATE:
                stream = zlib.decompressobj()
                stream.decompress(part, most)
                if not stream.eof:
                    raise ValueError("a strip is cut")
            elif tags.get(_COMPRESSION) == _JPEG:
                decode_jpeg(tags.get(_TABLES, b"")[:-2] + part[2:] if _TABLES in tags else part, lenient=False)
            elif tags.get(_COMPRESSION) == _PACKBITS:
                unpacked += _unpacked(part)
    # Neither rows nor tiles are padded, and no colours shared between pixels.
    is_bytes = set(tags.get(_BITS, ())) == {8} and _PLACES[0][0] in tags and tags.get(_PHOTOMETRIC) != _YCBCR
    if is_bytes and unpacked not in (0, width * height * tags.get(_SAMPLES, 1)):
        raise ValueError("its runs make another number of pixels")


def _unpacked(part: bytes) -> int:
    """Number of bytes that PackBits runs stand for."""
    at = size = 0
    while at < len(part):
        head = part[at]
        size += head + 1 if head < 128 else 257 - head if head > 128 else 0
        at += head + 2 if head < 128 else 2 if head > 128 else 1
    return size
