"""Files that are damaged in the middle, with all else as it should be: refused by name, or taken on request."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from errseg_rt.errors import FrameError
from errseg_rt.frames.jpeg import is_zeroed
from errseg_rt.frames.reading import Reading, read_frame, read_labels, read_picture
from errseg_rt.scenes import StreetScene

FRAME = StreetScene(seed=7, height=97, width=131).frame(0).frame


def opencv(suffix: str, *options: int) -> bytes:
    return cv2.imencode(suffix, FRAME, options)[1].tobytes()


def pillow(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(FRAME[..., ::-1]).save(buffer, kind, **options)
    return buffer.getvalue()


def hole(data: bytes, count: int = 300) -> bytes:
    """A part in the middle is missing."""
    return data[: len(data) // 2] + data[len(data) // 2 + count :]


def zeros(data: bytes, count: int = 200) -> bytes:
    """A part in the middle is zero."""
    return data[: len(data) // 2] + bytes(count) + data[len(data) // 2 + count :]


def ones(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\xff" * 201 + data[len(data) // 2 + 201 :]


def cut(data: bytes) -> bytes:
    """The last part is missing, but for the mark of the end."""
    return data[: int(0.6 * len(data))] + data[-12:]


def jpeg_cut(data: bytes) -> bytes:
    return data[: int(0.6 * len(data))] + b"\xff\xd9"


def png_without_a_chunk(data: bytes) -> bytes:
    """Of several chunks of pixels, each with its checksum, one is missing."""
    at = [index for index in range(len(data)) if data.startswith(b"IDAT", index)]
    assert len(at) > 2
    return data[: at[1] - 4] + data[at[2] - 4 :]


def png_with_another_byte(data: bytes) -> bytes:
    """The checksum of the chunk is right, that of the pixels is not."""
    at = data.index(b"IDAT")
    length = struct.unpack(">I", data[at - 4 : at])[0]
    body = bytearray(data[at + 4 : at + 4 + length])
    body[-1] ^= 1
    return data[: at + 4] + bytes(body) + struct.pack(">I", zlib.crc32(b"IDAT" + body)) + data[at + 8 + length :]


RESTARTS = (cv2.IMWRITE_JPEG_RST_INTERVAL, 8)
PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
DAMAGE: dict[str, tuple[Callable[[], bytes], Callable[[bytes], bytes]]] = {
    "jpeg_hole": (lambda: opencv(".jpg"), hole),
    "jpeg_cut": (lambda: opencv(".jpg"), jpeg_cut),
    "jpeg_zeros": (lambda: opencv(".jpg"), zeros),
    "jpeg_restarts_hole": (lambda: opencv(".jpg", *RESTARTS), hole),
    "jpeg_progressive_hole": (lambda: opencv(".jpg", *PROGRESSIVE), hole),
    "jpeg_progressive_zeros": (lambda: opencv(".jpg", *PROGRESSIVE), zeros),
    "jpeg_without_its_end": (lambda: opencv(".jpg"), lambda data: data[:-2]),
    "png_hole": (lambda: opencv(".png"), hole),
    "png_zeros": (lambda: opencv(".png"), zeros),
    "png_cut": (lambda: opencv(".png"), cut),
    "png_chunk": (lambda: opencv(".png"), png_without_a_chunk),
    "tiff_lzw_zeros": (lambda: pillow("TIFF", compression="tiff_lzw"), zeros),
    "tiff_deflate_zeros": (lambda: pillow("TIFF", compression="tiff_adobe_deflate"), zeros),
    "tiff_jpeg_zeros": (lambda: pillow("TIFF", compression="jpeg"), zeros),
    "tiff_packbits_zeros": (lambda: pillow("TIFF", compression="packbits"), zeros),
    "tiff_packbits_ones": (lambda: pillow("TIFF", compression="packbits"), ones),
    "tiff_cut": (lambda: pillow("TIFF"), cut),
    "webp_hole": (lambda: opencv(".webp", cv2.IMWRITE_WEBP_QUALITY, 90), hole),
    "webp_cut": (lambda: opencv(".webp", cv2.IMWRITE_WEBP_QUALITY, 101), cut),
    "bmp_hole": (lambda: opencv(".bmp"), hole),
    "ppm_hole": (lambda: opencv(".ppm"), hole),
    "gif_zeros": (lambda: pillow("GIF"), zeros),
    "jp2_hole": (lambda: pillow("JPEG2000"), hole),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused_by_name_and_nothing_else_is_printed(tmp_path: Path, capfd, case) -> None:
    make, damage = DAMAGE[case]
    path = tmp_path / case
    path.write_bytes(make())
    assert read_frame(path).shape == FRAME.shape
    path.write_bytes(damage(make()))
    with pytest.raises(FrameError, match="damaged") as error:
        read_frame(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("case", [case for case in DAMAGE if case.startswith(("jpeg", "png_zeros", "bmp", "ppm"))])
def test_what_is_whole_of_a_damaged_file_is_taken_on_request(tmp_path: Path, capfd, case) -> None:
    make, damage = DAMAGE[case]
    path = tmp_path / case
    path.write_bytes(make())
    whole = read_frame(path)
    path.write_bytes(damage(make()))
    picture = read_picture(path, None, Reading(allow_damaged=True))
    assert picture.frame.shape == whole.shape
    if "bmp" not in case:  # which begins at the bottom
        np.testing.assert_array_equal(picture.frame[:8], whole[:8])
    (fault,) = picture.damage
    assert fault.startswith(f"{path}: ")
    assert capfd.readouterr() == ("", "")


def test_damage_that_is_taken_is_logged(tmp_path: Path, caplog) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(opencv(".jpg")[:-2])
    assert read_frame(path, Reading(allow_damaged=True)).shape == FRAME.shape
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(path) in record.getMessage()


def test_a_file_of_which_nothing_can_be_seen_is_refused_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(opencv(".jpg")[:100])
    with pytest.raises(FrameError, match=r"a\.jpg: damaged, with nothing to be seen of it"):
        read_frame(path, Reading(allow_damaged=True))


def test_damaged_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    ids = np.random.default_rng(0).integers(0, 11, (50, 70)).astype(np.uint8)
    data = cv2.imencode(".png", ids)[1].tobytes()
    path.write_bytes(data)
    np.testing.assert_array_equal(read_labels(path, (50, 70)), ids)
    for broken in (zeros(data, 20), png_with_another_byte(data), data[:-30]):
        path.write_bytes(broken)
        with pytest.raises(FrameError, match=r"a\.png: damaged"):
            read_labels(path, (50, 70))


def test_lines_of_others_still_reach_the_screen(tmp_path: Path, capfd, monkeypatch) -> None:
    """A thread may write while a TIFF is decoded."""
    load = TiffImageFile.load

    def loud(self: TiffImageFile) -> object:
        os.write(2, b"another thread's line\n")
        return load(self)

    monkeypatch.setattr(TiffImageFile, "load", loud)
    path = tmp_path / "a.tif"
    path.write_bytes(zeros(pillow("TIFF", compression="tiff_lzw")))
    with pytest.raises(FrameError, match="damaged"):
        read_frame(path)
    assert set(capfd.readouterr().err.splitlines()) == {"another thread's line"}


def test_settings_of_pillow_stay_what_they_are(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    path = tmp_path / "a.png"
    for data in (opencv(".png"), zeros(opencv(".png"))):
        path.write_bytes(data)
        read_frame(path, Reading(allow_damaged=True))
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


KINDS = {"plain": (), "optimised": (cv2.IMWRITE_JPEG_OPTIMIZE, 1), "progressive": PROGRESSIVE, "restarts": RESTARTS}


@pytest.mark.parametrize("picture", ["flat", "black", "lines", "checks", "dots", "street"])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_no_picture_looks_zeroed(picture, options) -> None:
    rows, cols = np.indices((200, 304))
    pictures = {
        "flat": np.full((200, 304, 3), 128, np.uint8),
        "black": np.zeros((200, 304, 3), np.uint8),
        "lines": np.dstack([(cols % 16 < 8) * 255] * 3).astype(np.uint8),
        "checks": np.dstack([(rows // 8 + cols // 8) % 2 * 255] * 3).astype(np.uint8),
        "dots": np.dstack([(rows % 64 + cols % 64 == 0) * 255] * 3).astype(np.uint8),
        "street": FRAME,
    }
    for quality in (5, 50, 95, 100):
        for image in (pictures[picture], pictures[picture][..., 0]):
            data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality, *options])[1].tobytes()
            assert not is_zeroed(data)
            assert not is_zeroed(data + bytes(500))  # what follows the picture is not of it


@pytest.mark.parametrize("at", [0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_lost_sector_of_a_jpeg(at, channels) -> None:
    image = cv2.resize(FRAME, None, fx=3, fy=3)[..., :channels]
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    start = int(at * len(data))
    assert is_zeroed(data[:start] + bytes(512) + data[start + 512 :])
