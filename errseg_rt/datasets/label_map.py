"""What the label ids of a file mean: a class, or none."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import ADE20K, CITYSCAPES, IGNORE, ClassSet
from errseg_rt.datasets.label_names import Color, read_names
from errseg_rt.errors import DataError

_LABEL_IDS = 34  # label ids of Cityscapes are 0..33; what they call -1 is never drawn
# The label ids that count, in the order of the training ids 0..18.
_COUNTED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NAMED_MAPS = ("labelIds", "ade20k", "trainIds", "palette")
"""Names that `LabelMap.open` takes, where a file's path may stand."""
_NO_CLASS = ("void", "ignore", "background", "unlabeled", "unlabelled")
_MOST_NAMED = 10  # ids that a message lists


class LabelMap:
    """Class of every label id that may occur in a label file.

    Args:
        ids: Class of each id; `IGNORE` for ids that mean "no class".
        known: What these ids are, for the message about any other.
        colors: RGB colour of each id, where label files may show it in its stead.
        first_id: Id of the first class, where the ids are the classes, in their order.

    Attributes:
        ids: As given.
        known: As given.
        colors: As given, else empty.
        first_id: As given.
    """

    def __init__(
        self,
        ids: Mapping[int, int],
        known: str,
        colors: Mapping[int, Color] | None = None,
        first_id: int | None = None,
    ) -> None:
        self.ids, self.known, self.colors, self.first_id = dict(ids), known, dict(colors or {}), first_id
        self._highest = max((label for label in ids if label != IGNORE), default=0)
        self._is_strange = np.ones(256, np.uint8)
        self._is_strange[list(ids)] = 0
        self._to_class = np.full(256, IGNORE, np.uint8)
        self._to_class[list(ids)] = list(ids.values())

    @classmethod
    def of(cls, classes: int, void: Sequence[int] | None = None, first_id: int = 0) -> LabelMap:
        """The ids are the classes, in their order.

        Args:
            classes: Number of classes.
            void: Ids, beside 255, that mean "no class"; None: the one after the last class, as CamVid has it, and those
                before the first.
            first_id: Id of the first class.

        Raises:
            DataError: There is no room for the classes, or a void id is a class or no id.
        """
        after = first_id + classes
        if not 0 <= first_id <= after <= IGNORE:
            raise DataError(f"{classes} classes have ids from 0..{IGNORE - classes} on, got a first id of {first_id}")
        void = [*range(first_id), min(after, IGNORE)] if void is None else void
        wrong = [label for label in void if not (0 <= label < first_id or after <= label <= IGNORE)]
        if wrong:
            before = f"0..{first_id - 1} or " if first_id else ""
            raise DataError(f"void ids lie outside the {classes} classes, in {before}{after}..{IGNORE}, got {wrong}")
        ids = {**{first_id + index: index for index in range(classes)}, **dict.fromkeys([*void, IGNORE], IGNORE)}
        return cls(ids, f"classes are {first_id}..{after - 1}, void {sorted({*void, IGNORE})}", first_id=first_id)

    @classmethod
    def cityscapes(cls) -> LabelMap:
        """Label ids of Cityscapes to the 19 classes that count; all others mean "no class"."""
        ids = {**dict.fromkeys(range(_LABEL_IDS), IGNORE), **{label: index for index, label in enumerate(_COUNTED)}}
        return cls(ids, f"label ids of Cityscapes are 0..{_LABEL_IDS - 1}")

    @classmethod
    def ade20k(cls) -> LabelMap:
        """Labels 1..150 of the scene parsing benchmark on ADE20K to its classes; 0 is "other"."""
        ids = {0: IGNORE, **{index + 1: index for index in range(len(ADE20K))}}
        return cls(ids, f"label ids of ADE20K are 1..{len(ADE20K)}, and 0 for other")

    @classmethod
    def open(cls, text: str, classes: ClassSet, void: Sequence[str] = ()) -> LabelMap:
        """A map by name, else from a file; see `from_file`, whose arguments these are.

        `labelIds` are Cityscapes' label ids, `ade20k` those of its benchmark, `trainIds` the classes themselves, and
        `palette` these with the classes' colours.

        Raises:
            DataError: The map is one of other classes, or the file is none.
        """
        official = {"labelIds": (CITYSCAPES, cls.cityscapes), "ade20k": (ADE20K, cls.ade20k)}
        if text in official:
            own, make = official[text]
            if len(own) != len(classes):
                raise DataError(
                    f"the label map {text} has {len(own)} classes, but {len(classes)} are wanted ({classes.names[0]}, "
                    "...); write a map to these as a JSON file"
                )
            return make()
        if text in ("trainIds", "palette"):
            ids = cls.of(len(classes), ())
            return cls(ids.ids, ids.known, dict(enumerate(classes.colors)) if text == "palette" else None, 0)
        return cls.from_file(text, classes, void)

    @classmethod
    def from_file(cls, path: str | Path, classes: ClassSet, void: Sequence[str] = ()) -> LabelMap:
        """What each id means, by the names in a file of a kind that `read_names` knows; ids may share a name.

        `void`, `ignore`, `background` and `unlabeled` mean "no class", unless a class is called so; 255 does wherever
        the file does not name it.

        Args:
            path: The file.
            classes: The classes that the names are of.
            void: Further names that mean "no class".

        Raises:
            DataError: The file cannot be read, is of none of these kinds, an id is none, or a name is no class.
        """
        path = Path(path)
        names, colors = read_names(path)
        return cls.of_names(names, path, classes, void, colors)

    @classmethod
    def of_names(
        cls,
        names: Mapping[int, str],
        path: Path,
        classes: ClassSet,
        void: Sequence[str] = (),
        colors: Mapping[int, Color] | None = None,
    ) -> LabelMap:
        """What each id means, by the name that a file gives it; see `from_file`.

        Args:
            names: Name of each id.
            path: The file, for messages.
            classes: The classes that the names are of.
            void: Further names that mean "no class".
            colors: RGB colour of each id, where the file has them.

        Raises:
            DataError: A name is no class, or none is.
        """
        ids = {IGNORE: IGNORE, **{label: _class_of(path, name, classes, void) for label, name in names.items()}}
        if set(ids.values()) == {IGNORE}:
            raise DataError(f"{path}: the label map names no class, only void")
        return cls(ids, f"{path.name} knows {_listed(sorted(ids))}", colors)

    @property
    def classes(self) -> frozenset[int]:
        """The classes that some id means."""
        return frozenset(self.ids.values()) - {IGNORE}

    def apply(self, raw: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.uint8]:
        """Classes of label ids.

        Args:
            raw: Ids as they are in the file, `uint8 [H, W]`.
            path: The file, for the message.

        Returns:
            `uint8 [H, W]`, `IGNORE` where there is no class.

        Raises:
            DataError: An id is neither a class nor void.
        """
        if cv2.LUT(raw, self._is_strange).any():
            found = np.unique(raw).tolist()
            strange = [label for label in found if self._is_strange[label]]
            hint = self._hint(found, strange)
            raise DataError(
                f"{path}: label ids {_listed(strange)} are neither classes nor void; {self.known}"
                + (f"; {hint}" if hint else "")
            )
        return np.asarray(cv2.LUT(raw, self._to_class), np.uint8)

    def _hint(self, found: Sequence[int], strange: Sequence[int]) -> str | None:
        """How strange ids may have come about."""
        if strange == [IGNORE]:
            return "255 is void where ids are the classes, from 0 on: give --first-id 0 if they are"
        drawn = [label for label in found if 0 < label < IGNORE]
        step = math.gcd(*drawn)
        # One id alone is a multiple of itself, which says something only where there is one class beside class 0.
        if step > 1 and max(drawn) // step <= self._highest and len(drawn) > (len(self.classes) > 2):
            return f"all are multiples of {step}: divide them by it"
        if len(self.classes) == len(CITYSCAPES) and max(strange) < _LABEL_IDS:
            return "if they are label ids of Cityscapes, give --label-map labelIds"
        return None


