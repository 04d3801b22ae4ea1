"""What docs/networks.md shows, as steps that can be run: files to write, Python, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
WALK = "## From a retina's photograph to vessels you can trust"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
_ITSELF = "benchmarks.user_networks.walk"


@dataclass(frozen=True)
class Step:
    """One thing that the reader does.

    Attributes:
        kind: `"command"`, `"python"` or `"file"`.
        text: The command, the code, or what stands in the file.
        name: Of the file.
    """

    kind: str
    text: str
    name: str = ""

    @property
    def words(self) -> list[str]:
        """Of a command."""
        return shlex.split(self.text)


def steps() -> Iterator[Step]:
    """Those of the walk, in order."""
    text = PAGE.read_text(encoding="utf-8")
    walk = text[text.index(WALK) :].partition("\n## ")[0]
    for language, block in _BLOCK.findall(walk):
        if language == "python":
            yield Step("python", block)
        elif language:
            yield Step("file", block, block.partition("\n")[0].removeprefix("# "))
        else:
            yield from (Step("command", line) for line in block.splitlines() if _ITSELF not in line)
