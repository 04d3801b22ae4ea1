"""What takes long and changes nothing is made once, however many processes run the tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder of this process's own with what `make` wrote, in this process or in another one.

    Args:
        factory: Of temporary folders.
        name: What is made, and to be told from all else.
        make: Writes into an empty folder, the same whenever it is called.
    """
    from filelock import FileLock

    is_alone = "PYTEST_XDIST_WORKER" not in os.environ
    shared = (factory.getbasetemp() if is_alone else factory.getbasetemp().parent) / f"once-{name}"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            unfinished = factory.mktemp(name)
            make(unfinished)
            unfinished.rename(shared)
    return Path(shutil.copytree(shared, factory.mktemp(name) / name))
