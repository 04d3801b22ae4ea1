"""Labelled frames in files: ids become classes, and every faulty file is named."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets import LabelledFiles, LabelMap
from errseg_rt.errors import DataError

IDS = {4: 0, 7: 1, 9: IGNORE, 200: 2}
MAP = LabelMap(IDS, "ids are 4, 7, 9, 200")


@pytest.fixture
def labels(noise):
    return np.array(list(IDS), np.uint8)[noise(0, len(IDS))]


@pytest.fixture
def opened(tmp_path, write):
    """Opens one frame with its labels, written as pictures, or as they are where they are bytes."""

    def opened(frame, labels, image_name="a.png") -> LabelledFiles:
        for name, content in ((image_name, frame), ("ids.png", labels)):
            if isinstance(content, bytes):
                (tmp_path / name).write_bytes(content)
            else:
                write(tmp_path, {name: content})
        return LabelledFiles({"a": (tmp_path / image_name, tmp_path / "ids.png")}, MAP)

    return opened


def grey_png(ids: np.ndarray, bits: int) -> bytes:
    """A grey PNG of `bits` bits a pixel, by the PNG specification (OpenCV writes none but 8 and 16)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    digits = ((ids[..., None] >> np.arange(bits)[::-1]) & 1).reshape(len(ids), -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(digits.astype(np.uint8), axis=1))
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_ids_become_classes(opened, noise, labels):
    frame = noise()
    found, classes = opened(frame, labels)[0]
    np.testing.assert_array_equal(found, frame)
    wanted = np.select([labels == 4, labels == 7, labels == 200], [0, 1, 2], IGNORE)
    np.testing.assert_array_equal(classes, wanted)
    assert (found.dtype, classes.dtype) == (np.uint8, np.uint8)
    assert set(np.unique(classes)) == {0, 1, 2, IGNORE}


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_grey_frames_have_three_equal_channels(opened, noise, labels, suffix):
    grey = noise(0)
    found, _ = opened(grey, labels, f"a{suffix}")[0]
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))


def test_alpha_is_left_out(opened, noise, labels):
    picture = noise(4)
    found, _ = opened(picture, labels)[0]
    np.testing.assert_array_equal(found, picture[..., :3])
    assert found.flags.c_contiguous


COLORS = {4: (255, 0, 0), 7: (0, 0, 255), 9: (0, 0, 0), 200: (1, 128, 255)}


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_are_ids_where_the_map_knows_them(tmp_path, write, noise, labels, channels):
    table = np.zeros((256, channels), np.uint8)
    for label, (red, green, blue) in COLORS.items():
        table[label] = (blue, green, red, 255)[:channels]
    write(tmp_path, {"a.png": noise(), "colors.png": table[labels], "ids.png": labels})
    label_map = LabelMap(IDS, "", COLORS)
    pairs = {name: (tmp_path / "a.png", tmp_path / f"{name}.png") for name in ("colors", "ids")}
    by_color, by_id = (classes for _, classes in LabelledFiles(pairs, label_map))
    np.testing.assert_array_equal(by_color, np.vectorize(IDS.get)(labels))
    np.testing.assert_array_equal(by_color, by_id)
    with pytest.raises(
        DataError, match=r"colors\.png: labels in RGBA?; save the class ids, not their colours, .* --label-map"
    ):
        LabelledFiles(pairs, MAP)[0]


def test_colours_that_the_map_does_not_know_are_named(opened, noise):
    picture = np.zeros((33, 47, 3), np.uint8)
    picture[0, :2] = ((3, 2, 1), (254, 128, 1))
    data = opened(noise(), picture)
    data.label_map = LabelMap(IDS, "", COLORS)
    with pytest.raises(DataError, match=r"ids\.png: the label map has no colour \(1, 2, 3\), \(1, 128, 254\) \(red"):
        data[0]
    picture[:] = np.arange(33)[:, None, None]
    data = opened(noise(), picture)
    data.label_map = LabelMap(IDS, "", {4: (0, 0, 0)})
    with pytest.raises(DataError, match=r"\(5, 5, 5\) and 27 more \(red"):
        data[0]


