"""Where results go: looked at before the work is done, and written so that one fault does not lose the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from errseg_rt.errors import DataError, ErrsegError


def check_apart(*paths: Path | None) -> None:
    """Raises DataError where two of some files to write are one."""
    given = [path for path in paths if path is not None]
    if len({path.resolve() for path in given}) < len(given):
        raise DataError(f"{given[0]}: is to be written twice; give each output a file of its own")


def check_file(path: Path | None) -> None:
    """Raises DataError where no file can be written at this path; folders above it may be missing."""
    if path is None:
        return
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is {'a folder' if path.is_dir() else 'no plain file'}, wanted a file to write")
    _check_nearest(path, path.absolute().parents)


def check_folder(path: Path | None) -> None:
    """Raises DataError where no folder can be made at this path, or nothing written into it."""
    if path is not None:
        _check_nearest(path, [path.absolute(), *path.absolute().parents])


def _check_nearest(path: Path, folders: Sequence[Path]) -> None:
    """The first of some paths that is there, each in the next, must be a folder, and writable."""
    broken = next((folder for folder in folders if folder.is_symlink() and not folder.exists()), None)
    if broken is not None:
        raise DataError(f"{path}: cannot be written, as {broken} is a link that leads nowhere; mend or remove it")
    nearest = next(folder for folder in folders if folder.exists())
    if not nearest.is_dir():
        raise DataError(f"{path}: cannot be written, as {nearest} exists and is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise DataError(f"{path}: cannot be written, as {nearest} is not writable for this user")


class Outputs:
    """Files of results, each written for itself.

    Attributes:
        faults: What could not be written, a line each.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []

    @contextmanager
    def writing(self, path: Path | None) -> Iterator[None]:
        """Write one of them in this block; a fault in it is kept for the end."""
        try:
            yield
        except OSError as error:
            self.faults.append(f"{path}: cannot be written ({error.strerror or error})")
        except ErrsegError as error:
            self.faults.append(str(error))
