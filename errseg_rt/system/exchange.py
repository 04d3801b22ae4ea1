"""Two folders that change places at once."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_HERE = -100  # AT_FDCWD: paths are taken from the working directory
_EXCHANGE = 2  # Linux's RENAME_EXCHANGE, and macOS's RENAME_SWAP


def exchange(one: Path, other: Path) -> bool:
    """Have two files or folders of one file system change places, in a single step that nothing interrupts.

    Returns:
        Whether it was done: False where the system or the file system has no such step, and nothing was changed.
    """
    paths = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None)
        if hasattr(libc, "renameat2"):
            return bool(libc.renameat2(_HERE, paths[0], _HERE, paths[1], _EXCHANGE) == 0)
        return bool(libc.renamex_np(*paths, _EXCHANGE) == 0)
    except (OSError, AttributeError, TypeError):  # Windows has no library of this name, older systems not the call
        return False
