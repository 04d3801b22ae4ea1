"""JSON from files that somebody may have damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def parse_json(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What JSON says.

    Args:
        text: The JSON; bytes are UTF-8, UTF-16 or UTF-32.
        pairs: Makes an object of its members, where it is not to be a plain dictionary.

    Raises:
        ValueError: It is none, a number in it has more digits than Python takes, or it is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError as error:  # of the parser's own kind of fault, which callers expect to be a ValueError
        raise ValueError("nested too deeply") from error