def test_colours_that_two_ids_share_tell_nothing(opened, noise):
    data = opened(noise(), np.zeros((33, 47, 3), np.uint8))
    data.label_map = LabelMap(IDS, "", {4: (0, 0, 0), 7: (0, 0, 0)})
    with pytest.raises(DataError, match=r"ids\.png: labels in colours, of which two ids share one"):
        data[0]


def test_names_pairs_and_subset(tmp_path, write, noise):
    frames = [noise() for _ in range(5)]
    write(tmp_path, {f"{index}.png": frame for index, frame in enumerate(frames)})
    write(tmp_path, {"ids.png": np.full((33, 47), 7, np.uint8)})
    pairs = {f"frame {index}": (tmp_path / f"{index}.png", tmp_path / "ids.png") for index in range(5)}
    whole = LabelledFiles(pairs, MAP)
    part = whole.subset([3, 1])
    assert (len(whole), len(part)) == (5, 2)
    assert (list(whole.names), list(part.names)) == (list(pairs), ["frame 3", "frame 1"])
    assert list(part.pairs) == [whole.pairs[3], whole.pairs[1]]
    np.testing.assert_array_equal(part[0][0], frames[3])
    np.testing.assert_array_equal(part[1][0], frames[1])
    np.testing.assert_array_equal(part[1][1], np.full((33, 47), 1))
    assert len(whole.subset([])) == 0


def test_frames_are_iterated_once_each(opened, noise, labels):
    assert len(list(opened(noise(), labels))) == 1


@pytest.mark.parametrize("strange", [[8], [0, 255], [5, 6, 8]], ids=str)
def test_strange_ids_are_named(opened, noise, labels, strange):
    labels[0, : len(strange)] = strange
    data = opened(noise(), labels)
    with pytest.raises(DataError) as error:
        data[0]
    message = f"ids.png: label ids {strange} are neither classes nor void; ids are 4, 7, 9, 200"
    assert str(error.value).endswith(message)


def test_of_many_strange_ids_the_first_are_named(opened, noise, labels):
    labels[0, :26] = range(100, 126)
    data = opened(noise(), labels)
    listed = ", ".join(map(str, range(100, 110)))
    with pytest.raises(DataError, match=rf"label ids \[{listed}\] and 16 more are neither"):
        data[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((33, 46), np.uint8), r"ids.png: labels of 33x46 pixels, wanted 33x47 as the frame$"),
        (np.zeros((47, 33), np.uint8), r"ids.png: labels of 47x33 pixels, wanted 33x47 as the frame$"),
        (np.zeros((33, 47), np.uint16), r"ids.png: labels of 16 bits a pixel; save the class ids as an 8-bit PNG"),
        (np.zeros((33, 47, 3), np.uint8), r"ids.png: labels in RGB; save the class ids, not their colours"),
        (np.zeros((33, 47, 4), np.uint8), r"ids.png: labels in RGBA; save the class ids, not their colours"),
        (grey_png(np.zeros((33, 47), int), 1), "ids.png: labels of 1 bits a pixel; save the class ids as an 8-bit PNG"),
        (grey_png(np.zeros((33, 47), int), 4), "ids.png: labels of 4 bits a pixel"),
    ],
    ids=["width", "turned", "16_bit", "colour", "alpha", "1_bit", "4_bit"],
)
def test_labels_of_another_kind(opened, noise, wrong, message):
    data = opened(noise(), wrong)
    with pytest.raises(DataError, match=message):
        data[0]


def test_grey_png_writes_what_opencv_reads():
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    read = cv2.imdecode(np.frombuffer(grey_png(ids, 8), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read, ids)


@pytest.mark.parametrize("name", ["a.png", "ids.png"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: b"no picture", "not an image|labels are PNG, this is no image"),
        (lambda whole: b"", "the file is empty"),
        (lambda whole: whole[: len(whole) // 2], r"damaged \("),
    ],
    ids=["text", "empty", "truncated"],
)
def test_unreadable_files_are_named(tmp_path, opened, noise, labels, name, damage, message):
    data = opened(noise(), labels)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(DataError, match=f"{name}: ({message})"):
        data[0]


@pytest.mark.parametrize("name", ["a.png", "ids.png"])
def test_a_file_that_is_gone(tmp_path, opened, noise, labels, name):
    data = opened(noise(), labels)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: cannot be read \(No such file"):
        data[0]
