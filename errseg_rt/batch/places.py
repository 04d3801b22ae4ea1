"""Whether results may be written where they would go."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from errseg_rt.datasets.input_trees import is_result
from errseg_rt.datasets.inputs import Item
from errseg_rt.errors import DataError


def check_apart(items: Sequence[Item], results: Callable[[Item], Sequence[Path]], *, is_ours: bool) -> None:
    """Check that nothing is lost where the results of items are written.

    Args:
        items: The items.
        results: Paths that an item's results are written to.
        is_ours: Whether the folder of results is one of an earlier run.

    Raises:
        DataError: A result would take the place of an image, of labels, or of somebody else's file.
    """
    resolved: Callable[[Path], Path] = cache(Path.resolve)

    def place(path: Path) -> Path:  # a link's own: what is written takes the place of the link
        return resolved(path.parent) / path.name

    given = {place(path) for item in items for path in (item.path, item.truth) if path is not None}
    for item in items:
        for path in results(item):
            if place(path) in given:
                raise DataError(f"{path}: would be written over by a result of {item.path}; give another --out")
            if not is_ours and os.path.isfile(path) and not is_result(path):  # where a name is too long: no
                raise DataError(f"{path}: is there, and no result of an earlier run; remove it, or give another --out")
