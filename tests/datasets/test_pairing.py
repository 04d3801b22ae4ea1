"""Images and labels pair by name, and nothing is left over unseen."""

from __future__ import annotations

import pytest

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
    with pytest.raises(DataError, match=r"images: holds no image \(\.bmp, "):
        pair_files(images, labels)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (["a.png", "b.jpg", "c.png"], ["a.png"], r"labels: no \.png for 2 of the 3 images, first b\.jpg"),
        (["a.png"], [], r"labels: no \.png for 1 of the 1 images, first a\.png"),
        (["a.png"], ["a.jpg"], r"labels: no \.png for 1 of the 1 images"),
        (["a.png", "x/b.png"], ["a.png", "y/b.png"], r"labels: no \.png for 1 of the 2 images, first b\.png"),
        (["a.png"], ["a.png", "b.png"], r"images: no image for 1 of the 2 labels, first b\.png"),
        (["a.png", "a.jpg"], ["a.png"], r"a\.png: has the name of a\.jpg; rename one of them"),
    ],
    ids=["some", "no_labels", "jpeg_labels", "other_folder", "labels_alone", "same_name"],
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
