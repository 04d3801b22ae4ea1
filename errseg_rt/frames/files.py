"""Which files lie in a folder."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_OTHERS = ("__MACOSX", "@eaDir")  # what macOS and Synology put beside files; dot files are passed over by their dot
_OTHER_FILE = re.compile(r".+\.[A-Za-z][A-Za-z0-9]{0,5}")  # a link of this name that is broken led to a file
_NOWHERE = "a link that leads nowhere"
_Place = tuple[int, int]  # device and number of a folder


@dataclass
class Tree:
    """What was found in a folder.

    Attributes:
        files: All files that are not hidden, sorted; a file that has several names is there by each.
        broken: Links that lead nowhere and folders that cannot be listed, with the reason.
    """

    files: list[Path] = field(default_factory=list)
    broken: dict[Path, str] = field(default_factory=dict)


def find_files(root: Path, ends: Sequence[str]) -> tuple[list[Path], dict[Path, str]]:
    """The files of a folder whose names end as wanted, searched through and through, links to folders too.

    Names that begin with a dot, `__MACOSX` and `@eaDir` are passed over.

    Args:
        root: The folder.
        ends: How the names end, in any case.

    Returns:
        The files, sorted, each by its path below `root` and with `root` before it; and, with the reason, what may hide
        more of them: links that lead nowhere, and folders that cannot be listed.
    """
    tree = walk(root)
    wanted = tuple(end.lower() for end in ends)
    files = [path for path in tree.files if path.name.lower().endswith(wanted)]
    broken = {path: why for path, why in tree.broken.items() if may_be(path, wanted)}
    return files, broken


def may_be(path: Path, ends: tuple[str, ...]) -> bool:
    """Whether a link that leads nowhere may have led to a file of these ends, or to a folder."""
    return path.name.lower().endswith(ends) or not _OTHER_FILE.fullmatch(path.name)


def walk(root: Path, enter: Callable[[Path, list[str]], Sequence[str]] | None = None) -> Tree:
    """All of a folder, but for hidden names.

    Args:
        root: The folder.
        enter: Given a folder and the names of the folders in it, says which of them are searched; None: all.
    """
    tree = Tree()
    pending: list[tuple[Path, frozenset[_Place]]] = [(root, frozenset())]
    while pending:
        folder, above = pending.pop()
        try:
            status = folder.stat()
            with os.scandir(folder) as listed:
                entries = [each for each in listed if not each.name.startswith(".") and each.name not in _OTHERS]
        except OSError as error:
            tree.broken[folder] = f"cannot be listed ({error.strerror})"
            continue
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link back to where we came from
            continue
        folders = [entry.name for entry in entries if _add(folder / entry.name, entry, tree)]
        pending += [(folder / name, above | {here}) for name in (enter(folder, folders) if enter else folders)]
    tree.files.sort()
    return tree


def _add(path: Path, entry: os.DirEntry[str], tree: Tree) -> bool:
    """Put a file into the tree; whether it is a folder instead."""
    try:
        if entry.is_dir():
            return True
        if entry.is_file():
            tree.files.append(path)
        elif entry.is_symlink():
            tree.broken[path] = _NOWHERE
    except OSError as error:
        tree.broken[path] = _NOWHERE if error.errno == errno.ELOOP else f"cannot be looked at ({error.strerror})"
    return False
