"""`errseg-rt video`: what it writes of a source, and what it says where it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from errseg_rt.runtime import Runtime
from tests.video.clips import read_clip, write_clip

STAMPS = [0.0, 0.04, 0.12, 0.5, 1.0]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "street.v2.mp4", STAMPS, sound=True)


def test_a_file_at_its_own_time_with_its_sound(cli, clip: Path, tmp_path: Path, runtime: Runtime) -> None:
    out = tmp_path / "out"
    done = cli("video", clip, "-o", out, "--threads", "1", "--labels", "--also", "labels", "--also", "lines")
    assert (done.code, done.err) == (0, "")
    names = {"street.v2.mp4", "street.v2.json", "street.v2_labels.mkv", "street.v2.jsonl"}
    assert {path.name for path in out.iterdir()} == names
    stamps, shown = read_clip(out / "street.v2.mp4")
    np.testing.assert_allclose(stamps, STAMPS, atol=1e-3)
    assert {frame.shape for frame in shown} == {(64, 96, 3)}
    with av.open(str(out / "street.v2.mp4")) as file:
        assert [stream.type for stream in file.streams] == ["video", "audio"]
    with av.open(str(out / "street.v2_labels.mkv")) as file:
        labels = [frame.to_ndarray() for frame in file.decode(video=0)]
    for found, frame in zip(labels, read_clip(clip)[1], strict=True):
        np.testing.assert_array_equal(found, runtime.segment(frame).labels)
    summary = json.loads((out / "street.v2.json").read_text())
    assert summary["frames"] == {"read": 5, "segmented": 5, "dropped": 0, "damaged": 0}
    assert (summary["source"], summary["ended_by"], summary["notes"]) == (str(clip), None, [])
    assert "5 of 5 frames" in done.out


@pytest.mark.parametrize(
    ("view", "shape"),
    [((), (128, 192)), (("--side-by-side",), (128, 192)), (("--overlay",), (64, 96)), (("--errors",), (64, 96))],
    ids=str,
)
def test_views(cli, clip: Path, tmp_path: Path, view, shape) -> None:
    done = cli("video", clip, "-o", tmp_path / "deep" / "seen.mp4", "--stride", "3", "--no-audio", *view, "--json")
    assert done.code == 0
    assert json.loads(done.out)["frames"]["segmented"] == 2
    stamps, shown = read_clip(tmp_path / "deep" / "seen.mp4")
    assert {frame.shape[:2] for frame in shown} == {shape}
    np.testing.assert_allclose(stamps, [0.0, 0.5], atol=1e-3)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["seen.mp4"]
    with av.open(str(tmp_path / "deep" / "seen.mp4")) as file:
        assert [stream.type for stream in file.streams] == ["video"]


def test_a_part_of_a_file(cli, clip: Path, tmp_path: Path) -> None:
    done = cli("video", clip, "-o", tmp_path / "part.mp4", "--start", "0.1", "--duration", "0.5", "--json")
    assert done.code == 0
    stamps, _ = read_clip(tmp_path / "part.mp4")
    np.testing.assert_allclose(stamps, [0.0, 0.38], atol=2e-3)  # from the first frame that is taken


def test_images_scenes_and_a_camera(cli, tmp_path: Path, monkeypatch, frame) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), frame)
    done = cli("video", tmp_path / "images", "-o", tmp_path / "out", "--fps", "4", "--also", "pngs", "--json")
    assert done.code == 0
    np.testing.assert_allclose(read_clip(tmp_path / "out" / "images.mp4")[0], [0.0, 0.25], atol=1e-3)
    pngs = {path.name for path in (tmp_path / "out" / "images_labels").iterdir()}
    assert pngs == {"images_000000.png", "images_000001.png"}
    done = cli("video", "scene:3", "-o", tmp_path / "scene.mp4", "--duration", "0.08", "--json")
    assert done.code == 0
    np.testing.assert_allclose(read_clip(tmp_path / "scene.mp4")[0], [0.0, 0.04], atol=1e-3)

    from errseg_rt.video import live

    class Camera:
        def __init__(self, index):
            assert index == 0

        def isOpened(self):  # noqa: N802 - OpenCV's name
            return True

        def read(self):
            time.sleep(0.01)
            return True, frame

        def release(self):
            pass

    monkeypatch.setattr(live.cv2, "VideoCapture", Camera)
    done = cli("video", "0", "-o", tmp_path / "out", "--duration", "0.5", "--json")
    summary = json.loads(done.out)
    assert done.code == 0
    assert summary["source"] == "webcam 0"
    assert set(summary["latency"]) == {"median", "p95"}
    assert (tmp_path / "out" / "camera0.mp4").exists()


def test_ctrl_c_ends_with_whole_files(tmp_path: Path, kernels_are_compiled) -> None:
    out = tmp_path / "out"
    # What is started in the background of a shell ignores Ctrl-C, and what it starts does so, too.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from errseg_rt.cli import main; main()"
    command = [sys.executable, "-c", program, "video", "scene:3", "-o", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not (out / "scene-3.partial.mp4").exists() or not (out / "scene-3.partial.mp4").stat().st_size:
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            time.sleep(0.5)
            os.kill(process.pid, signal.SIGINT)
            printed, said = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "frames in" in printed
    assert len(read_clip(out / "scene-3.mp4")[0]) >= 1
    assert not (out / "scene-3.partial.mp4").exists()
    assert json.loads((out / "scene-3.json").read_text())["ended_by"] == "Ctrl-C"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("none.mp4",), "there is no such file or folder; a source is a video, images"),
        (("empty.mp4",), "is empty; give another file"),
        (("text.mp4",), "text.mp4: is no video that can be read (Invalid data found when processing input)"),
        (("rtsp://me:hunter2@127.0.0.1:9/x",), "rtsp://me:***@127.0.0.1:9/x: cannot be opened"),
        (("street.v2.mp4", "--max-pixels", "100"), "frames of 64x96 pixels are over the limit of 100"),
    ],
    ids=["missing", "empty", "text", "refused", "too_large"],
)
def test_sources_that_are_none_are_one_line(cli, clip: Path, tmp_path: Path, monkeypatch, arguments, fault) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.mp4").touch()
    Path("text.mp4").write_text("no video")
    done = cli("video", *arguments, "-o", "out")
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert fault in line
    assert "hunter2" not in line
    assert not [path for path in Path("out").glob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("--overlay", "--errors"), "--errors"),
        (("--also", "sound"), "--also"),
        (("--policy", "some"), "--policy"),
        (("--transport", "http"), "--transport"),
        (("--fps", "0"), "--fps"),
        (("--stride", "0"), "--stride"),
    ],
    ids=" ".join,
)
def test_options_that_are_none(cli, clip: Path, tmp_path: Path, arguments, option) -> None:
    done = cli("video", clip, "-o", tmp_path / "out", *arguments)
    assert done.code == 2
    assert option in done.err


def test_the_source_is_not_written_over(cli, clip: Path) -> None:
    before = clip.read_bytes()
    done = cli("video", clip, "-o", clip)
    assert (done.code, done.err) == (2, f"error: {clip}: is the source itself; give another --out\n")
    assert clip.read_bytes() == before


LIMITED = """
import resource, sys
from errseg_rt.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)  # as on a disk that has no more room than that
main()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit that Linux has")
@pytest.mark.parametrize("room", [0, 20_000], ids=["none", "some"])
@pytest.mark.parametrize("also", ["labels", "lines", "pngs"])
def test_a_disk_that_is_full_is_one_line(clip: Path, tmp_path: Path, kernels_are_compiled, room, also) -> None:
    write_clip(clip, [0.04 * index for index in range(40)])
    command = [
        sys.executable,
        "-c",
        LIMITED,
        str(room),
        "video",
        str(clip),
        "-o",
        str(tmp_path / "out"),
        "--also",
        also,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "File too large" in line
    assert not (tmp_path / "out" / "street.v2.mp4").exists()
    assert not [path for path in (tmp_path / "out").glob("*.mp4") if not path.stat().st_size]


@pytest.mark.parametrize(
    ("out", "fault"),
    [
        ("file/out", "file exists and is a file"),
        ("file", "file exists and is a file"),
        ("folder.mp4/x.mp4", None),
        ("taken", "street.v2.mp4: is a folder, wanted a file to write"),
    ],
)
def test_places_where_no_clip_can_be_written(cli, clip: Path, tmp_path: Path, out, fault) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "taken" / "street.v2.mp4").mkdir(parents=True)
    done = cli("video", clip, "-o", tmp_path / out, "--stride", "5", "--json")
    assert done.code == (2 if fault else 0), done.err
    if fault:
        (line,) = done.err.splitlines()
        assert fault in line


