"""What the command line says of a fault: one line, where the user can mend it."""

from __future__ import annotations

import linecache
import re
import sys
import traceback
from contextlib import suppress

from errseg_rt.errors import ErrsegError
from errseg_rt.system.lines import one_line
from errseg_rt.system.shortage import FREE_MEMORY, remedy

_PACKAGES = {
    "PIL": "pillow",
    "_cffi_backend": "cffi",
    "cuda": "cuda-bindings",
    "cv2": "opencv-python-headless",
    "google": "protobuf",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
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
    if isinstance(error, MemoryError):
        return f"out of memory ({text}); {FREE_MEMORY}" if text else f"out of memory; {FREE_MEMORY}"
    module = _wanted(error)
    if module is not None and (advice := remedy(error)):
        return f"{module} cannot be loaded ({text}): {advice}"
    if module is not None:
        package = _PACKAGES.get(module, module)
        return (
            f"{module} cannot be loaded ({text or type(error).__name__}): pip install --force-reinstall {package}; "
            "errseg-rt doctor says what works without it"
        )
    return text if isinstance(error, OSError) else None


def _wanted(error: BaseException) -> str | None:
    """The dependency that cannot be loaded, by whatever error; None: it is no import that failed.

    A dependency may fail for want of another, which is the one to mend: the one that is not found, or else the one
    whose code was last on the way from the last of our lines, where that is an import.
    """
    if isinstance(error, ModuleNotFoundError) and error.name and _top(error.name) != "errseg_rt":
        return _top(error.name)
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        top = _top(str(frame.f_globals.get("__name__")))
        if top == "errseg_rt":
            statement = _IMPORT.match(linecache.getline(frame.f_code.co_filename, line))
            found = statement[1] if statement and statement[1] != "errseg_rt" else None
        elif found and top not in sys.stdlib_module_names | {"__main__"}:
            found = top
    return found


def _top(module: str) -> str:
    return module.partition(".")[0]
