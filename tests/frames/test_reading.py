"""Image files as frames, label files as ids, and both where they have to agree."""

from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from errseg_rt.errors import FrameError
from errseg_rt.frames.reading import Reading, frame_of, read_frame, read_labels, read_pair, read_picture


@pytest.fixture
def picture() -> np.ndarray:
    """Smooth enough for JPEG, busy enough for files of some kilobytes."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    return cv2.resize(noise, (93, 71), interpolation=cv2.INTER_CUBIC)


def test_a_jpeg_may_carry_more_after_its_end(tmp_path: Path, picture) -> None:
    (tmp_path / "a.jpg").write_bytes(cv2.imencode(".jpg", picture)[1].tobytes() + b"film\xff\xdamore")
    assert read_frame(tmp_path / "a.jpg").shape == picture.shape


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp"])
def test_lossless_formats_give_their_pixels(tmp_path: Path, picture, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []  # above 100: lossless
    assert cv2.imwrite(str(path), picture, options)
    frame = read_frame(path)
    assert frame.dtype == np.uint8
    np.testing.assert_array_equal(frame, picture)


@pytest.mark.parametrize("progressive", [0, 1], ids=["baseline", "progressive"])
def test_a_jpeg_gives_about_its_pixels(tmp_path: Path, picture, progressive) -> None:
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    assert np.abs(read_frame(path).astype(int) - picture).mean() < 8


def test_the_name_need_not_tell_the_format(tmp_path: Path, picture) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    (tmp_path / "a.png").rename(tmp_path / "a.dat")
    np.testing.assert_array_equal(read_frame(tmp_path / "a.dat"), picture)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_what_lies_in_memory_is_read_as_a_file_is(tmp_path: Path, picture, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), picture)
    np.testing.assert_array_equal(frame_of(path.read_bytes()), read_frame(path))
    for data, fault in (
        (path.read_bytes()[:-40], "the upload: damaged"),
        (b"", "the upload: the file is empty"),
        (b"text", "the upload: not an image of a kind that is read"),
    ):
        with pytest.raises(FrameError, match=fault):
            frame_of(data, name="the upload")
    with pytest.raises(FrameError, match=r"the upload: .* pixels are over the limit of 10"):
        frame_of(path.read_bytes(), Reading(10), "the upload")


def test_the_limit_is_inclusive(tmp_path: Path, picture) -> None:
    path, pixels = tmp_path / "a.png", picture.shape[0] * picture.shape[1]
    cv2.imwrite(str(path), picture)
    assert read_frame(path, Reading(pixels)).shape == picture.shape
    with pytest.raises(FrameError, match=f"71x93 pixels are over the limit of {pixels - 1}"):
        read_frame(path, Reading(pixels - 1))


# What is to be done with a stored picture, by EXIF's own words for the orientation: where row 0 and column 0 belong.
ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: np.fliplr,  # top, right
    3: lambda stored: np.rot90(stored, 2),  # bottom, right
    4: np.flipud,  # bottom, left
    5: lambda stored: stored.swapaxes(0, 1),  # left, top
    6: lambda stored: np.rot90(stored, -1),  # right, top
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),  # right, bottom
    8: np.rot90,  # left, bottom
}


def oriented(kind: str, picture: np.ndarray, orientation: int) -> bytes:
    """An image file, lossless where the format is, that says how it is to be turned."""
    exif = Image.Exif()
    exif[0x112] = orientation
    options = {"lossless": True} if kind == "WebP" else {"quality": 95} if kind == "JPEG" else {}
    buffer = io.BytesIO()
    Image.fromarray(picture[..., ::-1] if picture.ndim == 3 else picture).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF"])
def test_every_format_is_turned_as_its_exif_says(tmp_path: Path, picture, kind, orientation) -> None:
    path = tmp_path / "a"
    path.write_bytes(oriented(kind, picture, orientation))
    stored = read_frame(path, Reading(ignore_orientation=True))
    np.testing.assert_array_equal(read_frame(path), ORIENTATIONS[orientation](stored))
    if kind != "JPEG":
        np.testing.assert_array_equal(stored, picture)
    else:
        # OpenCV turns JPEG files alone.
        np.testing.assert_array_equal(read_frame(path), cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("value", [0, 9, 300])
def test_an_orientation_that_is_none(tmp_path: Path, picture, value) -> None:
    (tmp_path / "a.png").write_bytes(oriented("PNG", picture, value))
    np.testing.assert_array_equal(read_frame(tmp_path / "a.png"), picture)


def test_exif_after_the_pixels_and_exif_that_is_damaged(tmp_path: Path, picture) -> None:
    data = oriented("PNG", picture, 6)
    at = data.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    iend = len(data) - 12
    (tmp_path / "late.png").write_bytes(data[:at] + data[end:iend] + data[at:end] + data[iend:])
    np.testing.assert_array_equal(read_frame(tmp_path / "late.png"), np.rot90(picture, -1))
    jpeg = bytearray(oriented("JPEG", picture, 6))
    start = jpeg.index(b"Exif\0\0") + 6
    jpeg[start + 8 : start + 20] = b"\xff" * 12
    (tmp_path / "a.jpg").write_bytes(jpeg)
    assert read_frame(tmp_path / "a.jpg").shape == picture.shape


LABELS = np.random.default_rng(2).integers(0, 11, (71, 93)).astype(np.uint8)


def write_pair(folder: Path, picture: np.ndarray, orientation: int, labels: np.ndarray) -> tuple[Path, Path]:
    (folder / "image.png").write_bytes(oriented("PNG", picture, orientation))
    return folder / "image.png", write_labels(folder / "labels.png", labels)


def write_labels(path: Path, labels: np.ndarray) -> Path:
    path.write_bytes(cv2.imencode(".png", labels)[1].tobytes())
    return path


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_labels_of_a_turned_image(tmp_path: Path, picture, caplog, monkeypatch, orientation) -> None:
    monkeypatch.setattr("errseg_rt.frames.reading._NOTED", set())
    turn = ORIENTATIONS[orientation]
    pair = write_pair(tmp_path, picture, orientation, turn(LABELS))
    for _ in range(2):
        frame, labels = read_pair(*pair)
        np.testing.assert_array_equal(frame, turn(picture))
        np.testing.assert_array_equal(labels, turn(LABELS))
    # Where the size cannot tell how the labels were drawn, that is said, once.
    assert len(caplog.records) == (orientation in (2, 3, 4))
    if caplog.records:
        assert caplog.records[0].getMessage().startswith(f"{pair[0]}: turned as its EXIF says")
        assert "--ignore-orientation" in caplog.records[0].getMessage()
    frame, labels = read_pair(*write_pair(tmp_path, picture, orientation, LABELS), Reading(ignore_orientation=True))
    np.testing.assert_array_equal(frame, picture)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_labels_that_fit_the_stored_image_alone(tmp_path: Path, picture, caplog, monkeypatch, orientation) -> None:
    monkeypatch.setattr("errseg_rt.frames.reading._NOTED", set())
    pair = write_pair(tmp_path, picture, orientation, LABELS)
    frame, labels = read_pair(*pair)
    np.testing.assert_array_equal(frame, picture)
    np.testing.assert_array_equal(labels, LABELS)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{pair[0]}: the labels fit the image as it is stored")


def test_labels_of_a_square_image_that_is_to_be_turned(tmp_path: Path, picture, caplog, monkeypatch) -> None:
    monkeypatch.setattr("errseg_rt.frames.reading._NOTED", set())
    frame, labels = read_pair(*write_pair(tmp_path, picture[:71, :71], 6, LABELS[:71, :71]))
    np.testing.assert_array_equal(frame, np.rot90(picture[:71, :71], -1))
    np.testing.assert_array_equal(labels, LABELS[:71, :71])
    assert len(caplog.records) == 1


def test_labels_that_are_to_be_turned_as_their_image(tmp_path: Path, picture) -> None:
    image, path = write_pair(tmp_path, picture, 6, LABELS)
    path.write_bytes(oriented("PNG", LABELS, 6))
    frame, labels = read_pair(image, path)
    np.testing.assert_array_equal(frame, np.rot90(picture, -1))
    np.testing.assert_array_equal(labels, np.rot90(LABELS, -1))


def test_labels_that_fit_in_no_way(tmp_path: Path, picture) -> None:
    with pytest.raises(FrameError, match=r"labels\.png: labels of 70x93 pixels, wanted 93x71 or 71x93 as the frame"):
        read_pair(*write_pair(tmp_path, picture, 6, LABELS[:70]))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_indices_of_a_palette_are_the_ids(tmp_path: Path, bits) -> None:
    ids = np.random.default_rng(bits).integers(0, min(2**bits, 21), (13, 9)).astype(np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(np.random.default_rng(1).integers(0, 256, 3 * 2**bits).astype(np.uint8).tobytes())
    image.save(tmp_path / "a.png", bits=bits)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", (13, 9)), ids)


def test_a_mask_in_black_and_white(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 2, (13, 9)).astype(np.uint8)
    image = Image.fromarray(ids)
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(tmp_path / "a.png", bits=1)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", (13, 9)), ids)


def test_greys_that_a_tool_packed_into_a_palette(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([0, 0, 0, 7, 7, 7, 11, 11, 11])
    image.save(tmp_path / "a.png")
    with pytest.raises(FrameError, match=r"a\.png: a palette of greys that differ from their indices"):
        read_labels(tmp_path / "a.png", (1, 3))
    image.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2])
    image.save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png", (1, 3)).tolist() == [[0, 1, 2]]


def test_a_picture_of_one_grey_class_under_a_palette_of_colours(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((2, 3), np.uint8))
    image.putpalette([128, 128, 128, 0, 64, 0])
    image.save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png", (2, 3)).tolist() == [[0, 0, 0]] * 2


def encoded(suffix: str, picture: np.ndarray) -> bytes:
    return cv2.imencode(suffix, picture)[1].tobytes()


def one_bit() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(LABELS > 5).save(buffer, "PNG")
    return buffer.getvalue()


NO_LABELS = {
    "jpeg_inside": (lambda: encoded(".jpg", LABELS), "labels are PNG, this is JPEG by what is in it"),
    "webp_inside": (lambda: encoded(".webp", LABELS), "labels are PNG, this is WebP by what is in it"),
    "text": (lambda: b"no labels", "labels are PNG, this is no image"),
    "empty": (lambda: b"", "the file is empty"),
    "16_bit": (lambda: encoded(".png", LABELS.astype(np.uint16)), "labels of 16 bits a pixel"),
    "1_bit": (one_bit, "labels of 1 bits a pixel"),
    "colours": (lambda: encoded(".png", np.dstack([LABELS] * 3)), "labels in RGB; save the class ids"),
    "alpha": (lambda: encoded(".png", np.dstack([LABELS] * 4)), "labels in RGBA; save the class ids"),
    "size": (lambda: encoded(".png", LABELS[1:]), "labels of 70x93 pixels, wanted 71x93 as the frame"),
}


@pytest.mark.parametrize("case", NO_LABELS)
def test_files_that_are_no_labels(tmp_path: Path, case) -> None:
    make, message = NO_LABELS[case]
    (tmp_path / "a.png").write_bytes(make())
    with pytest.raises(FrameError, match=rf"a\.png: {message}"):
        read_labels(tmp_path / "a.png", LABELS.shape)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp", ".bmp", ".ppm", ".pgm", ".jp2", ".ras"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_gets_three_equal_channels_and_alpha_goes(tmp_path: Path, picture, suffix, channels) -> None:
    given = picture if channels == 3 else picture[..., 0] if channels == 1 else np.dstack([picture, picture[..., 0]])
    if (suffix, channels) in (
        (".pgm", 3),
        (".pgm", 4),
        (".ppm", 1),
        (".ppm", 4),
        (".ras", 1),
        (".ras", 4),
        (".jpg", 4),
        (".jp2", 4),
    ):
        pytest.skip("no such kind of file")
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    good, data = cv2.imencode(suffix, given, options)
    assert good
    (tmp_path / "a").write_bytes(data.tobytes())
    frame = read_frame(tmp_path / "a")
    # OpenCV, an independent reader, says what is in the file.
    wanted = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    wanted = np.dstack([wanted] * 3) if wanted.ndim == 2 else wanted[..., :3]
    np.testing.assert_array_equal(frame, wanted)
    assert frame.flags.c_contiguous
    assert frame.flags.writeable


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressions_of_tiff(tmp_path: Path, picture, compression) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture[..., ::-1]).save(buffer, "TIFF", compression=compression)
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    wanted = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read_frame(tmp_path / "a.tif"), wanted)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "jpeg"])
def test_tags_that_nobody_knows_are_no_damage(tmp_path: Path, picture, compression) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[65000], tags[42113] = "private", "-9999"  # the second is that of geographers for "no data"
    Image.fromarray(picture[..., ::-1]).save(tmp_path / "a.tif", compression=compression, tiffinfo=tags)
    assert read_picture(tmp_path / "a.tif", None, Reading()).damage == ()


def test_print_colours(tmp_path: Path, picture) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture[..., ::-1]).convert("CMYK").save(buffer, "JPEG", quality=95)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    wanted = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(read_frame(tmp_path / "a.jpg").astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp", ".bmp", ".ppm", ".jp2"])
def test_every_format_tells_its_size_before_pixels_take_memory(tmp_path: Path, suffix, monkeypatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(encoded(suffix, np.zeros((71, 93, 3), np.uint8)))
    assert read_frame(path, Reading(71 * 93)).shape == (71, 93, 3)
    for name in ("_by_pillow", "decode_jpeg"):
        monkeypatch.setattr(f"errseg_rt.frames.decode.{name}", lambda *_: pytest.fail("decoded"))
    with pytest.raises(
        FrameError, match="a: 71x93 pixels are over the limit of 6602; shrink it, or raise --max-pixels"
    ):
        read_frame(path, Reading(71 * 93 - 1))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".bmp", ".ppm"])
def test_of_a_large_file_the_header_is_read_alone(tmp_path: Path, suffix, monkeypatch) -> None:
    monkeypatch.setattr("errseg_rt.frames.decode._LARGE", 1000)
    path = tmp_path / "a"
    picture = np.random.default_rng(0).integers(0, 256, (371, 393, 3), np.uint8)
    path.write_bytes(encoded(suffix, picture))
    assert read_frame(path).shape == (371, 393, 3)
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="a: 371x393 pixels are over the limit of 1000"):
            read_frame(path, Reading(1000))
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 2
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe(tmp_path: Path, picture) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        pool.submit((tmp_path / "pipe").write_bytes, encoded(".png", picture))
        np.testing.assert_array_equal(read_frame(tmp_path / "pipe"), picture)


def test_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(FrameError, match=r"a\.heic: HEIC is not read; convert it to PNG or JPEG"):
        read_frame(tmp_path / "a.heic")


def test_a_picture_says_what_it_was_read_from(tmp_path: Path, picture) -> None:
    pair = write_pair(tmp_path, picture, 1, LABELS)
    read = read_picture(*pair, Reading())
    assert read.damage == ()
    np.testing.assert_array_equal(read.labels, LABELS)
    assert read_picture(pair[0], None, Reading()).labels is None
