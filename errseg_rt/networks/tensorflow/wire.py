"""Numbers of variable length, and the fields of a message, as protocol buffers write them."""

from __future__ import annotations

from collections.abc import Iterator

_SIZES = {1: 8, 5: 4}
"""Bytes of a field, by the wire types that have a fixed size."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number, seven bits a byte from the lowest on, and where the next thing begins.

    Raises:
        ValueError: It does not end within 64 bits or within the data.
    """
    value = 0
    for index, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("a number does not end")


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: an integer, unsigned, or the bytes of what is longer.

    Raises:
        ValueError: It is no message, or cut off.
    """
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = varint(message, at)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise ValueError(f"a field of the unknown wire type {kind}")
        content = message[at : at + size]
        if len(content) != size:
            raise ValueError("a field is cut off")
        at += size
        yield key >> 3, content if kind == 2 else int.from_bytes(content, "little")