def class_named(name: str, classes: ClassSet) -> int | None:
    """Id of the class of a name, whatever its case and however its words are joined; None where there is none."""
    if name in classes.names:
        return classes.names.index(name)
    plain = [_plain(other) for other in classes.names]
    return plain.index(_plain(name)) if _plain(name) in plain else None


def _class_of(path: Path, name: str, classes: ClassSet, void: Sequence[str]) -> int:
    found = class_named(name, classes)
    if found is not None:
        return found
    if _plain(name) in (*_NO_CLASS, *map(_plain, void)):
        return IGNORE
    plain = [_plain(other) for other in classes.names]
    near = difflib.get_close_matches(_plain(name), [*plain, "void"], 1, 0.5)
    nearest = [*classes.names, "void"][[*plain, "void"].index(near[0])] if near else None
    hint = f"nearest is {nearest!r}; " if nearest else ""
    known = [*classes.names[:_MOST_NAMED], *["..."][: len(classes) > _MOST_NAMED], "void"]
    raise DataError(f"{path}: {name!r} is no class; {hint}there are {', '.join(known)}")


def _plain(name: str) -> str:
    """Without what differs from tool to tool: case, and how words are joined."""
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _listed(ids: Sequence[int]) -> str:
    return f"{list(ids[:_MOST_NAMED])}" + (f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else "")


def check_alone(void: Sequence[int] | None, first_id: int | None) -> None:
    """Raise DataError where, beside a label map, void ids or a first id say what ids mean."""
    if void or first_id is not None:
        raise DataError("a label map says of each id what it means; leave out void ids and a first id")
