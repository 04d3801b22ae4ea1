"""Files that say what label ids are called, as users and annotation tools write them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.errors import DataError

Color = tuple[int, int, int]
"""Red, green and blue, in 0..255."""

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
        read = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: no label map, JSON as {_EXAMPLE} ({error})") from error
    if not isinstance(read, dict):
        raise DataError(f"{path}: no label map, JSON as {_EXAMPLE}")
    names: dict[int, str] = {}
    for key, value in read.items():
        if not (key.isascii() and key.isdigit() and int(key) <= IGNORE):
            raise DataError(f"{path}: {key!r} is no label id in 0..{IGNORE}; a label map is JSON as {_EXAMPLE}")
        if not isinstance(value, str):
            raise DataError(f"{path}: id {key} has {value!r}, wanted the name of a class or 'void'")
        if int(key) in names:
            raise DataError(f"{path}: the label map has id {int(key)} twice")
        names[int(key)] = value
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
        parts = rest.split(":")[0].split(",")
        if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) <= 255 for part in parts):
            raise DataError(f"{path}: {line!r} is no line as name:red,green,blue, with numbers in 0..255")
        red, green, blue = (int(part) for part in parts)
        colors[label] = (red, green, blue)
    if colors and len(colors) != len(names):
        raise DataError(f"{path}: {len(names) - len(colors)} of the {len(names)} lines have no colour")
    if len(set(colors.values())) != len(colors):
        raise DataError(f"{path}: two lines have one colour")
    return names, colors
