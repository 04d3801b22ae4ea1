"""Image files: which ones an input names, and reading them as frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.errors import DataError, FrameError
from errseg_rt.frames.images import SUFFIXES, Item, find_images, read_frame, read_truth

LIMIT = 2**24


@pytest.fixture
def picture() -> np.ndarray:
    """Smooth enough for JPEG, busy enough for files of some kilobytes."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    return cv2.resize(noise, (93, 71), interpolation=cv2.INTER_CUBIC)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names(items: list[Item]) -> list[str]:
    return [item.name for item in items]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_searched_through_and_through(here: Path) -> None:
    touch(here, "in/b.png", "in/a.JPG", "in/deep/er/c.tiff", "in/notes.txt", "in/d.png/e.webp")
    items = find_images(["in"])
    assert names(items) == ["a", "b", "d.png/e", "deep/er/c"]
    assert [item.path for item in items] == [
        Path("in") / name for name in ("a.JPG", "b.png", "d.png/e.webp", "deep/er/c.tiff")
    ]
    assert all(item.truth is None for item in items)


def test_every_suffix_counts(here: Path) -> None:
    touch(here, *(f"in/{number}{suffix}" for number, suffix in enumerate(SUFFIXES)))
    assert len(find_images(["in"])) == len(SUFFIXES)


def test_files_and_globs(here: Path) -> None:
    touch(here, "x/a.png", "x/b.jpg", "x/y/c.png", "odd.name")
    assert names(find_images(["odd.name"])) == ["odd"]
    assert names(find_images(["x/*.png"])) == ["a"]
    assert names(find_images(["x/**/*.png"])) == ["a", "c"]
    assert names(find_images(["x/?.*", "odd.name"])) == ["a", "b", "odd"]


def test_each_file_is_taken_once(here: Path) -> None:
    touch(here, "x/a.png", "x/b.png")
    assert names(find_images(["x/b.png", "x", "x/*.png", "./x/a.png"])) == ["b", "a"]


def test_names_differ_from_item_to_item(here: Path) -> None:
    touch(here, "x/a.png", "x/a.jpg", "y/a.png", "z/a.png")
    found = names(find_images(["x/a.png", "x/a.jpg", "y/a.png", "z/a.png"]))
    assert found == ["a", "a_jpg", "a_png", "a_2"]


def test_a_data_set_brings_its_labels(here: Path) -> None:
    touch(here, "set/images/a.jpg", "set/images/b.png", "set/labels/a.png", "set/labels/c.png")
    assert find_images(["set"]) == [
        Item(Path("set/images/a.jpg"), "a", Path("set/labels/a.png")),
        Item(Path("set/images/b.png"), "b", None),
    ]


def test_a_folder_of_labels_goes_before_that_of_the_data_set(here: Path) -> None:
    touch(here, "set/images/a.png", "set/labels/a.png", "other/a.png")
    assert find_images(["set"], Path("other"))[0].truth == Path("other/a.png")
    assert find_images(["set/images/a.png"], Path("other"))[0].truth == Path("other/a.png")
    assert find_images(["set/images/a.png"])[0].truth is None


def test_labels_lie_as_the_images_do(here: Path) -> None:
    touch(here, *(f"set/{kind}/{drive}/f.png" for kind in ("images", "labels") for drive in "xy"))
    assert [item.truth for item in find_images(["set"])] == [Path("set/labels/x/f.png"), Path("set/labels/y/f.png")]


def test_labels_of_other_images(here: Path) -> None:
    touch(here, "a.png", "labels/b.png")
    with pytest.raises(DataError, match=r"labels: holds no \.png named as one of the 1 images"):
        find_images(["a.png"], Path("labels"))


def test_results_are_not_found_but_may_be_named(here: Path) -> None:
    touch(here, "set/a.png", "set/out/a_labels.png")
    assert names(find_images(["set"], out=Path("set/out"))) == ["a"]
    assert names(find_images(["set/a.png"], out=Path())) == ["a"]
    assert names(find_images(["set/out/a_labels.png"], out=Path("set/out"))) == ["a_labels"]
    with pytest.raises(DataError, match="set: the results would lie among the images; give another --out"):
        find_images(["set"], out=Path("set"))


