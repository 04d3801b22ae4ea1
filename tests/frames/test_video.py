"""Video files, decoded again."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from errseg_rt.frames.video import VideoWriter


def clip(count: int, height: int, width: int) -> list[np.ndarray]:
    """Smooth colour fields, which compression leaves nearly as they are."""
    rng = np.random.default_rng([count, height, width])
    return [cv2.resize(rng.integers(40, 216, (2, 2, 3), np.uint8), (width, height)) for _ in range(count)]


def write(path: Path, frames: list[np.ndarray], fps: float = 15) -> None:
    with VideoWriter(path, fps) as video:
        for frame in frames:
            video.write(frame)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (63, 96), (64, 95), (33, 17)], ids=lambda side: str(side))
def test_frames_come_back(tmp_path: Path, height, width) -> None:
    frames = clip(7, height, width)
    write(tmp_path / "a.mp4", frames)
    with av.open(str(tmp_path / "a.mp4")) as container:
        decoded = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert len(decoded) == 7
    for frame, back in zip(frames, decoded, strict=True):
        assert back.shape == (height + height % 2, width + width % 2, 3)
        # Lossy: a colour field keeps its levels within a few.
        assert np.abs(back[:height, :width].astype(int) - frame).mean() < 6
        # An odd last row or column was repeated.
        assert np.abs(back[-1].astype(int) - back[height - 1]).mean() < 6
        assert np.abs(back[:, -1].astype(int) - back[:, width - 1]).mean() < 6


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(15, Fraction(15)), (25.0, Fraction(25)), (30000 / 1001, Fraction(30000, 1001)), (12.5, Fraction(25, 2))],
    ids=["whole", "float", "ntsc", "half"],
)
def test_what_browsers_play(tmp_path: Path, fps, rate) -> None:
    write(tmp_path / "a.mp4", clip(5, 32, 48), fps)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == rate
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert times == [index / rate for index in range(5)]


def test_the_index_comes_first(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", clip(3, 32, 32))
    data, at, boxes = (tmp_path / "a.mp4").read_bytes(), 0, []
    while at < len(data):
        boxes.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    assert boxes.index(b"moov") < boxes.index(b"mdat")


@pytest.mark.parametrize("written", [0, 3])
@pytest.mark.parametrize("old", [None, b"old"], ids=["nothing_there", "old_file_there"])
def test_an_exception_leaves_no_file(tmp_path: Path, old, written) -> None:
    path = tmp_path / "a.mp4"
    if old:
        path.write_bytes(old)
    with pytest.raises(KeyError, match="stop"), VideoWriter(path, 15) as video:  # noqa: PT012 the block is what is tested
        for frame in clip(written, 32, 32):
            video.write(frame)
        raise KeyError("stop")
    assert [item.read_bytes() for item in tmp_path.iterdir()] == ([old] if old else [])


def test_the_file_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.mp4"
    with VideoWriter(path, 15) as video:
        video.write(clip(1, 32, 32)[0])
        assert not path.exists()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((32, 34, 3), np.uint8), r"frame is \(32, 34\), the video is \(32, 32\)"),
        (np.zeros((32, 32, 3), np.float32), "got float32"),
        (np.zeros((32, 32), np.uint8), r"got uint8 \(32, 32\)"),
        (np.zeros((32, 32, 4), np.uint8), r"got uint8 \(32, 32, 4\)"),
    ],
    ids=["size", "dtype", "grey", "alpha"],
)
def test_bad_frames(tmp_path: Path, frame, message) -> None:
    with pytest.raises(ValueError, match=message), VideoWriter(tmp_path / "a.mp4", 15) as video:  # noqa: PT012 as above
        video.write(np.zeros((32, 32, 3), np.uint8))
        video.write(frame)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0, -1.0, float("nan"), float("inf")])
def test_bad_rates(tmp_path: Path, fps) -> None:
    with pytest.raises(ValueError, match="fps must be positive"):
        VideoWriter(tmp_path / "a.mp4", fps)


def test_views_and_rows_of_any_stride(tmp_path: Path) -> None:
    frame = clip(1, 64, 96)[0]
    for name, picture in (("view", frame[:, ::-1]), ("copy", frame[:, ::-1].copy())):
        write(tmp_path / f"{name}.mp4", [picture])
    assert (tmp_path / "view.mp4").read_bytes() == (tmp_path / "copy.mp4").read_bytes()
