"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LONGEST_SUFFIX = 16  # bytes; a longer one is no format's, and could make the name too long for a file system


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there takes its place when the block ends well.

    The folder is made where it is missing. After an exception, and after a kill, `path` is what it was; what a kill
    leaves is a hidden file.

    Raises:
        OSError: The file cannot be written; names `path`, whatever failed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: writers choose their format by it. The stem does not: the name must not get longer by it.
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.tmp{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
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
