"""The index: a row for each file, with or without pyarrow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from errseg_rt.batch import index
from errseg_rt.batch.index import COLUMNS, row_of, write_index

ENTRY = {
    "files": {"a.png": [70, 1]},
    "size": [3, 5],
    "outputs": {"labels": "a_labels.png"},
    "mean_error_probability": 0.25,
    "flagged_share": 0.5,
    "pixels": {"over_threshold": 3, "refined": 2, "left_out": 1},
    "work": 0.75,
    "milliseconds": {"front": 2.0, "fuse": 1.0},
    "worker": "here:1",
    "finished": 12.5,
}
ROW = {
    **{"input": "a.png", "kind": "image", "error": None, "height": 3, "width": 5, "frames": 1, "seconds": None},
    **{"mean_error_probability": 0.25, "flagged_share": 0.5, "over_threshold": 3, "refined": 2, "left_out": 1},
    **{"work": 0.75, "milliseconds": 3.0, "outputs": '{"labels": "a_labels.png"}', "bytes": 70},
    **{"worker": "here:1", "finished": 12.5},
}


def rows() -> list[dict]:
    return [row_of(Path("a.png"), "image", ENTRY), row_of(Path("b.mp4"), "video", "b.mp4: is none")]


def test_a_row_says_what_is_known() -> None:
    done, failed = rows()
    assert done == ROW
    assert list(done) == list(COLUMNS)
    assert failed == {**dict.fromkeys(COLUMNS), "input": "b.mp4", "kind": "video", "error": "b.mp4: is none"}


def test_without_pyarrow_it_is_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "find_spec", lambda name: None)
    (tmp_path / "index.parquet").write_bytes(b"of an earlier run")
    path, note = write_index(rows(), tmp_path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows()
    assert "pip install pyarrow" in note
    assert [path.name for path in tmp_path.iterdir()] == ["index.jsonl"]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_with_pyarrow_it_is_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    monkeypatch.setattr(index, "_ROWS", 3)
    (tmp_path / "index.jsonl").write_text("of an earlier run")
    given = [row_of(Path("b"), "image", "wrong"), *rows(), *rows(), *rows()][:count]
    path, note = write_index(iter(given), tmp_path)
    table = parquet.read_table(path)
    assert table.to_pylist() == given
    assert {field.name: str(field.type) for field in table.schema} == {
        name: {"float64": "double"}.get(kind, kind) for name, kind in COLUMNS.items()
    }
    assert note == ""
    assert [path.name for path in tmp_path.iterdir()] == ["index.parquet"]
