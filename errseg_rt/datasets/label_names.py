"""Files that say what label ids are called, as users and annotation tools write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.errors import DataError
from errseg_rt.system.json_text import parse_json

Color = tuple[int, int, int]
"""Red, green and blue, in 0..255."""

_MOST_SHOWN = 60  # characters that a message repeats of a file
_EXAMPLE = '{"0": "void", "7": "road"}'


def read_names(path: Path) -> tuple[dict[int, str], dict[int, Color]]:
    """Read the name of each id, and the colours where the file has them.

    Three kinds of file are told apart by what is in them:

    - JSON, `{"0": "void", "7": "road"}`: a name for each id.
    - `labelmap.txt` as CVAT exports it: a line `name:r,g,b:parts:actions` for each id from 0 on.
    - `labels.txt` as labelme has it: a name a line, from 0 on; `__ignore__`, where it comes first, is no id.

    Raises:
        DataError: The file cannot be read, or is of none of these kinds.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no label map that can be read ({error})") from error
    return (_of_json(path, text), {}) if text.lstrip().startswith(("{", "[")) else _of_lines(path, text)


def _of_json(path: Path, text: str) -> dict[int, str]:
    def once(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                raise DataError(f"{path}: the label map has {key!r} twice")
            found[key] = value
        return found

    try:
        read = parse_json(text, once)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: no label map, JSON as {_EXAMPLE} ({error})") from error
    if not isinstance(read, dict):
        raise DataError(f"{path}: no label map, JSON as {_EXAMPLE}")
    names: dict[int, str] = {}
    for key, value in read.items():
        label = _byte(key)
        if label is None:
            raise DataError(f"{path}: {_short(key)} is no label id in 0..{IGNORE}; a label map is JSON as {_EXAMPLE}")
        if not isinstance(value, str):
            raise DataError(f"{path}: id {key} has {_short(value)}, wanted the name of a class or 'void'")
        if label in names:
            raise DataError(f"{path}: the label map has id {label} twice")
        names[label] = value
    return names


def _of_lines(path: Path, text: str) -> tuple[dict[int, str], dict[int, Color]]:
    """Names, and colours where the lines have them."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines and lines[0] == "__ignore__":
        lines = lines[1:]
    if not 1 <= len(lines) <= IGNORE:
        raise DataError(f"{path}: no label map: wanted JSON as {_EXAMPLE}, or a name a line, {len(lines)} found")
    names, colors = {}, {}
    for label, line in enumerate(lines):
        names[label], colon, rest = line.partition(":")
        if not colon:
            continue
        parts = [_byte(part.strip()) for part in rest.split(":")[0].split(",")]
        color = [part for part in parts if part is not None]
        if (len(parts), len(color)) != (3, 3):
            raise DataError(f"{path}: {_short(line)} is no line as name:red,green,blue, with numbers in 0..255")
        red, green, blue = color
        colors[label] = (red, green, blue)
    if colors and len(colors) != len(names):
        raise DataError(f"{path}: {len(names) - len(colors)} of the {len(names)} lines have no colour")
    if len(set(colors.values())) != len(colors):
        raise DataError(f"{path}: two lines have one colour")
    return names, colors


def _byte(text: str) -> int | None:
    """A number in 0..255; None where the text is none. Python refuses to read one of thousands of digits."""
    return int(text) if re.fullmatch("0{0,9}[0-9]{1,3}", text) and int(text) <= IGNORE else None


def _short(value: object) -> str:
    """What a file has, for a message."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
