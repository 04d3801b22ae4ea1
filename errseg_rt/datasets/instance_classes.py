"""A file that says which instance is of which class: `classes.csv`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.datasets.instances import Meaning
from errseg_rt.datasets.label_map import class_named
from errseg_rt.datasets.pairing import plain_name
from errseg_rt.errors import DataError
from errseg_rt.system.fields import nearest

FILE = "classes.csv"
_COLUMNS = ("name", "id", "class")
_EXAMPLE = "lines as name,id,class, with an empty name or id for all"
_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")


class InstanceClasses:
    """Class of each instance of each frame.

    Args:
        meanings: By frame and id; "" means every frame, None every id, and what says more goes first.
        where: What says so, for messages.
    """

    def __init__(self, meanings: dict[tuple[str, int | None], Meaning], where: str) -> None:
        self._meanings, self._where = meanings, where

    def of(self, name: str, ids: Sequence[int], path: Path) -> dict[int, Meaning]:
        """What the ids of a frame's instance map mean, but for 0.

        Raises:
            DataError: An id has no class; names `path`, the map.
        """
        found = {}
        for instance in ids:
            keys = ((name, instance), (name, None), ("", instance), ("", None))
            meaning = next((self._meanings[key] for key in keys if key in self._meanings), None)
            if instance and meaning is None:
                raise DataError(f"{path}: instance id {instance} has no class; {self._where}")
            if instance and meaning is not None:
                found[instance] = meaning
        return found

    @classmethod
    def alike(cls, label: int) -> InstanceClasses:
        """All instances are of one class."""
        return cls({("", None): Meaning(label)}, "")

    @classmethod
    def from_file(cls, path: Path, classes: ClassSet) -> InstanceClasses:
        """From a CSV file with a heading: `name`, `id`, `class`, perhaps `crowd`.

        A name is that of a frame, as its image's without suffix. An empty name means every frame, an empty id every
        instance. `crowd` is 1 for a group whose members are not told apart.

        Raises:
            DataError: It cannot be read, lacks a column, or a line of it is none.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: no classes of instances that can be read ({error}); wanted {_EXAMPLE}") from error
        meanings: dict[tuple[str, int | None], Meaning] = {}
        for number, row in enumerate(rows, 2):
            cells = {key: (row.get(key) or "").strip() for key in (*_COLUMNS, "crowd")}
            missing = [column for column in _COLUMNS if column not in row]
            if missing:
                raise DataError(f"{path}: no column {missing[0]!r}; wanted {_EXAMPLE}")
            label = class_named(cells["class"], classes)
            if label is None:
                raise DataError(
                    f"{path}: line {number}: {cells['class']!r} is no class; {nearest(cells['class'], classes.names)}"
                )
            if cells["id"] and not (cells["id"].isascii() and cells["id"].isdigit() and len(cells["id"]) < 9):
                raise DataError(f"{path}: line {number}: {cells['id']!r} is no instance id; wanted {_EXAMPLE}")
            if cells["crowd"].lower() not in (*_YES, *_NO):
                raise DataError(f"{path}: line {number}: crowd is 0 or 1, got {cells['crowd']!r}")
            key = (plain_name(cells["name"]), int(cells["id"]) if cells["id"] else None)
            meanings[key] = Meaning(label, cells["crowd"].lower() in _YES)
        if not meanings:
            raise DataError(f"{path}: names no instance; wanted {_EXAMPLE}")
        return cls(meanings, f"{path.name} names none for it")
