"""NVIDIA's Jetson boards, whose libraries for the GPU come with JetPack and not with pip."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_RELEASE = Path("/etc/nv_tegra_release")


@dataclass(frozen=True)
class Jetson:
    """A board.

    Attributes:
        linux: Version of Jetson Linux, `(36, 4, 3)`.
    """

    linux: tuple[int, ...]

    @property
    def jetpack(self) -> int | None:
        """JetPack's first number; None where it is too old for TensorRT 10."""
        return 7 if self.linux >= (38,) else 6 if self.linux >= (36, 4) else None

    def advice(self) -> str:
        """What this Python wants for the engine tensorrt, in a line."""
        if self.jetpack is None:
            return "its TensorRT is older than 10: flash JetPack 6.1 or later, or use the engine onnxruntime"
        cuda, python = {6: ("cu12", (3, 10)), 7: ("cu13", (3, 12))}[self.jetpack]
        words = ".".join(map(str, python))
        if find_spec("tensorrt"):
            there = "TensorRT is there"
        elif sys.version_info[:2] != python:
            there = f"TensorRT lies in the system's Python {words}: make the environment of that"
        else:
            there = (
                "TensorRT lies in the system's Python, which this environment does not see: python3 -m venv "
                "--system-site-packages (and apt install nvidia-jetpack where it is missing)"
            )
        return f"{there}; beside it pip install 'errseg-rt[build]' triton 'cuda-core[{cuda}]', not the extra tensorrt"

    def __str__(self) -> str:
        pack = f"JetPack {self.jetpack}" if self.jetpack else "before JetPack 6.1"
        return f"Jetson Linux {'.'.join(map(str, self.linux))} ({pack})"


def find_jetson() -> Jetson | None:
    """The board that this is; None for any other machine."""
    try:
        text = _RELEASE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"R(\d+).*?REVISION:\s*(\d+(?:\.\d+)*)", text)
    return Jetson(tuple(map(int, f"{found[1]}.{found[2]}".split(".")))) if found else None
