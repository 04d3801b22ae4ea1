"""`errseg-rt segment` on many files: a failure ends nothing but itself, nothing is lost, and nothing done twice."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.batch import kept as batch_module
from errseg_rt.batch.image import ImageWork
from errseg_rt.batch.kept import Batch
from errseg_rt.errors import EngineError
from errseg_rt.runtime import Runtime

NAMES = ("a.png", "b.jpg", "c.png")
HEIGHTS = dict(zip(NAMES, (32, 40, 48), strict=True))


@pytest.fixture
def images(tmp_path: Path, frame) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, height in HEIGHTS.items():
        (folder / name).write_bytes(cv2.imencode(Path(name).suffix, frame[:height, :48])[1].tobytes())
    return folder


@pytest.fixture
def run(cli, tmp_path: Path) -> Callable[..., tuple[int, str, dict]]:
    """Segments into `out`; gives the exit code, what was on stderr, and the summary."""

    def segment(*arguments: str | Path, out: Path = tmp_path / "out") -> tuple[int, str, dict]:
        done = cli("segment", "--threads", "1", "-o", out, "--json", *arguments)
        summary = json.loads((out / "summary.json").read_text())
        if done.out:
            assert json.loads(done.out) == summary
        return done.code, done.err, summary

    return segment


def inputs(entries: list[dict]) -> list[str]:
    return [Path(entry["input"]).name for entry in entries]


@pytest.fixture
def segmented(monkeypatch) -> list[str]:
    """Names of the files that are segmented, as they are."""
    names: list[str] = []
    original = ImageWork.do

    def note(work, runtime, item):
        names.append(item.path.name)
        return original(work, runtime, item)

    monkeypatch.setattr(ImageWork, "do", note)
    return names


def failing(error: Exception) -> Callable[..., object]:
    """What stands for `Runtime.segment`, and fails for b.jpg."""
    original = Runtime.segment

    def segment(self: Runtime, frame: np.ndarray, **options: object) -> object:
        if frame.shape[0] == HEIGHTS["b.jpg"]:
            raise error
        return original(self, frame, **options)

    return segment


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (EngineError("the graph failed"), "the graph failed"),
        (MemoryError(), "not enough memory"),
        (OSError(errno.EACCES, "Permission denied", "elsewhere"), "Permission denied: elsewhere"),
        (cv2.error("too large"), "too large"),
    ],
    ids=["engine", "memory", "os", "opencv"],
)
def test_an_error_of_one_file_is_its_own(run, images: Path, monkeypatch, error, message) -> None:
    monkeypatch.setattr(Runtime, "segment", failing(error))
    code, err, summary = run(images)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(f"error: {images / 'b.jpg'}: {message}")
    assert inputs(summary["frames"]) == ["a.png", "c.png"]
    assert summary["failed"] == [{"input": str(images / "b.jpg"), "error": line.removeprefix("error: ")}]


def test_names_that_are_too_long_and_names_that_are_folders(run, images: Path, tmp_path: Path) -> None:
    long = "x" * 250 + ".png"
    shutil.copy(images / "a.png", images / long)
    (tmp_path / "out" / "c_labels.png").mkdir(parents=True)
    code, err, summary = run(images)
    assert code == 2
    assert inputs(summary["frames"]) == ["a.png", "b.jpg"]
    clash, too_long = err.splitlines()
    assert clash.startswith(f"error: {images / 'c.png'}: Is a directory: {tmp_path / 'out' / 'c_labels.png'}")
    assert too_long.startswith(f"error: {images / long}: File name too long: ")


def test_names_as_long_as_results_allow(run, images: Path, tmp_path: Path) -> None:
    name = "x" * (255 - len("_overlay.png"))
    (images / "a.png").rename(images / f"{name}.png")
    code, err, _ = run(images / f"{name}.png")
    assert (code, err) == (0, "")
    assert (tmp_path / "out" / f"{name}_overlay.png").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems want names to be Unicode")
def test_names_of_any_bytes(run, images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "a.png", images / os.fsdecode(b"caf\xe9.png"))
    code, err, summary = run(images, out=tmp_path / os.fsdecode(b"o\xff"))
    assert (code, err) == (0, "")
    assert len(summary["frames"]) == 4
    assert b"caf\xe9_overlay.png" in os.listdir(os.fsencode(tmp_path) + b"/o\xff")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files have no locale")
def test_names_in_a_locale_that_knows_ascii_alone(images: Path, tmp_path: Path, kernels_are_compiled) -> None:
    image = (images / "a.png").rename(images / "caf\u00e9.png")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = "from errseg_rt.cli.app import main; main()"
    command = [sys.executable, "-c", code, "segment", "--threads", "1", image, "-o", tmp_path / "\u56fe"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "\u56fe" / "caf\u00e9_labels.png").is_file()


def test_a_disk_that_is_full_ends_the_batch_and_loses_nothing(run, images: Path, tmp_path: Path, monkeypatch) -> None:
    write, last = Path.write_bytes, HEIGHTS["b.jpg"]

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".png" and cv2.imdecode(np.frombuffer(data, np.uint8), 0).shape[0] == last:
            write(path, data[:20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    code, err, summary = run(images)
    assert code == 2
    (line,) = err.splitlines()
    assert "No space left on device" in line
    assert "b_labels.png" in line
    assert inputs(summary["frames"]) == ["a.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a_colors.png", "a_error.png", "a_labels.png", "a_overlay.png", "summary.json"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_what_is_done_is_in_the_summary_however_it_ends(run, images: Path, monkeypatch, name) -> None:
    number = getattr(signal, name, None) or pytest.skip("no such signal")
    before = signal.getsignal(number)
    original = ImageWork.do

    def end(work, runtime, item):
        if item.path.name == "b.jpg":
            os.kill(os.getpid(), number)
        return original(work, runtime, item)

    monkeypatch.setattr(ImageWork, "do", end)
    code, err, summary = run(images)
    assert code == 128 + number
    assert "Traceback" not in err
    assert inputs(summary["frames"]) == ["a.png"]
    assert signal.getsignal(number) == before


def test_the_summary_is_written_as_the_batch_goes_on(tmp_path: Path, monkeypatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(batch_module.time, "monotonic", lambda: clock[0])
    batch = Batch(tmp_path / "summary.json", lambda frames: {"count": len(frames)})
    for index in range(4):
        batch.attempt(Path(str(index)), lambda index=index: {"input": str(index)})
        batch.keep()
        clock[0] += 3
    known = json.loads((tmp_path / "summary.json").read_text())
    assert known == {"count": 3, "frames": [{"input": str(index)} for index in range(3)], "failed": []}


def test_resume_leaves_out_what_is_done(run, images: Path, tmp_path: Path, segmented) -> None:
    code, _, first = run(images)
    assert code == 0
    assert segmented == list(NAMES)
    segmented.clear()
    assert run(images, "--resume")[2] == first
    assert segmented == []
    os.utime(images / "a.png", (1, 1))
    (tmp_path / "out" / "b_overlay.png").unlink()
    shutil.copy(images / "c.png", images / "d.png")
    assert inputs(run(images, "--resume")[2]["frames"]) == [*NAMES, "d.png"]
    assert segmented == ["a.png", "b.jpg", "d.png"]
    segmented.clear()
    run(images)
    assert segmented == [*NAMES, "d.png"]


@pytest.mark.parametrize("change", [("--threshold", "0.5"), ("--work-pixels", "1000"), ("--allow-damaged",)], ids=str)
def test_resume_with_other_options_does_all_anew(run, images: Path, segmented, change) -> None:
    run(images / "a.png")
    segmented.clear()
    run(images / "a.png", "--resume", *change)
    assert segmented == ["a.png"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"frames": 3}'], ids=["empty", "half", "a_list", "another"])
def test_resume_after_a_summary_that_is_none(run, images: Path, tmp_path: Path, segmented, content) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text(content)
    assert run(images / "a.png", "--resume")[0] == 0
    assert segmented == ["a.png"]


def write_labels(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", labels)[1].tobytes())


def test_resume_keeps_scores(run, images: Path, tmp_path: Path, segmented) -> None:
    for name in ("a.png", "c.png"):
        labels = np.random.default_rng(0).integers(0, 12, (HEIGHTS[name], 48)).astype(np.uint8)
        write_labels(tmp_path / "labels" / f"{Path(name).stem}.png", labels)
    _, _, first = run(images, "--labels", tmp_path / "labels")
    assert first["scored"]["frames"] == 2
    assert first["scored"]["of"] == 3
    segmented.clear()
    assert run(images, "--labels", tmp_path / "labels", "--resume")[2] == first
    os.utime(tmp_path / "labels" / "a.png", (1, 1))
    assert run(images, "--labels", tmp_path / "labels", "--resume")[2]["scores"] == first["scores"]
    assert segmented == ["a.png"]


def test_scores_say_of_how_many_frames_they_are(cli, run, images: Path, tmp_path: Path) -> None:
    labels = np.zeros((32, 48), np.uint8)
    labels[:8] = 255
    write_labels(tmp_path / "labels" / "a.png", labels)
    assert run(images, "--labels", tmp_path / "labels")[2]["scored"] == {"frames": 1, "of": 3, "valid_pixels": 0.75}
    shown = cli("segment", "--threads", "1", "-o", tmp_path / "out", images, "--labels", tmp_path / "labels").out
    assert "scored: 1 of 3 frames; 75.0 % of their pixels have a class\n" in shown


def test_labels_of_ids_that_mean_nothing_are_an_error_of_their_image(run, images: Path, tmp_path: Path) -> None:
    for name, value in (("a", 20), ("c", 3)):
        write_labels(tmp_path / "labels" / f"{name}.png", np.full((HEIGHTS[f"{name}.png"], 48), value, np.uint8))
    code, err, summary = run(images, "--labels", tmp_path / "labels")
    assert code == 2
    (line,) = (line for line in err.splitlines() if not line.startswith("warning: "))  # that the rest is mostly wrong
    assert line.startswith(f"error: {images / 'a.png'}: {tmp_path / 'labels' / 'a.png'}: label ids [20] are neither")
    assert inputs(summary["frames"]) == ["b.jpg", "c.png"]
    assert summary["scored"]["frames"] == 1
    assert run(images, "--labels", tmp_path / "labels", "--void", "20")[0] == 0
    (tmp_path / "map.json").write_text(json.dumps({"20": "road", "3": "void"}))
    code, _, summary = run(images, "--labels", tmp_path / "labels", "--label-map", tmp_path / "map.json")
    assert code == 0
    assert summary["scored"] == {"frames": 2, "of": 3, "valid_pixels": pytest.approx(32 / (32 + 48))}


def test_damaged_files_are_taken_on_request_alone(run, images: Path, capfd) -> None:
    data = (images / "b.jpg").read_bytes()
    (images / "b.jpg").write_bytes(data[:-2])
    code, err, summary = run(images)
    assert code == 2
    assert "b.jpg: damaged (Premature end of JPEG file)" in err
    assert "--allow-damaged" in err
    code, _, summary = run(images, "--allow-damaged")
    assert code == 0
    assert [entry.get("damage") for entry in summary["frames"]] == [
        None, [f"{images / 'b.jpg'}: Premature end of JPEG file"], None
    ]  # fmt: skip


def test_a_frame_that_the_runtime_refuses_is_named(run, images: Path, tmp_path: Path) -> None:
    sliver = tmp_path / "images" / "sliver.png"
    sliver.write_bytes(cv2.imencode(".png", np.zeros((1, 3000, 3), np.uint8))[1].tobytes())
    code, err, _ = run(images, "--max-pixels", "3000")
    assert code == 2
    assert [line for line in err.splitlines() if str(sliver) in line and "so narrow" in line]


def test_what_was_passed_over_is_told(run, images: Path) -> None:
    (images / "d.heic").write_bytes(b"x")
    (images / "e.png").symlink_to("gone.png")
    code, err, summary = run(images, "--exclude", "a.*")
    assert code == 2
    assert inputs(summary["frames"]) == ["b.jpg", "c.png"]
    assert err.splitlines() == [
        f"note: {images}: passed over 1 .heic, of kinds that are not read; convert them to PNG or JPEG",
        f"error: {images / 'e.png'}: a link that leads nowhere",
    ]


EDITS: dict[str, tuple[str, object]] = {
    "no counts": ("confusion", None),
    "other counts": ("confusion", {"semantic": "x", "fused": "y"}),
    "other classes": ("confusion", {"semantic": "99>0:5", "fused": "0>0:5"}),
    "negative": ("confusion", {"semantic": "-1>0:5", "fused": "-1>0:5"}),
    "too large a count": ("confusion", {"semantic": "0>0:" + "9" * 31, "fused": "0>0:1"}),
    "counts that differ": ("confusion", {"semantic": "", "fused": "0>0:1"}),
    "more counts than pixels": ("confusion", {"semantic": "0>0:99999", "fused": "0>0:99999"}),
    "size": ("size", "x"),
    "no pixels": ("size", [0, 0]),
    "share": ("flagged_share", float("nan")),
    "work": ("work", None),
    "pixels": ("pixels", None),
    "times": ("milliseconds", [1]),
    "a time": ("milliseconds", {"a": "x"}),
    "outputs": ("outputs", []),
    "an output": ("outputs", {"labels": 5}),
    "probability": ("mean_error_probability", "x"),
    "input": ("input", [1]),
}
PARTS = ("input", "files", "size", "outputs", "mean_error_probability", "flagged_share", "pixels", "work")
EDITS |= {f"without {part}": (part, ...) for part in (*PARTS, "milliseconds", "confusion")}


@pytest.fixture
def labelled(images, run) -> tuple[Path, dict]:
    """The images with labels beside, segmented; and the summary."""
    root = images.parent / "data"
    (root / "labels").mkdir(parents=True)
    images.rename(root / "images")
    for name, height in HEIGHTS.items():
        labels = np.zeros((height, 48), np.uint8)
        (root / "labels" / name).with_suffix(".png").write_bytes(cv2.imencode(".png", labels)[1].tobytes())
    code, _, summary = run(root)
    assert code == 0
    return root, summary


@pytest.mark.parametrize("edit", EDITS)
def test_an_entry_that_somebody_edited_is_done_again(labelled, run, tmp_path, segmented, edit) -> None:
    root, summary = labelled
    edited = json.loads(json.dumps(summary))
    part, value = EDITS[edit]
    edited["frames"][0][part] = value
    if value is ...:
        del edited["frames"][0][part]
    (tmp_path / "out" / "summary.json").write_text(json.dumps(edited))
    segmented.clear()
    code, _, after = run(root, "--resume")
    assert (code, segmented) == (0, ["a.png"])
    assert (after["scores"], after["scored"]) == (summary["scores"], summary["scored"])


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "", "null", "[]", "{}", "\0", '{"settings": ' + "1" * 5000 + "}"], ids=range(7)
)
def test_a_summary_that_is_none_has_nothing_done(labelled, run, tmp_path, segmented, text) -> None:
    (tmp_path / "out" / "summary.json").write_text(text)
    segmented.clear()
    code, _, after = run(labelled[0], "--resume")
    assert (code, len(segmented), after["scores"]) == (0, 3, labelled[1]["scores"])


def test_an_output_without_content_is_made_again(labelled, run, tmp_path, segmented) -> None:
    (tmp_path / "out" / "b_error.png").write_bytes(b"")
    segmented.clear()
    code, _, _ = run(labelled[0], "--resume")
    assert (code, segmented) == (0, ["b.jpg"])
    assert (tmp_path / "out" / "b_error.png").stat().st_size


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two  spaces.png", "two  spaces.png"),
        ("new\nline.png", r"new\nline.png"),
        ("\x1b[31mred.png", r"\x1b[31mred.png"),
    ],
    ids=["spaces", "line", "terminal"],
)
def test_the_fault_of_a_file_is_a_line_that_names_it(run, tmp_path, name, shown) -> None:
    (tmp_path / name).write_bytes(b"no image")
    code, err, summary = run(tmp_path / name)
    assert (code, summary["failed"][0]["input"]) == (2, str(tmp_path / name))
    (line,) = err.splitlines()
    assert line.startswith(f"error: {tmp_path}/{shown}: not an image")
