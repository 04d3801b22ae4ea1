"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there takes its place when the block ends well.

    The folder is made where it is missing. After an exception, and after a kill, `path` is what it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: writers choose their format by it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, answer: Mapping[str, Any]) -> None:
    """Write an answer for a program to read, whole or not at all.

    Raises:
        OSError: The file cannot be written.
        ValueError: A number is not finite, for which JSON has no word.
    """
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(answer, indent=2, allow_nan=False) + "\n", encoding="utf-8")