def test_a_jpeg_is_turned_as_its_exif_says(tmp_path: Path, picture) -> None:
    orientation = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # a quarter turn
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    segment = b"\xff\xe1" + (len(orientation) + 2).to_bytes(2, "big") + orientation
    (tmp_path / "a.jpg").write_bytes(data[:2] + segment + data[2:])
    plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read_frame(tmp_path / "a.jpg", LIMIT), cv2.rotate(plain, cv2.ROTATE_90_CLOCKWISE))


def test_a_jpeg_may_carry_more_after_its_end(tmp_path: Path, picture) -> None:
    (tmp_path / "a.jpg").write_bytes(cv2.imencode(".jpg", picture)[1].tobytes() + b"film\xff\xdamore")
    assert read_frame(tmp_path / "a.jpg", LIMIT).shape == picture.shape


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (["none.png"], None, "none.png: no such file or folder"),
        (["none*"], None, r"none\*: no such file or folder, and no file matches"),
        (["empty"], None, "empty: the folder holds no image"),
        (["a.png", "none.png"], None, "none.png"),
        (["a.png"], Path("nolabels"), "nolabels: no such folder of labels"),
        (["a.png"], Path("a.png"), "a.png: no such folder of labels"),
    ],
    ids=["file", "glob", "folder", "one_of_two", "labels", "labels_file"],
)
def test_an_input_that_names_nothing(here: Path, inputs, labels, message) -> None:
    touch(here, "a.png", "empty/readme.txt")
    with pytest.raises(DataError, match=message):
        find_images(inputs, labels)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp"])
def test_lossless_formats_give_their_pixels(tmp_path: Path, picture, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []  # above 100: lossless
    assert cv2.imwrite(str(path), picture, options)
    frame = read_frame(path, LIMIT)
    assert frame.dtype == np.uint8
    np.testing.assert_array_equal(frame, picture)


@pytest.mark.parametrize("progressive", [0, 1], ids=["baseline", "progressive"])
def test_a_jpeg_gives_about_its_pixels(tmp_path: Path, picture, progressive) -> None:
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    assert np.abs(read_frame(path, LIMIT).astype(int) - picture).mean() < 8


def test_the_name_need_not_tell_the_format(tmp_path: Path, picture) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    (tmp_path / "a.png").rename(tmp_path / "a.dat")
    np.testing.assert_array_equal(read_frame(tmp_path / "a.dat", LIMIT), picture)


def test_the_limit_is_inclusive(tmp_path: Path, picture) -> None:
    path, pixels = tmp_path / "a.png", picture.shape[0] * picture.shape[1]
    cv2.imwrite(str(path), picture)
    assert read_frame(path, pixels).shape == picture.shape
    with pytest.raises(FrameError, match=f"71x93 pixels are over the limit of {pixels - 1}"):
        read_frame(path, pixels - 1)


def write_labels(path: Path, labels: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), labels)
    return path


def test_truth_keeps_classes_and_voids_the_rest(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    truth = read_truth(write_labels(tmp_path / "a.png", labels), (8, 32), classes=11)
    np.testing.assert_array_equal(truth, np.where(labels < 11, labels, IGNORE))
    assert truth.dtype == np.uint8


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param(np.zeros((5, 7), np.uint16), "16-bit uint16; convert it to 8 bits", id="16_bit"),
        pytest.param(np.zeros((7, 5), np.uint8), r"wanted uint8 \(5, 7\) as the frame", id="size"),
        pytest.param(np.zeros((5, 7, 3), np.uint8), r"wanted uint8 \(5, 7\) as the frame", id="colour"),
    ],
)
def test_truth_of_another_kind(tmp_path: Path, labels, message) -> None:
    with pytest.raises(FrameError, match=message):
        read_truth(write_labels(tmp_path / "a.png", labels), (5, 7), classes=11)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truth_that_is_truncated(tmp_path: Path, share) -> None:
    labels = np.random.default_rng(0).integers(0, 11, (50, 70)).astype(np.uint8)
    path = write_labels(tmp_path / "a.png", labels)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(FrameError, match=r"a\.png"):
        read_truth(path, (50, 70), classes=11)
