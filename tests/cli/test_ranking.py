"""`errseg-rt segment --rank`: which frames are expected to be wrong most, and what a summary says of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from errseg_rt.cli.ranking import check_rank, print_ranking, ranking
from errseg_rt.errors import BundleError
from errseg_rt.runtime import Runtime

NAMES = ("a.png", "b.png", "c.png", "d.png")


@pytest.fixture
def images(tmp_path: Path, frame) -> Path:
    """Views of a street, and noise."""
    folder = tmp_path / "data" / "images"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    views = (frame[:64, :96], noise, frame[10:74, 20:116], np.full((64, 96, 3), 90, np.uint8))
    for name, view in zip(NAMES, views, strict=True):
        cv2.imwrite(str(folder / name), view)
    return folder


def test_frames_are_listed_by_what_is_expected_of_them(cli, images: Path, tmp_path: Path, runtime: Runtime) -> None:
    out = tmp_path / "out"
    done = cli("segment", "--threads", "1", images, "-o", out, "--rank")
    assert (done.code, done.err) == (0, "")
    summary = json.loads((out / "summary.json").read_text())
    wanted = {}
    for name in NAMES:
        result = runtime.segment(cv2.imread(str(images / name)))
        wanted[str(images / name)] = result.error_map().mean(dtype=np.float64)
    ranked = sorted(wanted, key=lambda name: -wanted[name])
    assert [each["input"] for each in summary["ranking"]] == ranked
    assert [each["expected_error"] for each in summary["ranking"]] == pytest.approx([wanted[name] for name in ranked])
    assert [entry["input"] for entry in summary["frames"]] == sorted(wanted)
    lines = [line for line in done.out.splitlines() if "images/" in line and "│" in line]
    assert [Path(line.split("│")[1].strip()).name for line in lines] == [Path(name).name for name in ranked]
    assert f"{100 * wanted[ranked[0]]:.2f}" in lines[0]


def test_without_the_option_nothing_is_listed(cli, images: Path, tmp_path: Path) -> None:
    done = cli("segment", "--threads", "1", images, "-o", tmp_path / "out", "--json")
    assert "ranking" not in json.loads(done.out)


def test_void_counts_for_nothing(cli, images: Path, tmp_path: Path, runtime: Runtime) -> None:
    """Where the truth is known, expectations are of the pixels that have one; a frame of void is in no list."""
    labels = images.parent / "labels"
    labels.mkdir()
    truths = {}
    for seed, name in enumerate(NAMES):
        truth = np.random.default_rng(seed).integers(0, 14, (64, 96)).astype(np.uint8)
        truths[name] = np.where((truth > 10) | (name == "c.png"), 255, truth).astype(np.uint8)
        cv2.imwrite(str(labels / name), truths[name])
    arguments = ("segment", "--threads", "1", images.parent, "-o", tmp_path / "out", "--rank", "--json")
    summary = json.loads(cli(*arguments).out)
    entries = {Path(entry["input"]).name: entry for entry in summary["frames"]}
    for name in NAMES:
        result, valid = runtime.segment(cv2.imread(str(images / name))), truths[name] != 255
        expected, entry = result.error_map(), entries[name]
        if name == "c.png":
            assert (entry["expected_error"], entry["mean_error_probability"], entry["expected_precision"]) == (
                None,
                None,
                {},
            )
            continue
        assert entry["expected_error"] == entry["mean_error_probability"] == pytest.approx(expected[valid].mean())
        assert entry["expected_error"] != pytest.approx(expected.mean(), rel=1e-4)
        classes = runtime.manifest.classes.names
        wanted = {
            name: 1 - expected[valid & (result.labels == index)].mean()
            for index, name in enumerate(classes)
            if (valid & (result.labels == index)).any()
        }
        assert entry["expected_precision"] == pytest.approx(wanted, rel=1e-4)
    assert sorted(Path(each["input"]).name for each in summary["ranking"]) == ["a.png", "b.png", "d.png"]
    again = json.loads(cli(*arguments, "--resume").out)
    assert [entry["milliseconds"] for entry in again["frames"]] == [
        entry["milliseconds"] for entry in summary["frames"]
    ]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("expected_error", 0.5),
        ("expected_error", None),
        ("expected_precision", None),
        ("expected_precision", {"x": 0.5}),
        ("expected_precision", {"sky": 2}),
        ("expected_precision", ...),
    ],
)
def test_an_entry_that_expects_otherwise_is_done_again(cli, images: Path, tmp_path: Path, part, value) -> None:
    out = tmp_path / "out"
    cli("segment", "--threads", "1", images, "-o", out)
    before = json.loads((out / "summary.json").read_text())
    edited = json.loads(json.dumps(before))
    edited["frames"][1][part] = value
    if value is ...:
        del edited["frames"][1][part]
    (out / "summary.json").write_text(json.dumps(edited, default=str))
    done = cli("segment", "--threads", "1", images, "-o", out, "--resume", "--rank")
    after = json.loads((out / "summary.json").read_text())
    assert done.code == 0
    assert after["frames"][1][part] == before["frames"][1][part]
    assert len(after["ranking"]) == len(NAMES)


def test_a_bundle_without_an_error_map_cannot_rank() -> None:
    plain, known = (SimpleNamespace(name="mine", has_errors=each) for each in (False, True))
    check_rank(plain, is_asked=False)
    check_rank(known, is_asked=True)
    with pytest.raises(BundleError, match="mine: has no error map to rank by: its network gives labels alone"):
        check_rank(plain, is_asked=True)


def test_ties_are_in_the_order_of_their_names(capsys) -> None:
    entries = [{"input": f"f{index:02d}", "expected_error": 0.25 if index else None} for index in range(30)]
    found = ranking(entries[::-1])
    assert [each["input"] for each in found["ranking"]] == [f"f{index:02d}" for index in range(1, 30)]
    print_ranking(found)
    shown = capsys.readouterr().out
    assert "the first 20 of 29" in shown
    assert ("f20" in shown, "f21" in shown) == (True, False)
    assert ranking([]) == {"ranking": []}