MAIN = [sys.executable, "-c", "from errseg_rt.cli import main; main()"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs modes of files, and of processes, as Linux has")
@pytest.mark.parametrize("out", ["locked", "locked/deeper", "locked/seen.mp4", "held"])
def test_a_folder_that_is_not_writable_is_one_line(clip: Path, tmp_path: Path, kernels_are_compiled, out) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "street.v2.jsonl").touch(mode=0o444)  # the folder can be written, and this in it cannot
    (tmp_path / "locked").chmod(0o555)
    # Root may write anywhere, unless it gives that up.
    plain = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    if plain and subprocess.run([*plain, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs another user than root, or setpriv, which takes its rights away")
    command = [*plain, *MAIN, "video", str(clip), "-o", str(tmp_path / out), "--also", "lines"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    fault = "held/street.v2.jsonl" if out == "held" else "locked is not writable for this user"
    assert str(tmp_path / fault) in line
    left = {path.name for path in tmp_path.rglob("*")}
    assert left == {"street.v2.mp4", "locked", "held", "street.v2.jsonl"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a file system of Linux")
def test_a_disk_without_room_is_one_line(clip: Path, tmp_path: Path, kernels_are_compiled) -> None:
    write_clip(clip, [0.04 * index for index in range(100)])
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("needs a machine where a small disk may be mounted")
    try:
        command = [*MAIN, "video", str(clip), "-o", str(disk)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        left = sorted(path.name for path in disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "No space left on device" in line
    assert str(disk / "street.v2.mp4") in line
    assert left == ["street.v2.partial.mp4"]  # what there was room for
