"""Sources: every frame once, in its time, upright; what is wrong is passed over, or said in a line."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from errseg_rt.errors import FrameError, SourceError
from errseg_rt.video import live
from errseg_rt.video.files import FileSource
from errseg_rt.video.given import ImageSource, IterableSource, Paced, SceneSource
from errseg_rt.video.live import LiveSource, Patience, UrlSource, WebcamSource, _Given, _Rhythm
from errseg_rt.video.open import open_source
from errseg_rt.video.picture import ENDED
from errseg_rt.video.urls import is_url, without_secrets
from tests.video.clips import number_of, numbered, write_clip

EVEN = [0.04 * index for index in range(20)]
UNEVEN = [0.0, 0.04, 0.05, 0.3, 0.31, 1.0, 1.5, 1.501]


def all_of(source, most: int = 1000):
    stop, found = threading.Event(), []
    for picture in source.pictures(stop):
        found.append(picture)
        if len(found) == most:
            stop.set()
    return found


@pytest.mark.parametrize("stamps", [EVEN, UNEVEN, [0.0]], ids=["even", "uneven", "one"])
@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("b.mkv", "libx265", "yuv420p10le"),
        ("c.webm", "libvpx-vp9", "yuv420p"),
        ("d.mkv", "ffv1", "bgr0"),
        ("e.mp4", "libx264", "yuvj420p"),
    ],
)
def test_a_file_gives_each_frame_once_in_its_time(tmp_path: Path, stamps, name, codec, pixels) -> None:
    source = FileSource(write_clip(tmp_path / name, stamps, codec=codec, pixels=pixels))
    found = all_of(source)
    assert [number_of(picture.frame) for picture in found] == list(range(len(stamps)))
    assert [picture.index for picture in found] == list(range(len(stamps)))
    np.testing.assert_allclose([picture.timestamp for picture in found], stamps, atol=1.1e-3)
    assert all(picture.frame.shape == (64, 96, 3) and picture.captured_at is None for picture in found)
    assert (source.state, source.faults.corrupt) == (ENDED, 0)


def test_a_part_of_a_file(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [0.04 * index for index in range(100)])
    found = all_of(FileSource(path, start=1.0, duration=0.5))
    assert [number_of(picture.frame) for picture in found] == list(range(25, 37)) + [37] * (found[-1].timestamp >= 1.48)
    assert found[0].timestamp == pytest.approx(1.0, abs=1e-3)


def test_frames_of_another_shape_of_pixels_and_odd_sizes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", EVEN[:3], codec="ffv1", pixels="bgr0", size=(33, 57))
    assert [picture.frame.shape for picture in all_of(FileSource(path))] == [(33, 57, 3)] * 3


def damaged(path: Path, how: str) -> Path:
    data = bytearray(path.read_bytes())
    if how == "flipped":
        for at in range(len(data) // 2, len(data), 41):
            data[at] ^= 0xFF
    elif how == "cut":
        del data[-len(data) // 3 :]
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_what_is_damaged_is_counted_and_the_rest_is_given(tmp_path: Path, how) -> None:
    path = damaged(write_clip(tmp_path / "a.mkv", EVEN, crf="1"), how)
    source = FileSource(path)
    found = all_of(source)
    assert 5 <= len(found) <= 20
    stamps = [picture.timestamp for picture in found]
    assert stamps == sorted(stamps)
    assert how == "cut" or source.faults.corrupt > 0


def bad_file(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no video\n" * 100)
    elif kind == "truncated":
        whole = write_clip(folder / "whole.mp4", EVEN).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "sound":
        with __import__("av").open(str(path), "w") as file:
            audio = file.add_stream("aac", rate=8000)
            silence = __import__("av").AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
            silence.sample_rate = 8000
            file.mux(audio.encode(silence))
            file.mux(audio.encode())
    return path


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("missing", "there is no such file"),
        ("empty", "is empty"),
        ("text", "is no video that can be read"),
        ("truncated", "is no video that can be read"),
        ("sound", r"holds no video \(audio\)"),
    ],
)
def test_files_that_are_no_video(tmp_path: Path, kind, fault) -> None:
    path = bad_file(tmp_path, kind)
    with pytest.raises(SourceError, match=fault) as raised:
        FileSource(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_frames_over_the_limit_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", EVEN[:2])
    with pytest.raises(FrameError, match="frames of 64x96 pixels are over the limit of 6143; raise max_pixels"):
        FileSource(path, max_pixels=64 * 96 - 1)


def test_images_in_their_order_and_what_cannot_be_read(tmp_path: Path) -> None:
    for index in (3, 1, 2):
        cv2.imwrite(str(tmp_path / f"f{index}.png"), numbered(index))
    (tmp_path / "f0.png").write_bytes(b"none")
    source = open_source(tmp_path, fps=5)
    assert isinstance(source, ImageSource)
    found = all_of(source)
    assert [number_of(picture.frame) for picture in found] == [1, 2, 3]
    assert [picture.timestamp for picture in found] == pytest.approx([0.2, 0.4, 0.6])
    assert source.faults.corrupt == 1
    for path in tmp_path.glob("f[123].png"):
        path.unlink()
    with pytest.raises(SourceError, match=r"none can be read: .*f0\.png"):
        all_of(open_source(tmp_path))


def test_iterables_of_frames(frame) -> None:
    memory = frame.copy()

    def frames():
        for index in range(3):
            memory[:] = index
            yield memory, 0.5 * index

    found = all_of(open_source(frames()))
    assert [int(picture.frame.max()) for picture in found] == [0, 1, 2]  # copies: the memory is used again
    assert [picture.timestamp for picture in found] == [0, 0.5, 1]
    backwards = all_of(IterableSource([(frame, 5.0), (frame, 1.0), (frame, 6.0)]))
    assert [picture.timestamp for picture in backwards] == [5, 5, 6]
    arrived = [picture.timestamp for picture in all_of(IterableSource([frame, frame]))]
    assert arrived == sorted(arrived)
    with pytest.raises(FrameError, match="item 1 is a str; frames are NumPy arrays"):
        all_of(IterableSource([frame, "frame"]))

    def broken():
        yield frame
        raise RuntimeError("out of frames")

    with pytest.raises(RuntimeError, match="out of frames"):
        all_of(IterableSource(broken()))


def test_a_rendered_street_has_no_end() -> None:
    source = open_source("scene:4", fps=10)
    assert isinstance(source, SceneSource)
    found = all_of(source, most=3)
    assert [picture.timestamp for picture in found] == pytest.approx([0, 0.1, 0.2])
    assert not (found[0].frame == found[2].frame).all()


def test_a_source_that_is_held_back_to_its_time(frame) -> None:
    begun = time.monotonic()
    found = all_of(Paced(IterableSource([(frame, 0.0), (frame, 0.05), (frame, 0.1)])))
    assert time.monotonic() - begun >= 0.1
    assert all(picture.captured_at is not None for picture in found)


class Flaky(LiveSource):
    """Gives what a script says, opening by opening; then it is over for good."""

    def __init__(self, script, **patience) -> None:
        super().__init__("flaky", Patience(**patience))
        self.script, self.openings = list(script), 0

    def opened(self, stop):
        self.openings += 1
        if not self.script:
            stop.set()
            return
        for each in self.script.pop(0):
            if isinstance(each, Exception):
                raise each
            yield _Given(np.full((2, 3, 3), len(self.script) % 256, np.uint8), each)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(live, "_FIRST_WAIT", 1e-3)
    monkeypatch.setattr(live, "_LONGEST_WAIT", 2e-3)


def test_a_source_that_breaks_is_opened_again_and_time_goes_on(impatient) -> None:
    source = Flaky([[7.0, 7.04, None], [SourceError("gone")], [], [0.0, -3.0, 99.0]])
    found = all_of(source)
    assert [picture.index for picture in found] == list(range(6))
    stamps = [picture.timestamp for picture in found]
    assert stamps == sorted(stamps)
    assert 0 <= stamps[-1] < 2  # of arrival, whatever the source says
    assert (source.faults.reopened, source.openings) == (4, 5)


def test_what_cannot_be_opened_at_first_is_an_error(impatient) -> None:
    with pytest.raises(SourceError, match="refused"):
        all_of(Flaky([[SourceError("refused")], [1.0]]))


def test_a_source_is_given_up(impatient) -> None:
    source = Flaky([[1.0]] + [[]] * 1000, give_up=0.05)
    with pytest.raises(SourceError, match=r"no frame for 0\.05 seconds; it is given up"):
        all_of(source)


def after(*steps: float) -> list[float]:
    """Stamps of ten frames each 0.04 s, and then of some after other steps."""
    return [*(0.04 * index for index in range(10)), *(0.36 + np.cumsum(steps))]


@pytest.mark.parametrize(
    ("stamps", "missed"),
    [
        ([None, *after()], []),
        (after(0.08, 0.04), [10]),
        ([*after(), None, 0.44], [10]),
        (after(0.08, 0.04, 0.04, 0.08), [10, 13]),
        (after(0.08, 0.08, 0.08, 0.08, 0.08), [10, 11, 12]),
        (list(np.cumsum([0.04, 0.08] * 10)), []),
        ([0.0, None, None] * 10, []),
        ([None] * 20, []),
    ],
    ids=["first", "a step", "a stamp", "again", "slower from now on", "by turns", "few stamps", "no stamps"],
)
def test_stamps_tell_what_is_missing(stamps, missed) -> None:
    rhythm = _Rhythm()
    assert [index for index, stamp in enumerate(stamps) if rhythm.misses(stamp)] == missed


class Camera:
    """What OpenCV gives of a camera: some frames, then none; a second opening gives more."""

    openings = 0
    script = ([0, 1], [2])

    def __init__(self, index) -> None:
        self.index = index
        self.left = list(Camera.script[Camera.openings]) if Camera.openings < len(Camera.script) else None
        Camera.openings += 1

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return self.index == 0

    def read(self):
        return (True, numbered(self.left.pop(0))) if self.left else (False, None)

    def release(self):
        self.left = None


def test_webcams(monkeypatch, impatient) -> None:
    monkeypatch.setattr(live.cv2, "VideoCapture", Camera)
    monkeypatch.setattr(Camera, "openings", 0)
    source = open_source("0")
    assert isinstance(source, WebcamSource)
    assert [number_of(picture.frame) for picture in all_of(source, most=3)] == [0, 1, 2]
    with pytest.raises(SourceError, match="webcam 7: there is no such camera"):
        all_of(open_source(7))


SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"rtsp://user:{SECRET}@camera.local:554/stream1",
        f"rtsp://us%40er:{SECRET}@@camera/stream",
        f"http://camera/mjpeg?user=me&pwd={SECRET}",
        f"http://camera/x?token={SECRET}&size=1",
        f"rtsp://:{SECRET}@camera/",
    ],
)
def test_no_password_is_ever_shown(url) -> None:
    assert SECRET not in without_secrets(url)
    assert SECRET not in without_secrets(f"cannot open '{url}': refused")
    assert "camera" in without_secrets(url)
    assert SECRET not in UrlSource(url).name


def test_a_url_that_nobody_answers_is_one_line(unused_port: int) -> None:
    url = f"rtsp://user:{SECRET}@127.0.0.1:{unused_port}/stream"
    with pytest.raises(SourceError, match="cannot be opened") as raised:
        all_of(open_source(url))
    text = str(raised.value)
    assert SECRET not in text + repr(raised.value.__cause__) + repr(raised.value.__context__ and "")
    assert "user:***@127.0.0.1" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "answer"), [("rtsp://x/y", True), ("C:\\video.mp4", False), ("scene:3", False), ("a/b.mp4", False)]
)
def test_urls_and_paths(text, answer) -> None:
    assert is_url(text) is answer


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such file or folder; a source is a video, images"):
        open_source(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="transport must be tcp or udp"):
        open_source("rtsp://x/y", transport="http")


def test_frames_that_were_given_do_not_stay(tmp_path: Path) -> None:
    source = FileSource(write_clip(tmp_path / "a.mp4", [0.04 * index for index in range(40)], g="1"))

    def frames() -> int:
        return sum(type(each) is av.VideoFrame for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = frames()
        for _ in source.pictures(threading.Event()):
            pass
        assert frames() - before < 10
    finally:
        gc.enable()
