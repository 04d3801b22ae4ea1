"""TOML that others wrote: read whole, or refused in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse_toml(text: str) -> dict[str, Any]:
    """The table that a TOML text holds.

    Raises:
        ValueError: It is none, or nested too deeply.
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no TOML, or no UTF-8.
    """
    return parse_toml(path.read_text(encoding="utf-8-sig"))
