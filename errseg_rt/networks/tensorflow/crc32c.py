"""CRC-32C (RFC 3720, appendix B.4), masked as LevelDB and TensorFlow store it beside the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_MASK = 0xA282EAD8


def _table() -> npt.NDArray[np.uint32]:
    rows = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        rows = np.where(rows & 1, rows >> 1 ^ np.uint32(_POLYNOMIAL), rows >> 1).astype(np.uint32)
    return rows


def _update(crc: Any, data: Any, table: Any) -> Any:
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> np.uint32(8))
    return crc


_TABLE = _table()
_UPDATE: Any = njit(_update)


def masked_crc32c(data: bytes | memoryview) -> int:
    """The masked checksum of some bytes."""
    content = np.frombuffer(data, np.uint8)
    crc = int(_UPDATE(np.uint32(0xFFFFFFFF), content, _TABLE)) ^ 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
