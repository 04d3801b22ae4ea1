"""A batch of files: one that fails ends nothing but itself, and a summary of the others is kept all along."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2

from errseg_rt.errors import ErrsegError
from errseg_rt.system.atomic import write_json
from errseg_rt.system.json_text import parse_json
from errseg_rt.system.lines import escaped, one_line
from errseg_rt.system.signals import ending_by_exception

Entry = dict[str, Any]

_OF_ALL = {
    errno.ENOSPC,
    errno.EROFS,
    getattr(errno, "EDQUOT", errno.ENOSPC),
}  # of a disk that no result can be written to
_EVERY = 5.0  # seconds between two summaries
_SHARE = 0.02  # of the time may go into writing them


class Batch:
    """What became of the files of a batch so far.

    Args:
        path: File of the summary.
        summarise: What the summary says beside the entries, given those of frames.
        is_listed: Whether the summary lists the entries of frames; else it is short, however many there are.

    Attributes:
        frames: An entry for each file that is done.
        failed: `input` and `error` of each that is not.
    """

    def __init__(
        self, path: Path, summarise: Callable[[list[Entry]], Mapping[str, Any]], *, is_listed: bool = True
    ) -> None:
        self.frames: list[Entry] = []
        self.failed: list[dict[str, str]] = []
        self._path, self._summarise, self._is_listed = path, summarise, is_listed
        self._next = 0.0

    def attempt(self, path: Path, work: Callable[[], Entry]) -> None:
        """Do the work of a file, whose failure is noted.

        Raises:
            OSError: The disk is full, or cannot be written to.
        """
        self.note(path, attempted(path, work))

    def note(self, path: Path, done: Entry | str) -> None:
        """Note the entry of a file, or what is wrong with it."""
        if isinstance(done, str):
            self.failed.append({"input": str(path), "error": done})
        else:
            self.frames.append(done)

    def summary(self) -> dict[str, Any]:
        """All that is known so far."""
        listed = {"frames": self.frames} if self._is_listed else {}
        return {**self._summarise(self.frames), **listed, "failed": self.failed}

    def keep(self) -> None:
        """Write the summary, where the last one is some seconds old."""
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Write the summary.

        Raises:
            OSError: It cannot be written.
        """
        before = time.monotonic()
        write_json(self._path, self.summary())
        after = time.monotonic()
        self._next = after + max(_EVERY, (after - before) / _SHARE)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Write the summary at the beginning and at the end of a block, however it ends, SIGTERM and SIGHUP included.

        Raises:
            OSError: It cannot be written.
        """
        self.write()
        with ending_by_exception():
            try:
                yield
            except BaseException:
                with suppress(OSError):  # the disk may be what the block ends by
                    self.write()
                raise
        self.write()


def attempted(path: Path, work: Callable[[], Entry]) -> Entry | str:
    """What the work of a file gives, or what is wrong with the file, in a line that names it.

    Raises:
        OSError: The disk is full, or cannot be written to.
    """
    try:
        return work()
    except (ErrsegError, OSError, MemoryError, cv2.error) as error:
        if isinstance(error, OSError) and error.errno in _OF_ALL:
            raise
        return _said(path, error)


def earlier(path: Path, settings: Mapping[str, Any]) -> dict[str, Entry]:
    """Entries of an earlier summary by their inputs; none where it is missing, damaged, or of other settings."""
    try:
        summary = parse_json(path.read_bytes())
        same = summary["settings"] == json.loads(json.dumps(settings))
        entries = [entry for entry in summary["frames"] if isinstance(entry, dict)] if same else []
        return {entry["input"]: entry for entry in entries if isinstance(entry.get("input"), str)}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def print_of(path: Path) -> list[int]:
    """What tells a file from its former content: size in bytes, and time of the last change in nanoseconds.

    Raises:
        OSError: It cannot be looked at.
    """
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _said(path: Path, error: BaseException) -> str:
    """The error in a line that names the file."""
    if isinstance(error, MemoryError):
        text = "not enough memory; shrink it, or give --work-pixels"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename not in (None, str(path)) else "")
    else:
        text = str(getattr(error, "err", "") or error)
    fault = text.removeprefix(f"{path}: ")
    return f"{escaped(path)}: {one_line(fault)}"
