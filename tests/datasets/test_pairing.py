"""Images and labels pair by name, and nothing is left over unseen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from errseg_rt.datasets import LabelledFiles, LabelMap
from errseg_rt.datasets.pairing import check_split, pair_files
from errseg_rt.errors import DataError


@pytest.fixture
def touch(tmp_path):
    """Makes empty files below `images` and `labels`; gives both folders."""

    def touch(images, labels):
        for folder, names in (("images", images), ("labels", labels)):
            (tmp_path / folder).mkdir()
            for name in names:
                (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / folder / name).touch()
        return tmp_path / "images", tmp_path / "labels"

    return touch


def test_pairs_come_in_the_order_of_their_names(touch):
    images, labels = touch(["c.png", "a.JPG", "b.tif", "notes.txt"], ["b.png", "c.PNG", "a.png", "readme.md"])
    assert list(pair_files(images, labels).items()) == [
        ("a", (images / "a.JPG", labels / "a.png")),
        ("b", (images / "b.tif", labels / "b.png")),
        ("c", (images / "c.png", labels / "c.PNG")),
    ]


def test_folders_are_searched_through_and_through(touch):
    images, labels = touch(["y/f.png", "x/f.jpg", "f.v2.png"], ["x/f.png", "y/f.png", "f.v2.png"])
    found = pair_files(images, labels)
    assert list(found) == ["f.v2", "x/f", "y/f"]
    assert found["x/f"] == (images / "x/f.jpg", labels / "x/f.png")


def test_ends_of_names_are_left_out(touch):
    images, labels = touch(["a_left.png", "a_right.png"], ["a_ids.png", "a_color.png", "a_ids.json"])
    found = pair_files(images, labels, ("_left.png",), ("_ids.png",))
    assert found == {"a": (images / "a_left.png", labels / "a_ids.png")}


@pytest.mark.parametrize("images", [[], ["notes.txt"], ["a.png/more.txt"]], ids=["none", "text", "a_folder"])
def test_no_image(touch, images):
    images, labels = touch(images, ["a.png"])
    with pytest.raises(DataError, match=r"images: holds no image \(\.png, "):
        pair_files(images, labels)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (["a.png", "b.jpg", "c.png"], ["a.png"], r"labels: no \.png for 2 of the 3 images, first b\.jpg"),
        (["a.png"], [], r"labels: no \.png for 1 of the 1 images, first a\.png"),
        (["a.png"], ["a.jpg"], r"labels: no \.png for 1 of the 1 images"),
        (["a.png", "x/b.png"], ["a.png", "y/b.png"], r"labels: no \.png for 1 of the 2 images, first b\.png"),
        (["a.png"], ["a.png", "b.png"], r"images: no image for 1 of the 2 labels, first b\.png"),
        (["A.png"], ["a.png"], r"labels: no \.png for 1 of the 1 images, first A\.png; a\.png differs from it by case"),
        (["a.png", "a.jpg"], ["a.png"], r"a\.png: has the name of a\.jpg; rename one of them"),
    ],
    ids=["some", "no_labels", "jpeg_labels", "other_folder", "labels_alone", "case", "same_name"],
)
def test_files_that_do_not_pair(touch, images, labels, message):
    with pytest.raises(DataError, match=message):
        pair_files(*touch(images, labels))


def test_splits_are_listed(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"no split 'val'; it has none"):
        check_split(tmp_path, "val", "")
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    check_split(tmp_path, "train", "")
    for name in ("val", "", ".", "notes.txt"):
        with pytest.raises(DataError, match=rf"no split '{name}'; it has test, train; "):
            check_split(tmp_path, name, "")
    with pytest.raises(DataError, match=r"nothing: no such folder; it holds splits$"):
        check_split(tmp_path / "nothing", "val", "it holds splits")


def test_linked_folders_and_files_are_followed(touch, tmp_path):
    images, labels = touch(["x.png", "real/f.png"], ["x.png", "y.png", "real/f.png", "linked/f.png"])
    (images / "y.png").symlink_to(images / "x.png")
    (images / "linked").symlink_to(images / "real")
    assert list(pair_files(images, labels)) == ["linked/f", "real/f", "x", "y"]


def test_hidden_files_are_passed_over(touch):
    hidden = ["._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/._a.png", "@eaDir/a.png"]
    images, labels = touch(["a.png", *hidden], ["a.png"])
    assert list(pair_files(images, labels)) == ["a"]


@pytest.mark.parametrize("broken", ["images", "labels"])
def test_a_broken_link_is_a_frame_that_cannot_be_read(touch, broken):
    images, labels = touch(["a.png", "b.png"], ["a.png", "b.png"])
    path = (images if broken == "images" else labels) / "b.png"
    path.unlink()
    path.symlink_to("gone.png")
    data = LabelledFiles(pair_files(images, labels), LabelMap.of(2))
    assert list(data.names) == ["a", "b"]
    with pytest.raises(DataError, match=r"b\.png: cannot be read \(No such file"):
        read_labels_of(data, 1) if broken == "labels" else data[1]


def read_labels_of(data, index):
    """With an image that can be read."""
    image, label = data.pairs[index]
    cv2.imwrite(str(image), np.zeros((3, 4, 3), np.uint8))
    return LabelledFiles({"b": (image, label)}, LabelMap.of(2))[0]


def test_a_broken_link_to_a_folder_is_told(touch):
    images, labels = touch(["a.png"], ["a.png"])
    (images / "day1").symlink_to("/nowhere/day1")
    with pytest.raises(DataError, match=r"images/day1: a link that leads nowhere; mend or remove it"):
        pair_files(images, labels)


def test_names_pair_however_accents_are_written(touch):
    images, labels = touch(["caf\u00e9.png"], ["cafe\u0301.png"])
    assert list(pair_files(images, labels)) == ["caf\u00e9"]
