"""The index of a batch: a row for each of its files, as Parquet, or as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from errseg_rt.system.atomic import write_atomically

PARQUET, LINES = "index.parquet", "index.jsonl"
COLUMNS: Mapping[str, str] = {
    "input": "string",
    "kind": "string",
    "error": "string",
    "height": "int32",
    "width": "int32",
    "frames": "int32",
    "seconds": "float64",
    "mean_error_probability": "float64",
    "flagged_share": "float64",
    "over_threshold": "int64",
    "refined": "int64",
    "left_out": "int64",
    "work": "float64",
    "milliseconds": "float64",
    "outputs": "string",
    "bytes": "int64",
    "worker": "string",
    "finished": "float64",
}
"""Names of the columns, and Arrow's names of their types."""
_ROWS = 10_000  # of a row group: what is in memory at a time


def row_of(path: Path, kind: str, done: Mapping[str, Any] | str) -> dict[str, Any]:
    """The row of a file, given its entry, or what is wrong with it: nothing else is known of it, then."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"input": str(path), "kind": kind}
    if isinstance(done, str):
        return row | {"error": done}
    height, width = done["size"]
    row |= {"height": height, "width": width, "frames": done.get("frames", 1), "seconds": done.get("seconds")}
    row |= {name: done[name] for name in ("mean_error_probability", "flagged_share", "work", "worker", "finished")}
    row |= done["pixels"]
    row["milliseconds"] = sum(done["milliseconds"].values())
    row["outputs"] = json.dumps(done["outputs"])
    row["bytes"] = done["files"][str(path)][0]
    return row


def write_index(rows: Iterable[Mapping[str, Any]], folder: Path) -> tuple[Path, str]:
    """Write the index, whole or not at all; one of the other form that was there is removed.

    Returns:
        The file, and a note for the user; an empty one where there is none.

    Raises:
        OSError: It cannot be written.
    """
    if find_spec("pyarrow") is None:
        path, other = folder / LINES, folder / PARQUET
        with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        note = f"{path}: the index is lines of JSON; pip install pyarrow, which the extra ray brings, for Parquet"
    else:
        path, other, note = folder / PARQUET, folder / LINES, ""
        _write_parquet(rows, path)
    other.unlink(missing_ok=True)
    return path, note


def _write_parquet(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    with write_atomically(path) as temporary, ParquetWriter(temporary, schema) as writer:
        part = []
        for row in rows:
            part.append(row)
            if len(part) == _ROWS:
                writer.write_table(pa.Table.from_pylist(part, schema))
                part = []
        writer.write_table(pa.Table.from_pylist(part, schema))
