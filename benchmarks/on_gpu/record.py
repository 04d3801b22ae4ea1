"""The JSON file of `benchmarks/gpu.py`: whole after every row, whoever ends the run, and when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.report import Row
from errseg_rt.system.atomic import write_json

# What a stage finds: figures, and what is to be said of it in words.
Found = Row | str

RUNNING, DONE, FAILED, CUT_OFF, NOT_RUN = "running", "done", "failed", "cut off", "not run"


class Missing(RuntimeError):  # noqa: N818 (a finding, not a fault)
    """What a stage needs is not on this machine: there is nothing to run, and nothing wrong."""


class Record:
    """Rows and stages, on disk alone: a stage's process adds to it while the one that started it waits.

    A stage that is run again gives up what it had; all else stays, with the machine that it was found on.

    Args:
        path: The file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """`machine`, of the latest run; `stages` by name; `rows`, each with its stage."""
        if not self.path.exists():
            return {"machine": None, "stages": {}, "rows": []}
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError:
            content = None
        if not isinstance(content, dict) or not content.keys() >= {"machine", "stages", "rows"}:
            raise ValueError(f"{self.path} is no file of this benchmark; give another --json")
        return content

    def open(self, machine: Mapping[str, Any]) -> None:
        """Begin a run on a machine; stages of earlier runs remember theirs, where it was another.

        Raises:
            ValueError: The file is none of this benchmark's, or tells of another GPU.
        """
        content = self.read()
        before = content["machine"]
        if before is not None and before["gpu"] != machine["gpu"]:
            raise ValueError(f"{self.path} tells of another GPU, {before['gpu']['name']}; give another --json")
        if before is not None and before != machine:
            for stage in content["stages"].values():
                stage.setdefault("machine", before)
        self._write({**content, "machine": dict(machine)})

    def begin(self, stage: str) -> None:
        """A stage begins."""
        content = self.read()
        content["rows"] = [row for row in content["rows"] if row["stage"] != stage]
        content["stages"][stage] = {"state": RUNNING, "seconds": 0.0, "showed": [], "why": []}
        self._write(content)

    def add(self, stage: str, found: Found) -> None:
        """A stage found something."""
        content = self.read()
        if isinstance(found, str):
            content["stages"][stage]["showed"].append(found)
        else:
            content["rows"].append({**asdict(found), "stage": stage})
        self._write(content)

    def blame(self, stage: str, why: str) -> None:
        """Something in a stage failed."""
        content = self.read()
        content["stages"][stage]["why"].append(why)
        self._write(content)

    def end(self, stage: str, state: str, seconds: float) -> None:
        """A stage ended."""
        content = self.read()
        content["stages"][stage] |= {"state": state, "seconds": round(seconds, 1)}
        self._write(content)

    def skip(self, stage: str, why: str) -> None:
        """A stage was not run; what an earlier run found stays."""
        content = self.read()
        content["stages"].setdefault(stage, {"state": NOT_RUN, "seconds": 0.0, "showed": [], "why": [why]})
        self._write(content)

    def rows(self, stage: str | None = None) -> list[Row]:
        """Those of a stage, or all."""
        rows = self.read()["rows"]
        return [_row(row) for row in rows if stage in (None, row["stage"])]

    def _write(self, content: Mapping[str, Any]) -> None:
        write_json(self.path, content)


def _row(fields: Mapping[str, Any]) -> Row:
    quantiles = fields["quantiles"]
    return Row(**{
        **{name: value for name, value in fields.items() if name != "stage"},
        "quantiles": None if quantiles is None else tuple(quantiles),
    })  # fmt: skip
