"""Clips: each frame at its own time, sound with it, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from errseg_rt.video.clip import ClipWriter, LabelWriter
from errseg_rt.video.drawing import VIEWS, drawn
from errseg_rt.video.files import FileSource
from errseg_rt.video.given import IterableSource
from errseg_rt.video.record import Recorder, line_of
from errseg_rt.video.stream import Stream
from tests.video.clips import RATE, number_of, numbered, read_clip, write_clip

STAMPS = [0.0, 0.04, 0.041, 0.5, 2.0, 2.0, 3.25]


@pytest.mark.parametrize("size", [(64, 96), (33, 57)], ids=str)
def test_frames_are_shown_when_they_were(tmp_path: Path, size) -> None:
    with ClipWriter(tmp_path / "deep" / "a.b.mp4") as writer:
        for number, stamp in enumerate(STAMPS):
            writer.write(numbered(number, *size), stamp)
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.b.partial.mp4"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.b.mp4"]
    stamps, frames = read_clip(tmp_path / "deep" / "a.b.mp4")
    np.testing.assert_allclose(stamps, STAMPS, atol=1e-3)
    assert [number_of(frame) for frame in frames] == list(range(len(STAMPS)))
    assert frames[0].shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    with av.open(str(tmp_path / "deep" / "a.b.mp4")) as file:
        keys = [frame.time for frame in file.decode(video=0) if frame.key_frame]
    np.testing.assert_allclose(keys, [0.0, 2.0, 3.25], atol=1e-3)  # a second after the one before, or as soon as one is


def heard_in(path: Path) -> tuple[float, np.ndarray]:
    """When a clip's sound begins, after its first frame, in seconds, and its levels."""
    with av.open(str(path)) as file:
        frames = list(file.decode(audio=0))
        begin = frames[0].time - file.streams.video[0].start_time * file.streams.video[0].time_base
        return float(begin), np.concatenate([frame.to_ndarray()[0] for frame in frames])


@pytest.mark.parametrize(
    ("begin", "after"), [(0, 0.0), (25, 0.0), (0, 0.7)], ids=["whole", "from the middle", "of later sound"]
)
def test_sound_goes_with_the_frames(tmp_path: Path, begin, after) -> None:
    stamps = [0.04 * index for index in range(50)]
    source = write_clip(tmp_path / "with.mp4", stamps, sound=True, sound_after=after)
    with ClipWriter(tmp_path / "a.mp4", source) as writer:
        for number in range(begin, 50, 5):
            writer.write(numbered(number), 0.04 * number)
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert [stream.type for stream in file.streams] == ["video", "audio"]
    (starts, heard), (wanted_starts, wanted) = heard_in(tmp_path / "a.mp4"), heard_in(source)
    assert wanted_starts == pytest.approx(after, abs=0.03)
    assert starts == pytest.approx(max(0.0, wanted_starts - 0.04 * begin), abs=1e-3)  # MP4 rounds to milliseconds
    assert starts + len(heard) / RATE == pytest.approx(2 - 0.04 * begin, abs=0.03)  # until the last frame is over
    wanted = wanted[round(0.04 * begin * RATE) :][: len(heard)]
    first = 2048 if begin else 0  # of what was before, the decoder knows a packet
    np.testing.assert_allclose(heard[first : len(wanted)], wanted[first:], atol=1e-3)
    assert writer.notes == []


def test_a_gap_longer_than_an_mp4_can_say_is_as_long_as_it_can(tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "a.mp4") as writer:
        for number, stamp in enumerate([0.0, 0.04, 360_000.0, 360_000.5, 360_002.0]):
            writer.write(numbered(number), stamp)
    hours = 6 * 3600
    assert read_clip(tmp_path / "a.mp4")[0] == pytest.approx([0, 0.04, hours + 0.04, hours + 0.54, hours + 2.04])
    assert writer.notes == [f"{tmp_path / 'a.mp4'}: the gap before second 360000 is cut to 6 hours"]
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert [frame.key_frame for frame in file.decode(video=0)] == [True, False, True, False, True]


