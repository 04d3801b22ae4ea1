"""Sorted tables of keys and values as LevelDB writes them (its doc/table_format.md)."""

from __future__ import annotations

from collections.abc import Iterator

from errseg_rt.networks.tensorflow.crc32c import masked_crc32c
from errseg_rt.networks.tensorflow.wire import varint

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
"""The last bytes of a table."""
_FOOTER = 48
_TRAILER = 5  # compression and checksum, behind a block


def read_table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table, in order.

    Raises:
        ValueError: It is no table, compressed, or damaged.
    """
    footer = content[-_FOOTER:]
    if len(footer) < _FOOTER or not footer.endswith(MAGIC):
        raise ValueError("no table of keys, or cut off")
    _, at = _handle(footer, 0)  # of the metaindex, which nothing is kept in
    index, _ = _handle(footer, at)
    for _, place in _block(content, index):
        yield from _block(content, _handle(place, 0)[0])


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Where a block lies: its first byte and its size."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _block(content: bytes, place: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a block, whose keys are kept as what differs from the one before."""
    offset, size = place
    whole = content[offset : offset + size + _TRAILER]
    if len(whole) != size + _TRAILER or size < 4:
        raise ValueError("a block is cut off")
    if masked_crc32c(whole[:-4]) != int.from_bytes(whole[-4:], "little"):
        raise ValueError(f"the checksum of the block at byte {offset} is wrong")
    if whole[size]:
        raise ValueError("its blocks are compressed, which those of TensorFlow's checkpoints are not")
    block = whole[:size]
    end = size - 4 * (1 + int.from_bytes(block[-4:], "little"))  # restarts, and their number
    if end < 0:
        raise ValueError(f"the block at byte {offset} is cut off")
    key, at = b"", 0
    while at < end:
        shared, at = varint(block, at)
        fresh, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or at + fresh + length > end:
            raise ValueError(f"an entry of the block at byte {offset} is cut off")
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + length]
        at += fresh + length
