"""What workers do in tests that are about workers: nothing that takes time."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errseg_rt.datasets.inputs import Item
from errseg_rt.errors import FrameError


@dataclass(frozen=True)
class Odd:
    """A task whose items are called by what becomes of them.

    Attributes:
        folder: Where each attempt leaves a file, whose name begins as the item's.
        opening: What becomes of a worker that opens: `""`, `"dies"` or `"fails"`.
    """

    folder: Path
    opening: str = ""

    def open(self) -> str:
        if self.opening == "dies":
            os._exit(3)
        if self.opening == "fails":
            raise FrameError("nothing to see here")
        return "opened"

    def do(self, opened: str, item: Item) -> dict[str, Any]:
        assert opened == "opened"
        attempts = len(list(self.folder.glob(f"{item.name}-*")))
        (self.folder / f"{item.name}-{attempts}").touch()
        if item.name.startswith("dies") or (item.name.startswith("mends") and not attempts):
            os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory is short
        if item.name.startswith("bad"):
            raise FrameError(f"{item.path}: is bad")
        if item.name.startswith("strange"):
            raise KeyError("of ours")
        if item.name.startswith("full"):
            raise OSError(28, "No space left on device", "there")
        return {"name": item.name}


def items(*names: str) -> list[Item]:
    return [Item(Path(name), name) for name in names]