@pytest.mark.parametrize("begin", [None, 3.0], ids=["at all", "any more"])
def test_a_file_without_sound_gives_none(tmp_path: Path, begin) -> None:
    source = write_clip(tmp_path / "without.mp4", [0.0, 0.04], sound=begin is not None)
    with ClipWriter(tmp_path / "a.mp4", source) as writer:
        writer.write(numbered(0), begin or 0.0)
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert [stream.type for stream in file.streams] == ["video"]


def test_what_goes_wrong_leaves_the_old_file(tmp_path: Path) -> None:
    old = tmp_path / "a.mp4"
    old.write_bytes(b"old")
    writer = ClipWriter(old)

    def write_and_raise(error: BaseException) -> None:
        with writer:
            writer.write(numbered(0), 0.0)
            raise error

    with pytest.raises(RuntimeError, match="no more"):
        write_and_raise(RuntimeError("no more"))
    assert old.read_bytes() == b"old"
    assert number_of(read_clip(writer.partial)[1][0]) == 0  # what there was of the new one
    with pytest.raises(ValueError, match="no frame was written"), ClipWriter(tmp_path / "b.mp4"):
        pass
    assert not list(tmp_path.glob("b*"))
    with ClipWriter(tmp_path / "c.mp4") as writer:
        with pytest.raises(ValueError, match=r"frame is uint8 \[H, W, 3\]"):
            writer.write(np.zeros((4, 4), np.uint8), 0.0)
        writer.write(numbered(0), 0.0)
        with pytest.raises(ValueError, match=r"frame is \(32, 96\), the video is \(64, 96\)"):
            writer.write(numbered(0)[:32], 0.1)


