"""What the command line says of a fault: one line, where the user can mend it."""

from __future__ import annotations

import linecache
import re
import sys
import traceback
from contextlib import suppress

from errseg_rt.errors import ErrsegError
from errseg_rt.system.lines import one_line
from errseg_rt.system.shortage import FREE_MEMORY

_PACKAGES = {"cv2": "opencv-python-headless", "sklearn": "scikit-learn"}
"""Packages that are not called as their modules."""
_IMPORT = re.compile(r"\s*(?:from|import)\s+(\w+)")


def say(kind: str, text: object) -> None:
    """Print a line on stderr, where it is open: an `error`, a `warning` or a `note`."""
    if sys.stderr is not None:  # else it would go to stdout
        with suppress(OSError, ValueError):  # a disk that is full, a pipe or a stream that is closed
            print(f"{kind}: {one_line(text)}", file=sys.stderr)


def said(error: BaseException) -> str | None:
    """An error in one line; None: it is a fault of this program, which wants a traceback."""
    text = one_line(error)
    if isinstance(error, ErrsegError):
        return text
    module = _wanted(error)
    if module is not None:
        package = _PACKAGES.get(module, module)
        return (
            f"{module} cannot be loaded ({text or type(error).__name__}): pip install --force-reinstall {package}; "
            "errseg-rt doctor says what works without it"
        )
    if isinstance(error, MemoryError):
        return f"out of memory ({text}); {FREE_MEMORY}" if text else f"out of memory; {FREE_MEMORY}"
    return text if isinstance(error, OSError) else None


def _wanted(error: BaseException) -> str | None:
    """The dependency whose import failed, with whatever error: that of the last of our lines, where it is an import."""
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] == "errseg_rt":
            found = _IMPORT.match(linecache.getline(frame.f_code.co_filename, line))
    return found[1] if found and found[1] != "errseg_rt" else None
