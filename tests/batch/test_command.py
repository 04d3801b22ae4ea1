"""`errseg-rt batch` on this machine's cores."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle
from tests.batch.killed import (
    check_whole,
    is_alive,
    kill_a_worker,
    kill_the_driver,
    records,
    start,
    until,
    write_images,
)
from tests.video.clips import write_clip

QUICK = ("--workers", "1")


def lines(path: Path) -> list[dict]:
    """Rows of the index, whatever form it has."""
    if (path / "index.jsonl").exists():
        return [json.loads(line) for line in (path / "index.jsonl").read_text().splitlines()]
    from pyarrow.parquet import read_table

    return read_table(path / "index.parquet").to_pylist()


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("note: ") or "index.jsonl" not in line]


@pytest.fixture
def mixed(tmp_path: Path, frame: np.ndarray) -> Path:
    """A folder of images and a video, two of one name, and a file that is none."""
    folder = tmp_path / "in"
    (folder / "day").mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), frame)
    cv2.imwrite(str(folder / "a.jpg"), frame[:40, :48])
    cv2.imwrite(str(folder / "day" / "a.png"), frame[:33, :47])
    write_clip(folder / "a.mp4", [0.0, 0.04, 0.12])
    (folder / "none.png").write_bytes(b"nonsense")
    return folder


def test_results_are_those_of_segment_and_a_second_run_does_what_is_missing(cli, mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = cli("batch", mixed, "-o", out, "--workers", "2", "--also", "lines", "--also", "pngs", "--json")
    assert first.code == 2
    assert errors(first.err) == [f"error: {json.loads(first.out)['failed'][0]['error']}"]
    assert "none.png: not an image of a kind that is read" in first.err
    summary = json.loads(first.out)
    assert summary["files"] == {"of": 5, "done": 4, "earlier": 0, "failed": 1, "videos": 1}
    assert json.loads((out / "summary.json").read_text())["files"] == summary["files"]

    seen = tmp_path / "seen"
    cli("segment", mixed, "-o", seen, "--threads", "1", "--exclude", "a.mp4")
    for name in ("a", "a_png", "day/a"):
        for what in ("labels", "colors", "error", "overlay"):
            assert (out / f"{name}_{what}.png").read_bytes() == (seen / f"{name}_{what}.png").read_bytes()
    assert len((out / "a_mp4.jsonl").read_text().splitlines()) == 3
    assert len(list((out / "a_mp4_labels").iterdir())) == 3

    rows = {Path(row["input"]).relative_to(mixed).as_posix(): row for row in lines(out)}
    assert list(rows) == ["a.jpg", "a.mp4", "a.png", "day/a.png", "none.png"]
    assert [row["kind"] for row in rows.values()] == ["image", "video", "image", "image", "image"]
    assert rows["a.mp4"]["frames"] == 3
    assert (rows["a.jpg"]["height"], rows["a.jpg"]["width"]) == (40, 48)
    assert rows["none.png"]["error"] == summary["failed"][0]["error"]

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    (out / "day" / "a_error.png").unlink()
    next((out / "a_mp4_labels").iterdir()).unlink()
    os.utime(mixed / "a.jpg", ns=(1, 1))
    again = cli("batch", mixed, "-o", out, "--also", "pngs", "--also", "lines", *QUICK)
    assert again.code == 2
    assert again.out == f"4 of 5 files done, 1 of them by earlier runs: {out}\n"
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert set(after) == set(before)
    assert {path.name for path in after if after[path] == before[path]} == {
        f"a_png_{what}" for what in ("labels.png", "colors.png", "error.png", "overlay.png", "result.json")
    }


def test_other_settings_are_done_again_of_the_kind_that_they_are_about(cli, mixed: Path, tmp_path: Path) -> None:
    (mixed / "none.png").unlink()
    assert cli("batch", mixed, "-o", tmp_path / "out", *QUICK).code == 0
    more = ("--view", "overlay", "--ids", "palette")
    for asked, earlier in ((more[:2], 3), (more, 1)):
        done = cli("batch", mixed, "-o", tmp_path / "out", "--json", *QUICK, *asked)
        assert (done.code, json.loads(done.out)["files"]["earlier"]) == (0, earlier)
    assert cv2.imread(str(tmp_path / "out" / "a.png"), 0).shape == (40, 48)
    (tmp_path / "out" / "a_png_result.json").write_text('{"settings": 3}')
    (tmp_path / "out" / "day" / "a_result.json").write_text("{")
    done = cli("batch", mixed, "-o", tmp_path / "out", "--json", *QUICK, *more)
    assert json.loads(done.out)["files"]["earlier"] == 2


def test_a_list(cli, mixed: Path, tmp_path: Path) -> None:
    listed = tmp_path / "in" / "drive.txt"
    listed.write_bytes(b"a.png\r\n\nday/a.png\nday\ngone.png\n" + os.fsencode(mixed / "a.mp4") + b"\n")
    done = cli("batch", listed, "-o", tmp_path / "out", *QUICK)
    assert done.code == 2
    assert errors(done.err) == [
        f"error: {mixed}/day: is a folder, and a list names files",
        f"error: {mixed}/gone.png: no such file; a list names files from its own folder on",
    ]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mp4")) == ["a_mp4.mp4"]
    assert (tmp_path / "out" / "day" / "a_labels.png").exists()
    listed.write_text("\n\n")
    done = cli("batch", listed, "-o", tmp_path / "out", *QUICK)
    assert (done.code, done.err) == (
        2,
        f"error: {listed}: the list names no file; give the path of one in each line\n",
    )


def test_failures_end_it_early_where_that_is_wanted(cli, mixed: Path, tmp_path: Path) -> None:
    for name in ("0.png", "1.png"):
        (mixed / name).write_bytes(b"nonsense")
    done = cli("batch", mixed, "-o", tmp_path / "out", "--max-failures", "2", *QUICK)
    assert done.code == 2
    assert errors(done.err)[-1] == "error: ended after 2 failed files, by --max-failures; 5 files are left"
    assert [Path(row["input"]).name for row in lines(tmp_path / "out")] == ["0.png", "1.png"]


def test_what_cannot_be_begun_is_one_line(cli, mixed: Path, tmp_path: Path, bundle_copy: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.mp4").write_bytes(b"precious")
    Path(tmp_path / "mine" / "index.parquet").mkdir()
    for arguments, line in (
        ((tmp_path / "empty", "-o", tmp_path / "out"), "empty: the folder holds no image or video"),
        ((tmp_path / "no", "-o", tmp_path / "out"), "no such file or folder, and no file matches it as a glob"),
        ((mixed, "-o", tmp_path / "file"), "cannot be written, as"),
        ((mixed, "-o", "/proc/errseg"), "/proc/errseg"),
        ((mixed, "-o", tmp_path / "mine"), "index.parquet: is a folder, wanted a file to write"),
        ((mixed, "-o", tmp_path / "out", "--bundle", tmp_path / "none"), "none"),
        ((mixed, "-o", tmp_path / "out", "--ids", "labelIds"), "11 are wanted"),
        ((mixed, "-o", tmp_path / "out", "--instances"), "finds no instances"),
        # Why there is no TensorRT differs from machine to machine; where that is, is said.
        ((mixed, "-o", tmp_path / "out", "--engine", "tensorrt", "--workers", "1"), "error: at "),
    ):
        done = cli("batch", *arguments)
        assert done.code == 2
        assert line in done.err, (arguments, done.err)
        assert sum(text.startswith("error: ") for text in done.err.splitlines()) == 1, done.err
    assert cli("batch", mixed, "-o", tmp_path / "out", "--view", "nothing").code == 2
    shutil.rmtree(tmp_path / "mine" / "index.parquet")
    done = cli("batch", mixed / "a.mp4", "-o", tmp_path / "mine", *QUICK)
    assert (done.code, "a.mp4: is there, and no result of an earlier run" in done.err) == (2, True)
    assert (tmp_path / "mine" / "a.mp4").read_bytes() == b"precious"


def test_a_bundle_that_is_changed_meanwhile_is_no_earlier_run(cli, mixed: Path, tmp_path: Path, bundle_copy) -> None:
    (mixed / "none.png").unlink()
    assert cli("batch", mixed / "a.png", "-o", tmp_path / "out", *QUICK).code == 0
    manifest = bundle_copy / "manifest.json"
    manifest.write_text(manifest.read_text().rstrip() + "\n\n")
    assert Bundle.open(bundle_copy).stamp() != Bundle.open("camvid").stamp()
    done = cli("batch", mixed / "a.png", "-o", tmp_path / "out", "--json", "--bundle", bundle_copy, *QUICK)
    assert json.loads(done.out)["files"] == {"of": 1, "done": 1, "earlier": 0, "failed": 0, "videos": 0}


def test_a_worker_that_is_killed_costs_nothing(kernels_are_compiled, tmp_path: Path, frame) -> None:
    names, out = write_images(tmp_path / "in", frame, 24), tmp_path / "out"
    process = start(tmp_path / "in", "-o", out, "--workers", "2")
    worker = kill_a_worker(process, out)
    printed, err = process.communicate(timeout=120)
    assert (process.returncode, errors(err)) == (0, [])
    assert printed == f"24 of 24 files done: {out}\n"
    check_whole(out, names)
    assert set(names) == set(records(out))
    assert worker not in {entry["worker"] for entry in sorted(records(out).values(), key=lambda e: e["finished"])[-3:]}


def test_a_driver_that_is_killed_costs_what_is_under_way(cli, tmp_path: Path, frame) -> None:
    names, out = write_images(tmp_path / "in", frame, 24), tmp_path / "out"
    left = kill_the_driver(start(tmp_path / "in", "-o", out, "--workers", "2"), out)
    assert 3 <= len(left) < len(names)
    done = cli("batch", tmp_path / "in", "-o", out, "--json", "--workers", "2")
    assert done.code == 0
    assert json.loads(done.out)["files"] == {"of": 24, "done": 24, "earlier": len(left), "failed": 0, "videos": 0}
    check_whole(out, names)
    assert {name: entry for name, entry in records(out).items() if name in left} == left


def test_sigterm_ends_it_with_its_workers(kernels_are_compiled, tmp_path: Path, frame) -> None:
    write_images(tmp_path / "in", frame, 24)
    process = start(tmp_path / "in", "-o", tmp_path / "out", "--workers", "1")
    until(lambda: len(records(tmp_path / "out")) >= 2, process)
    worker = next(iter(records(tmp_path / "out").values()))["worker"]
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + signal.SIGTERM, "")
    assert not is_alive(worker)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert 1 <= summary["files"]["done"] < 24
