"""Small clips, made by the encoders that come with PyAV, whose frames tell their own number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT = 96, 64
RATE = 48_000  # of the sound, a second
_BITS = 8
_QUIET, _LOUD = 0.05, 0.5  # of a sound's largest level


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A frame of noise whose upper half is a bar code of its number, wide enough to outlive compression."""
    frame = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
    for bit in range(_BITS):
        left, right = bit * width // _BITS, (bit + 1) * width // _BITS
        frame[: height // 2, left:right] = 235 if number >> bit & 1 else 16
    return frame


def number_of(frame: np.ndarray) -> int:
    """What a frame tells."""
    height, width = frame.shape[:2]
    middle = [frame[height // 4, (2 * bit + 1) * width // (2 * _BITS)].mean() for bit in range(_BITS)]
    return sum(1 << bit for bit, level in enumerate(middle) if level > 128)


def tone(seconds: int) -> np.ndarray:
    """A sound, `float32 [N]`, that rises, so that a shift shows, and is loud in its second half."""
    time = np.arange(seconds * RATE) / RATE
    levels = np.where(time < seconds / 2, _QUIET, _LOUD) * np.sin(2 * np.pi * (200 + 100 * time) * time)
    return levels.astype(np.float32)


def write_clip(
    path: Path,
    stamps: Sequence[float],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    sound: bool = False,
    sound_after: float = 0.0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    numbers: Iterable[int] | None = None,
    container: str | None = None,
    **options: str,
) -> Path:
    """A clip whose frames come at these seconds, with seconds of `tone`, after some, where it is to have sound."""
    with av.open(str(path), "w", format=container) as file:
        video: Any = file.add_stream(codec, rate=25)
        video.height, video.width, video.pix_fmt = *size, pixels
        if codec == "libx265" and len(stamps) == 1:  # else it dates a single one at random
            options.setdefault("x265-params", "bframes=0")
        video.options = {"g": "5", **options}
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        audio: Any = None
        if sound:
            audio = file.add_stream("aac", rate=RATE)
            audio.layout = "mono"
        for number, stamp in zip(numbers or range(len(stamps)), stamps, strict=False):
            picture = av.VideoFrame.from_ndarray(numbered(number, *size), format="bgr24")
            picture.pts, picture.time_base = round(1000 * stamp), Fraction(1, 1000)
            file.mux(video.encode(picture))
        file.mux(video.encode())
        if sound:
            levels = tone(max(1, round(stamps[-1])))
            for begin in range(0, len(levels), RATE // 8):
                part = av.AudioFrame.from_ndarray(levels[None, begin : begin + RATE // 8], "fltp", "mono")
                part.sample_rate, part.time_base = RATE, Fraction(1, RATE)
                part.pts = begin + round(sound_after * RATE)
                file.mux(audio.encode(part))
            file.mux(audio.encode())
    return path


def read_clip(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Stamps and frames of a clip."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        return [frame.time for frame in frames], [frame.to_ndarray(format="bgr24") for frame in frames]
