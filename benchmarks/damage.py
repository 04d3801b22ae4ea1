"""How many damaged image files are refused, and what does it cost to look?

python -m benchmarks.damage

Each format is damaged at random places in seven ways. A file counts where its picture, as OpenCV gives it without a
word, differs visibly: in more than a thousandth of the pixels by more than 8 grey levels, or where there is none.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.report import Row, compare, finish
from errseg_rt.errors import FrameError
from errseg_rt.frames.reading import read_frame
from errseg_rt.scenes import StreetScene

Pixels = npt.NDArray[np.uint8]

TIMES = 100  # files of each format and kind
VISIBLE, SHARE = 8, 1e-3
HEADER, TAIL = 0.08, 12  # bytes that are left as they are: a share of the first ones, the last ones
SMALL, LARGE = (180, 240), (1024, 2048)


def _opencv(suffix: str, *options: int) -> Callable[[Pixels], bytes]:
    return lambda frame: cv2.imencode(suffix, frame, options)[1].tobytes()


def _pillow(kind: str, **options: Any) -> Callable[[Pixels], bytes]:
    def encode(frame: Pixels) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(frame[..., ::-1]).save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


FORMATS = {
    "jpeg": _opencv(".jpg", cv2.IMWRITE_JPEG_QUALITY, 90),
    "jpeg, progressive": _opencv(".jpg", cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "jpeg, restarts": _opencv(".jpg", cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_RST_INTERVAL, 8),
    "png": _opencv(".png"),
    "tiff, lzw": _pillow("TIFF", compression="tiff_lzw"),
    "tiff, deflate": _pillow("TIFF", compression="tiff_adobe_deflate"),
    "tiff, jpeg": _pillow("TIFF", compression="jpeg"),
    "tiff, packbits": _pillow("TIFF", compression="packbits"),
    "tiff, raw": _pillow("TIFF"),
    "webp, lossy": _opencv(".webp", cv2.IMWRITE_WEBP_QUALITY, 90),
    "webp, lossless": _opencv(".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
    "gif": _pillow("GIF"),
    "bmp": _opencv(".bmp"),
    "ppm": _opencv(".ppm"),
    "jpeg 2000": _pillow("JPEG2000", quality_mode="rates", quality_layers=[6]),
    "avif": _pillow("AVIF"),
}


def _filled(fill: Callable[[int, np.random.Generator], bytes]) -> Callable[..., bytes]:
    return lambda data, at, end, rng: data[:at] + fill(end - at, rng) + data[end:]


KINDS: dict[str, Callable[[bytes, int, int, np.random.Generator], bytes]] = {
    "hole": lambda data, at, end, rng: data[:at] + data[end:],
    "zeros": _filled(lambda count, rng: bytes(count)),
    "ones": _filled(lambda count, rng: b"\xff" * count),
    "noise": _filled(lambda count, rng: rng.bytes(count)),
    "bit": lambda data, at, end, rng: data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :],
    "cut": lambda data, at, end, rng: data[:at],
    "cut, with its end": lambda data, at, end, rng: data[:at] + data[-TAIL:],
}
"""Data, a place in it, an end up to an eighth of the file later, and a generator, to damaged data."""


def measure(name: str, folder: Path) -> Iterator[Row]:
    """Shares of visibly damaged files that are refused, beside OpenCV, and the speed of reading whole ones."""
    data, path = FORMATS[name](StreetScene(3, *SMALL).frame(0).frame), folder / "damaged"
    whole = _plain(data)
    for kind, damage in KINDS.items():
        rng = np.random.default_rng(0)
        visible = refused = refused_by_opencv = harmless = 0
        for _ in range(TIMES):
            at = int(rng.integers(int(HEADER * len(data)), len(data) - TAIL))
            damaged = damage(data, at, min(at + int(rng.integers(1, len(data) // 8)), len(data) - TAIL), rng)
            picture = _plain(damaged)
            path.write_bytes(damaged)
            is_refused = _is_refused(path)
            if picture is None or _differs(picture, whole):
                visible += 1
                refused += is_refused
                refused_by_opencv += picture is None
            else:
                harmless += is_refused
        note = f"of {visible} of {TIMES} files that differ visibly; {harmless} of the others refused"
        if visible:
            yield Row(f"damage/{name}/{kind}", refused / visible, "refused", refused_by_opencv / visible, note=note)
    path.write_bytes(FORMATS[name](StreetScene(3, *LARGE).frame(0).frame))
    large = np.frombuffer(path.read_bytes(), np.uint8)
    yield compare(
        f"read/{name}@{LARGE[0]}x{LARGE[1]}", lambda: read_frame(path), lambda: cv2.imdecode(large, 1), pairs=12
    )


def _plain(data: bytes) -> Pixels | None:
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if picture is None else np.asarray(picture, np.uint8)


def _differs(picture: Pixels, whole: Pixels | None) -> bool:
    if whole is None or picture.shape != whole.shape:
        return True
    return bool((cv2.absdiff(picture, whole).max(-1) > VISIBLE).mean() > SHARE)


def _is_refused(path: Path) -> bool:
    try:
        read_frame(path)
    except FrameError:
        return True
    return False


@contextmanager
def _silence() -> Iterator[None]:
    """OpenCV's libraries write a line for each file, whatever the level of its log."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    screen, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)


if __name__ == "__main__":
    with TemporaryDirectory() as place, _silence():
        rows = [row for each in FORMATS for row in measure(each, Path(place))]
    finish(rows, "damage")