def test_ctrl_c_ends_with_a_whole_file(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path / "a.mp4")

    def write_and_stop() -> None:
        with writer:
            writer.write(numbered(0), 0.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert len(read_clip(tmp_path / "a.mp4")[0]) == 1
    assert not writer.partial.exists()


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from errseg_rt.video.clip import ClipWriter, LabelWriter
from tests.video.clips import numbered
path, kind, sound = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
with LabelWriter(path) if kind == "labels" else ClipWriter(path, *map(Path, sound)) as writer:
    for number in range(100000):
        picture = numbered(number % 256)
        picture[len(picture) // 2 :] = 0  # so small a file stays in many a buffer
        writer.write(picture[..., 0] if kind == "labels" else picture, 0.04 * number)
        print(number, flush=True)
"""


@pytest.mark.parametrize("kind", ["clip", "clip with sound", "clip with a second of sound", "labels"])
def test_after_a_kill_what_was_written_plays(tmp_path: Path, kind) -> None:
    root, path = str(Path(__file__).resolve().parents[2]), tmp_path / ("a.mkv" if kind == "labels" else "a.mp4")
    command = [sys.executable, "-c", KILLED.format(root=root), str(path), kind]
    if "sound" in kind:
        stamps = [0.0, 1.0] if "second" in kind else [0.04 * index for index in range(200)]
        command.append(str(write_clip(tmp_path / "with.mp4", stamps, sound=True)))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) == 171:
                os.kill(process.pid, signal.SIGKILL)
                break
    partial = path.with_name(f"a.partial{path.suffix}")
    pictures = list(FileSource(partial).pictures(threading.Event()))
    assert pictures[-1].timestamp >= 0.04 * 171 - 2
    assert [number_of(picture.frame) for picture in pictures] == list(range(len(pictures)))
    assert not path.exists()
    if kind == "clip with sound":
        assert len(heard_in(partial)[1]) / RATE >= 0.04 * 171 - 2


@pytest.mark.parametrize("size", [(64, 96), (33, 57), (1, 1)], ids=str)
def test_label_ids_come_back_exactly(tmp_path: Path, size) -> None:
    maps = [np.random.default_rng(seed).integers(0, 256, size, np.uint8) for seed in range(5)]
    with LabelWriter(tmp_path / "l.mkv") as writer:
        for stamp, labels in zip([0, 0.1, 0.1, 5, 6], maps, strict=True):
            writer.write(labels, stamp)
        with pytest.raises(ValueError, match="labels are"):
            writer.write(np.zeros((7, 7), np.uint8), 7)
    with av.open(str(tmp_path / "l.mkv")) as file:
        found = list(file.decode(video=0))
    for frame, labels in zip(found, maps, strict=True):
        np.testing.assert_array_equal(frame.to_ndarray(), labels)
    assert [frame.time for frame in found] == pytest.approx([0, 0.1, 0.101, 5, 6], abs=1e-3)


def test_opencv_reads_the_ids_too(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 19, (64, 96), np.uint8)
    with LabelWriter(tmp_path / "l.mkv") as writer:
        writer.write(labels, 0.0)
    capture = cv2.VideoCapture(str(tmp_path / "l.mkv"))
    is_there, frame = capture.read()
    assert is_there
    np.testing.assert_array_equal(frame[..., 0], labels)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [(96, 128), (33, 57), (9, 5)], ids=str)
def test_views(runtime, frame, view, size) -> None:
    part = np.ascontiguousarray(frame[: size[0], : size[1]])
    result = runtime.segment(part)
    picture = drawn(view, part, result, 1.5)
    assert picture.dtype == np.uint8
    assert picture.shape == ((2 * size[0], 2 * size[1], 3) if view == "side-by-side" else (*size, 3))
    if view == "overlay":
        np.testing.assert_array_equal(picture, result.overlay(part))
    if view == "side-by-side":
        below = part[size[0] // 2 :, : size[1] // 2]
        np.testing.assert_array_equal(picture[size[0] // 2 : size[0], : size[1] // 2], below)
    with pytest.raises(ValueError, match="view must be overlay, labels, errors, side-by-side"):
        drawn("all", part, result)


def test_the_bar_tells_the_error_maps_colours(runtime, frame) -> None:
    result = runtime.segment(frame)
    picture = drawn("errors", frame, result)
    plain = result.heat()
    left = frame.shape[1] - 2 * max(3, frame.shape[1] // 32)
    column = picture[:, left + 1].astype(int)
    hot = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_HOT)[:, 0]
    bar = [row for row in column.tolist() if row in hot.tolist()]
    assert bar[0] != bar[-1]
    np.testing.assert_array_equal(picture[: frame.shape[0] // 8], plain[: frame.shape[0] // 8])


def test_a_recorder_writes_all_that_is_asked_for(runtime, frame, tmp_path: Path) -> None:
    small = np.ascontiguousarray(frame[:65, :80])
    with (
        Stream(runtime, IterableSource([(frame, 5.0), (small, 5.5), (frame, 6.25)])) as stream,
        Recorder(tmp_path, "x", tmp_path / "x.mp4", view="labels", also=("labels", "pngs", "lines")) as to,
    ):
        shots = []
        for shot in stream:
            to.write(shot)
            shots.append(shot)
    stamps, frames = read_clip(tmp_path / "x.mp4")
    assert stamps == pytest.approx([0, 0.5, 1.25], abs=1e-3)
    assert {each.shape for each in frames} == {frame.shape}  # the smaller one is brought to it
    names = sorted(path.name for path in (tmp_path / "x_labels").iterdir())
    assert names == ["x_000000.png", "x_000001.png", "x_000002.png"]
    for name, shot in zip(names, shots, strict=True):
        read = cv2.imread(str(tmp_path / "x_labels" / name), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(read, shot.result.labels)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert lines == [line_of(shot) for shot in shots]
    assert [line["timestamp"] for line in lines] == [5.0, 5.5, 6.25]
    assert sum(lines[0]["shares"].values()) == pytest.approx(1)
    assert set(to.outputs) == {"clip", "labels", "pngs", "lines"}


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(15, Fraction(15)), (30000 / 1001, Fraction(30000, 1001)), (12.5, Fraction(25, 2)), (240, Fraction(240))],
    ids=str,
)
def test_what_browsers_play(tmp_path: Path, fps, rate) -> None:
    with ClipWriter(tmp_path / "a.mp4") as writer:
        for number in range(30):
            writer.write(numbered(number), number / fps)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == pytest.approx(float(rate), rel=1e-3)
        assert container.format.name.startswith("mov,mp4")


def test_views_and_rows_of_any_stride(tmp_path: Path) -> None:
    for name, picture in (("view", numbered(3)[:, ::-1]), ("copy", numbered(3)[:, ::-1].copy())):
        with ClipWriter(tmp_path / f"{name}.mp4") as writer:
            writer.write(picture, 0.0)
    assert (tmp_path / "view.mp4").read_bytes() == (tmp_path / "copy.mp4").read_bytes()
