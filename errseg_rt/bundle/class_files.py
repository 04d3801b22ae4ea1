"""Class sets that users write: TOML, or a name a line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errseg_rt.bundle.bundle import MANIFEST, Bundle
from errseg_rt.bundle.classes import CLASS_SETS, IGNORE, ClassSet
from errseg_rt.errors import DataError
from errseg_rt.system.fields import nearest
from errseg_rt.system.toml_text import read_toml

Color = tuple[int, int, int]
"""Red, green and blue, in 0..255."""

_KEYS = ("names", "colors", "void")
_WANTED = (
    'names = ["road", "car"], and where they are wanted colors = ["#804080", [0, 0, 142]] and void = ["other", 255]'
)
_MOST_SHOWN = 60  # characters that a message repeats of a file


@dataclass(frozen=True)
class ClassFile:
    """Classes, and what else labels of them may hold.

    Attributes:
        classes: Names and colours, in the order of the ids.
        void_ids: Label ids, beside 255, that mean "no class".
        void_names: Names that mean "no class" where label ids have names.
    """

    classes: ClassSet
    void_ids: tuple[int, ...] = ()
    void_names: tuple[str, ...] = ()


def open_classes(text: str, folder: Path | None = None) -> ClassFile:
    """Classes by the name of a set, by their number or names, from a file, or those of a bundle.

    Args:
        text: A key of `CLASS_SETS`; a whole number, whose classes are called `class 0` and so on; names with
            commas between them; or the path of a file, see `read_classes`, or of a bundle's folder.
        folder: Where a relative path starts from; None: the working folder.

    Raises:
        DataError: It is none of these, or the file is no class set.
        BundleError: The bundle is damaged.
    """
    if text in CLASS_SETS:
        return ClassFile(CLASS_SETS[text])
    if re.fullmatch("[0-9]{1,3}", text):
        return _class_set(text, [f"class {index}" for index in range(int(text))])
    path = (folder or Path()) / Path(text).expanduser()
    if (path / MANIFEST).is_file():
        return ClassFile(Bundle.open(path).manifest.classes)
    if "," in text and not path.exists():
        return _class_set(text, [name.strip() for name in text.split(",")])
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else "no such file"
        known = ", ".join(sorted(CLASS_SETS))
        raise DataError(
            f"{path}: {fault}; classes are given by a file, a bundle, their number, their names with commas, or one of "
            f"the sets {known}"
        )
    return read_classes(path)


def read_classes(path: Path) -> ClassFile:
    """Read a class set.

    Two kinds of file are told apart by their ending:

    - `.toml`: `names`, in the order of the ids; `colors`, one for each, as `"#804080"` or `[128, 64, 128]`; and `void`,
      ids or names that mean "no class". All but the names may be left out.
    - all others: a name a line, with a colour behind a colon where there is one: `road:128,64,128` or `road: #804080`.
      Empty lines and those that start with `#` are skipped.

    Classes without a colour get one that no other class has.

    Raises:
        DataError: The file cannot be read, or is no class set.
    """
    try:
        if path.suffix.lower() == ".toml":
            return classes_of_table(read_toml(path), str(path))
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except DataError:
        raise
    except ValueError as error:
        kind = f"TOML as {_WANTED}" if path.suffix.lower() == ".toml" else "text in UTF-8, a name a line"
        raise DataError(f"{path}: no class set, {kind} ({error})") from error
    lines = [line.strip() for line in text.splitlines()]
    names, colors = [], []
    for line in lines:
        if line and not line.startswith("#"):
            name, colon, color = line.partition(":")
            names.append(name.strip())
            # What annotation tools write behind the colour is of no matter here.
            colors.append(_color(f"{path}: {name.strip()!r}", color.split(":")[0].strip()) if colon else None)
    return _class_set(str(path), names, colors)


def classes_of_table(table: Mapping[str, Any], where: str) -> ClassFile:
    """A class set from a table of TOML, as `read_classes` says.

    Args:
        table: The table.
        where: What it is, for messages: a file, or a field of a recipe.

    Raises:
        DataError: It is no class set.
    """
    for key in table:
        if key not in _KEYS:
            raise DataError(f"{where}: no such field, {_shown(key)}; {nearest(key, _KEYS)}")
    names, colors, void = table.get("names"), table.get("colors"), table.get("void", [])
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{where}: wanted {_WANTED}, got {_shown(names)} for names")
    if colors is not None and (not isinstance(colors, (list, tuple)) or len(colors) != len(names)):
        count = f"{len(colors)} of them" if isinstance(colors, (list, tuple)) else _shown(colors)
        raise DataError(f"{where}: colors: wanted a list of {len(names)}, one for each name, got {count}")
    if not isinstance(void, (list, tuple)) or not all(map(_is_void, void)):
        raise DataError(f"{where}: void: wanted a list of ids in 0..{IGNORE} and of names, got {_shown(void)}")
    ids = tuple(each for each in void if isinstance(each, int))
    void_names = tuple(each for each in void if isinstance(each, str))
    both = set(names) & set(void_names)
    if both:
        raise DataError(f"{where}: {_shown(min(both))} is a class and void; leave it out of one of them")
    known = [_color(f"{where}: {name!r}", each) for name, each in zip(names, colors, strict=True)] if colors else None
    return ClassFile(_class_set(where, names, known).classes, ids, void_names)


def _class_set(where: str, names: Sequence[str], colors: Sequence[Color | None] | None = None) -> ClassFile:
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise DataError(f"{where}: two classes are called {_shown(twice[0])}; names tell classes apart")
    if any(not name.strip() or not name.isprintable() for name in names):
        raise DataError(
            f"{where}: class {next(i for i, n in enumerate(names) if not n.strip() or not n.isprintable())} "
            "has no name that can be shown; give each a name of one line"
        )
    try:
        return ClassFile(ClassSet(tuple(names), tuple(_completed(colors or [None] * len(names)))))
    except ValueError as error:
        raise DataError(f"{where}: {error}; wanted {_WANTED}, or a name a line") from error


def _color(where: str, value: object) -> Color:
    """A colour as users write it."""
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        red, green, blue = bytes.fromhex(value[1:])
        return red, green, blue
    parts: Any = value
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,3}\s*(,\s*[0-9]{1,3}\s*){2}", value):
        parts = [int(part) for part in value.split(",")]
    if not (isinstance(parts, (list, tuple)) and len(parts) == 3 and all(map(_is_byte, parts))):
        raise DataError(f'{where}: {_shown(value)} is no colour, as "#804080" or three numbers in 0..255')
    red, green, blue = parts
    return red, green, blue


def _completed(colors: Sequence[Color | None]) -> Iterator[Color]:
    """The colours, with others in the place of those that are missing."""
    taken = {color for color in colors if color is not None}
    free = (color for color in map(_made_up, range(1, 2 * IGNORE + 2)) if color not in taken)
    return (next(free) if color is None else color for color in colors)


def _made_up(index: int) -> Color:
    """Colour of an index: its bits, dealt to red, green and blue, count from the highest bit of each on.

    So is the palette of PASCAL VOC made; the colours of few classes lie far apart, and no two are the same.
    """
    parts = [0, 0, 0]
    for bit in range(9):
        parts[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return parts[0], parts[1], parts[2]


def _is_byte(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= IGNORE


def _is_void(value: object) -> bool:
    return isinstance(value, str) or _is_byte(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
