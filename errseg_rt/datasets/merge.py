"""Coarse classes of data, each of which merges some classes of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.datasets.label_map import class_named
from errseg_rt.errors import DataError
from errseg_rt.system.fields import nearest
from errseg_rt.system.toml_text import read_toml

Table = Mapping[str, Sequence[str]]
"""Coarse classes in the order of their label ids, and the names of the network's classes that each merges."""

MERGES: Mapping[str, Table] = MappingProxyType(
    {
        "camvid": {
            "sky": ("sky",),
            "building": ("building", "wall"),
            "pole": ("pole",),
            "road": ("road",),
            "pavement": ("sidewalk",),
            "tree": ("vegetation", "terrain"),
            "sign": ("traffic light", "traffic sign"),
            "fence": ("fence",),
            "car": ("car", "truck", "bus", "train"),
            "pedestrian": ("person",),
            "bicyclist": ("rider", "motorcycle", "bicycle"),
        }
    }
)
"""Merges by name: `camvid`, its 11 classes by those of Cityscapes."""
_EXAMPLE = 'a table as road = ["road"], car = ["car", "truck", "bus"]'


@dataclass(frozen=True)
class Merge:
    """Disjoint sets of a network's classes, which data tell apart: an error is a label outside the true set.

    Args:
        fine: The network's classes.
        coarse: The data's classes, a class for each set.
        sets: The network's classes in each set, by id. Classes in none are errors wherever they are labels.

    A *truth id* says what is true of a pixel in data of either kind: below `len(fine)` it is the network's class of
    that id, from there on, `len(fine) + j` is the set `j`.
    """

    fine: ClassSet
    coarse: ClassSet
    sets: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, table: Table, fine: ClassSet, where: str = "merge") -> Merge:
        """From names; those of the network's classes are taken as label maps take them, whatever their case.

        Args:
            table: The coarse classes, in the order of their label ids.
            fine: The network's classes.
            where: What the table is, for messages.

        Raises:
            DataError: It is no such table, a name is no class of the network, or stands in two sets.
        """
        if not isinstance(table, Mapping) or len(table) < 2:
            raise DataError(f"{where}: wanted {_EXAMPLE}, of two coarse classes or more, got {table!r:.60}")
        taken: dict[int, str] = {}
        sets = []
        for coarse, names in table.items():
            names = [names] if isinstance(names, str) else names
            if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
                raise DataError(
                    f"{where}: {coarse}: wanted a list of at least one class of the network, got {names!r:.60}"
                )
            found = [class_named(name, fine) for name in names]
            for name, index in zip(names, found, strict=True):
                if index is None:
                    raise DataError(
                        f"{where}: {coarse}: the network has no class {name!r}; {nearest(name, fine.names)}"
                    )
                if index in taken:
                    raise DataError(
                        f"{where}: {name!r} stands in {taken[index]} and in {coarse}; leave it in one of them"
                    )
                taken[index] = coarse
            sets.append(tuple(index for index in found if index is not None))
        if len(fine) + len(sets) > IGNORE:
            raise DataError(
                f"{where}: {len(sets)} coarse classes beside {len(fine)} are too many; together, {IGNORE} at most"
            )
        colors = tuple(fine.colors[ids[0]] for ids in sets)
        return cls(fine, ClassSet(tuple(table), colors), tuple(sets))

    @classmethod
    def open(cls, text: str, fine: ClassSet) -> Merge:
        """By name, a key of `MERGES`, or from a TOML file, as `read_merge` says.

        Raises:
            DataError: It is neither, or does not fit the network's classes.
        """
        return cls.of(read_merge(text), fine, text)

    @cached_property
    def to_coarse(self) -> npt.NDArray[np.uint8]:
        """Coarse class of every label of the network and of every truth id, `uint8 [256]`; `IGNORE` for all others."""
        table = np.full(256, IGNORE, np.uint8)
        for coarse, ids in enumerate(self.sets):
            table[[*ids, len(self.fine) + coarse]] = coarse
        return table

    @cached_property
    def to_truth(self) -> npt.NDArray[np.uint8]:
        """Truth id of every coarse class, `uint8 [256]`; `IGNORE` for all others."""
        table = np.full(256, IGNORE, np.uint8)
        for coarse, ids in enumerate(self.sets):
            table[coarse] = ids[0] if len(ids) == 1 else len(self.fine) + coarse
        return table

    @cached_property
    def members(self) -> npt.NDArray[np.bool_]:
        """Which of the network's classes are right where a truth id is true, `bool [truth ids, classes]`."""
        coarse = np.zeros((len(self.sets), len(self.fine)), np.bool_)
        for row, ids in zip(coarse, self.sets, strict=True):
            row[list(ids)] = True
        return np.concatenate([np.eye(len(self.fine), dtype=np.bool_), coarse])


def read_merge(text: str) -> Table:
    """The table that a name, a key of `MERGES`, or a TOML file holds: `car = ["car", "truck"]`, a line a coarse class.

    Raises:
        DataError: There is no such file, or it is no TOML.
    """
    if text in MERGES:
        return MERGES[text]
    try:
        table: dict[str, Any] = read_toml(Path(text).expanduser())
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{text}: no merge that can be read ({reason}); wanted a TOML file, {_EXAMPLE}, or {', '.join(MERGES)}"
        ) from error
    except ValueError as error:
        raise DataError(f"{text}: no merge, TOML with {_EXAMPLE} ({error})") from error
    return table
