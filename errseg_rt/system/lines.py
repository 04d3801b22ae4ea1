"""Text that is to be one line, whatever is in it: names of files may hold line breaks and codes of terminals."""

from __future__ import annotations

import re

_BREAK = re.compile(r"\s*[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\s*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def one_line(text: object) -> str:
    """Text with its line breaks as spaces, and escapes for other control characters; all else stays as it is."""
    return escaped(_BREAK.sub(" ", str(text).rstrip("\r\n")))


def escaped(name: object) -> str:
    """A name with escapes, as Python writes them, for its control characters: it can be told from any other."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], str(name))


def shortened(text: str, longest: int = 300) -> str:
    """A text, or as many of its first characters as a line has room for, and three dots."""
    return text if len(text) <= longest else f"{text[:longest]} ..."
