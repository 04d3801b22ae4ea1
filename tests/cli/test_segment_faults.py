"""`errseg-rt segment` on all that can be wrong: one line says what, and nothing half is left."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.batch.image import ImageWork
from errseg_rt.cli import segment as segment_module
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine

NOISE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def encoded(suffix: str, picture: np.ndarray) -> bytes:
    return cv2.imencode(suffix, picture)[1].tobytes()


def huge_png() -> bytes:
    """A small PNG whose header says 100000x100000."""
    data = bytearray(encoded(".png", NOISE))
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


BAD = {
    "unreadable.png": (b"no picture" * 20, "not an image of a kind that is read"),
    "truncated.png": (encoded(".png", NOISE)[:-900], "damaged"),
    "truncated.jpg": (encoded(".jpg", NOISE)[:-300], "damaged"),
    "damaged.jpg": (encoded(".jpg", NOISE)[:200] + b"\xff\xd9", "damaged"),
    "zero.png": (b"", "the file is empty"),
    "deep.png": (encoded(".png", NOISE.astype(np.uint16) * 257), "16 bits a channel"),
    "huge.png": (huge_png(), "100000x100000 pixels are over the limit"),
}


def one_error(err: str, message: str) -> str:
    """The only line on stderr."""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert any(part in line for part in message.split("|")), line
    return line


def whole_files(out: Path) -> list[str]:
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert not [name for name in names if "tmp" in name or Path(name).name.startswith(".")]
    return names


@pytest.fixture
def good(tmp_path: Path, frame) -> Path:
    path = tmp_path / "in" / "good.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), frame[:40, :56])
    return path


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image(cli, tmp_path: Path, name) -> None:
    data, message = BAD[name]
    path, out = tmp_path / name, tmp_path / "out"
    path.write_bytes(data)
    done = cli("segment", "--threads", "1", path, "-o", out)
    assert (done.code, done.out) == (2, "")
    assert str(path) in one_error(done.err, message)
    assert whole_files(out) == ["summary.json"]


def test_bad_files_among_many_are_reported_at_the_end(cli, good: Path, tmp_path: Path) -> None:
    for name, (data, _) in BAD.items():
        (good.parent / name).write_bytes(data)
    out = tmp_path / "out"
    done = cli("segment", "--threads", "1", good.parent, "-o", out, "--json")
    assert done.code == 2
    summary = json.loads(done.out)
    assert summary == json.loads((out / "summary.json").read_text())
    assert [item["input"] for item in summary["frames"]] == [str(good)]
    assert [item["input"] for item in summary["failed"]] == [str(good.parent / name) for name in sorted(BAD)]
    lines = done.err.splitlines()
    assert lines == [f"error: {item['error']}" for item in summary["failed"]]
    assert whole_files(out) == [
        *(f"good_{what}.png" for what in ("colors", "error", "labels", "overlay")),
        "summary.json",
    ]


def test_max_pixels(cli, good: Path, tmp_path: Path) -> None:
    assert cli("segment", "--threads", "1", good, "-o", tmp_path / "out", "--max-pixels", 40 * 56).code == 0
    done = cli("segment", "--threads", "1", good, "-o", tmp_path / "out", "--max-pixels", 40 * 56 - 1)
    assert done.code == 2
    one_error(done.err, "40x56 pixels are over the limit of 2239")


@pytest.mark.parametrize("missing", ["none.png", "none/*.png", "empty"])
def test_an_input_that_names_nothing(cli, good: Path, tmp_path: Path, missing) -> None:
    (tmp_path / "empty").mkdir()
    done = cli("segment", "--threads", "1", good, tmp_path / missing, "-o", tmp_path / "out")
    assert done.code == 2
    assert missing in one_error(done.err, "no such file|holds no image")
    assert not (tmp_path / "out").exists()


def change_byte(folder: Path) -> None:
    path = folder / "graphs" / "front.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")


def edit_manifest(**values: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return edit


def outside(folder: Path) -> None:
    (folder.parent / "secret").write_bytes(b"secret")
    record = {"size": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    edit_manifest(files={"../secret": record})(folder)


BUNDLE_FAULTS = {
    "missing": (lambda folder: folder.rename(folder.with_name("elsewhere")), "no manifest.json there"),
    "changed_byte": (change_byte, "front.onnx: does not match its SHA-256"),
    "missing_file": (lambda folder: (folder / "graphs" / "refine.onnx").unlink(), "refine.onnx: missing"),
    "newer_version": (edit_manifest(format_version=99), "format version 99 is newer"),
    "unknown_version": (edit_manifest(format_version="x"), "format_version is 'x'"),
    "outside": (outside, "'../secret' is named outside the bundle's folder"),
    "no_json": (lambda folder: (folder / "manifest.json").write_text("{"), "not valid JSON"),
    "no_graph": (lambda _: None, "onnxruntime cannot load the front graph"),
}


@pytest.mark.parametrize("fault", BUNDLE_FAULTS)
def test_a_bad_bundle(cli, good: Path, tiny_bundle: Path, tmp_path: Path, fault) -> None:
    damage, message = BUNDLE_FAULTS[fault]
    damage(tiny_bundle)
    done = cli("segment", "--threads", "1", good, "-o", tmp_path / "out", "--bundle", tiny_bundle)
    assert (done.code, done.out) == (2, "")
    one_error(done.err, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("graph", "wrong"),
    [
        ("front", "the semantic branch and the error-prediction branch and the detail branch"),
        ("refine", "the detail branch"),
    ],
)
def test_non_finite_network_output(cli, good: Path, tmp_path: Path, monkeypatch, graph, wrong) -> None:
    run = OnnxRuntimeEngine.run

    def spoiled(self: OnnxRuntimeEngine, feeds):
        outputs = dict(run(self, feeds))
        if self.name == graph:
            outputs = {name: np.full_like(array, np.nan) for name, array in outputs.items()}
        return outputs

    monkeypatch.setattr(OnnxRuntimeEngine, "run", spoiled)
    arguments = ("segment", "--threads", "1", good, "-o", tmp_path / "out", "--threshold", "1e-9")
    if graph == "front":  # is seen before the first frame
        done = cli(*arguments)
        assert (done.code, done.out) == (2, "")
        one_error(done.err, f"{wrong} gave values that are not finite: ")
        assert whole_files(tmp_path / "out") == ["summary.json"]
        monkeypatch.setattr(segment_module, "warm_up", lambda runtime: None)
    done = cli(*arguments)
    assert done.code == 2
    one_error(done.err, f"{wrong} gave values that are not finite: ")
    assert whole_files(tmp_path / "out") == ["summary.json"]


def test_an_output_folder_that_is_a_file(cli, good: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    done = cli("segment", "--threads", "1", good, "-o", tmp_path / "out")
    assert done.code == 2
    one_error(done.err, "exists|Not a directory")
    assert (tmp_path / "out").read_text() == "mine"


def test_truth_of_another_size(cli, good: Path, tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    cv2.imwrite(str(tmp_path / "truth" / "good.png"), np.zeros((41, 56), np.uint8))
    done = cli("segment", "--threads", "1", good, "--labels", tmp_path / "truth", "-o", tmp_path / "out")
    assert done.code == 2
    line = one_error(done.err, "labels of 41x56 pixels, wanted 40x56 as the frame")
    assert str(good) in line
    assert str(tmp_path / "truth" / "good.png") in line


def test_an_unknown_engine(cli, good: Path, tmp_path: Path) -> None:
    done = cli("segment", "--threads", "1", good, "-o", tmp_path / "out", "--engine", "tensorflow")
    assert done.code == 2
    (line,) = (line for line in done.err.splitlines() if "Invalid value" in line)
    assert "'--engine': engine must be onnxruntime, tensorrt or torch, got 'tensorflow'." in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--threshold", "0"),
        ("--threshold", "1"),
        ("--threshold", "1.5"),
        ("--threshold", "nan"),
        ("--detail", "thin"),
        ("--budget", "-0.1"),
        ("--budget", "1.1"),
        ("--budget", "nan"),
        ("--deadline-ms", "0"),
        ("--deadline-ms", "-1"),
        ("--deadline-ms", "inf"),
        ("--deadline-ms", "nan"),
    ],
    ids=" ".join,
)
def test_options_out_of_range(cli, good: Path, tmp_path: Path, options) -> None:
    done = cli("segment", "--threads", "1", good, "-o", tmp_path / "out", *options)
    assert done.code == 2
    assert "Traceback" not in done.err
    (line,) = (line for line in done.err.splitlines() if "Invalid value" in line)
    assert f"Invalid value for '{options[0]}': " in line
    assert f"got {options[1]}" in line.replace("'", "")
    assert not (tmp_path / "out").exists()


def test_options_are_looked_at_before_files(cli, tmp_path: Path) -> None:
    done = cli("segment", tmp_path / "none.png", "-o", tmp_path / "out", "--budget", "2")
    assert done.code == 2
    assert "Invalid value for '--budget': budget must be a share in 0..1, got 2.0." in done.err


def test_too_few_threads(cli, good: Path, tmp_path: Path) -> None:
    done = cli("segment", good, "-o", tmp_path / "out", "--threads", "0")
    assert done.code == 2
    assert "Invalid value for '--threads'" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budget", "0.1", "--deadline-ms", "50"), "'--budget': budget is what a deadline sets itself: give one of"),
        (("--detail", "dense", "--budget", "0.1"), "'--detail': detail must be sparse for a budget or a deadline"),
        (("--deadline-ms", "50", "--detail", "dense"), "'--detail': detail must be sparse for a budget or a deadline"),
    ],
    ids=["budget_and_deadline", "dense_budget", "dense_deadline"],
)
@pytest.mark.parametrize("command", ["segment", "demo"])
def test_options_that_contradict_each_other(cli, good: Path, tmp_path: Path, command, options, message) -> None:
    inputs = [good] if command == "segment" else []
    done = cli(command, *inputs, "-o", tmp_path / "out", *options)
    assert done.code == 2
    (line,) = (line for line in done.err.splitlines() if "Invalid value" in line)
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [("--detail", "sparse"), ("--budget", "0.1"), ("--deadline-ms", "50")], ids=" ".join
)
def test_a_bundle_without_frozen_norms(cli, good: Path, bundle_copy: Path, tmp_path: Path, options) -> None:
    cascade = json.loads((bundle_copy / "manifest.json").read_text())["cascade"]
    edit_manifest(cascade={**cascade, "detail_frozen": False})(bundle_copy)
    arguments = ("segment", "--threads", "1", good, "-o", tmp_path / "out", "--bundle", bundle_copy)
    done = cli(*arguments, *options)
    assert done.code == 2
    one_error(done.err, "its detail branch has no frozen norms")
    assert not (tmp_path / "out").exists()
    assert cli(*arguments).code == 0


def test_an_interrupt(cli, good: Path, tmp_path: Path, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageWork, "do", interrupt)
    done = cli("segment", "--threads", "1", good, "-o", tmp_path / "out")
    assert done.code == 130
    assert "Traceback" not in done.err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"] == []


def test_a_result_takes_the_place_of_no_image_and_no_label(cli, tmp_path: Path, good, frame) -> None:
    """Also where it lies beside, or is reached by another path."""
    root = tmp_path / "data"
    for folder, picture in (("images", frame[:40, :56]), ("labels", np.zeros((40, 56), np.uint8))):
        (root / folder).mkdir(parents=True)
        cv2.imwrite(str(root / folder / "a.png"), picture)
    cv2.imwrite(str(good.with_name("good_labels.png")), frame[:40, :56])
    (tmp_path / "link").symlink_to(root)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    labels = ("--labels", root / "labels", "--ids", "trainIds")
    for arguments in (
        (root, "-o", root / "labels", "--ids", "trainIds"),
        (root / "images" / "a.png", "-o", tmp_path / "link" / "labels", *labels),
        (good, good.with_name("good_labels.png"), "-o", good.parent),
        (str(good.parent / "*.png"), "-o", good.parent),
    ):
        done = cli("segment", *arguments)
        assert (done.code, done.out) == (2, "")
        one_error(done.err, "would be written over by a result of")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before


def test_nor_that_of_a_file_that_no_run_has_written(cli, tmp_path: Path, good) -> None:
    out = tmp_path / "drawn"
    for name, ids in (("good.png", ("--ids", "trainIds")), ("good_labels.png", ())):
        out.mkdir(exist_ok=True)
        (out / name).write_bytes(b"drawn by hand")
        done = cli("segment", good, "-o", out, *ids)
        assert (done.code, done.out) == (2, "")
        one_error(done.err, f"{name}: is there, and no result of an earlier run; remove it, or give another --out")
        assert whole_files(out) == [name]
        (out / name).unlink()
        for _ in range(2):  # its own it may
            done = cli("segment", good, "-o", out, *ids)
            assert (done.code, done.err) == (0, "")
        shutil.rmtree(out)
    assert cli("segment", good, "-o", out).code == 0
    (out / "summary.json").unlink()
    assert cli("segment", good, "-o", out, "--resume").code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_stderr_that_takes_nothing(tmp_path: Path) -> None:
    """Its lines are lost, the exit code is not; and none of them goes to stdout."""
    command = (
        f"{sys.executable} -c 'from errseg_rt.cli.app import main; main()' segment {tmp_path}/none -o {tmp_path}/o"
    )
    for stderr in ("2>/dev/full", "2>&-"):
        done = subprocess.run(f"{command} {stderr}", shell=True, capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (2, b"")
