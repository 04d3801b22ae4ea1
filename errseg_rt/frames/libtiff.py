"""What libtiff, which raises nothing, has to say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

_ITS_LINE = re.compile(rb"[\w.]+: [^\x1b]*\.\r?\n?")  # the function, or the file, and a sentence


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Lines that libtiff writes to file descriptor 2 meanwhile, known when the block ends, and not on the screen.

    Only one thread may be in here at a time. What others write there meanwhile comes on the screen when the block ends.
    """
    lines: list[str] = []
    try:
        screen, caught = os.dup(2), TemporaryFile()  # noqa: SIM115 - closed below
    except OSError:  # no such descriptor, or no place for a file: nothing to keep clean, or no way to
        yield lines
        return
    with caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(screen, 2)
            os.close(screen)
            caught.seek(0)
            for line in caught:
                if _ITS_LINE.fullmatch(line):
                    lines.append(line.decode(errors="replace").strip().rstrip("."))
                else:
                    os.write(2, line)
