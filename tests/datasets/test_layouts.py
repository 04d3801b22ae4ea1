"""A data set is told by its tree; a wrong tree, split or class set is named, and so are ids that mean "no class"."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.classes import ADE20K, CAMVID, CITYSCAPES, IGNORE
from errseg_rt.datasets import ADE20KData, CityscapesData, FolderData, open_dataset, open_labelled
from errseg_rt.errors import DataError

CITY = {"leftImg8bit/{}/ulm/ulm_0_leftImg8bit.png", "gtFine/{}/ulm/ulm_0_gtFine_labelIds.png"}
ADE = {"images/{}/a.jpg", "annotations/{}/a.png"}
PLAIN = {"images/a.png", "labels/a.png"}
SPLITS = {"{}/images/a.png", "{}/labels/a.png"}
INSIDE = {"images/{}/a.png", "labels/{}/a.png"}
IDS = np.array([[0, 10, 11, 255, 30]], np.uint8)  # in classes of CamVid


@pytest.fixture
def tree(tmp_path, write, noise):
    """Writes the files of a layout, for each split that is named; labels hold ids 1 and 2."""

    def tree(layout, *splits):
        for name in (name.format(split) for name in layout for split in splits or ("",)):
            is_image = name.endswith(".jpg") or "images/" in name or "leftImg8bit/" in name
            write(tmp_path, {name: noise() if is_image else 1 + noise(0, 2)})
        return tmp_path

    return tree


@pytest.mark.parametrize(
    ("layout", "splits", "classes", "split", "kind", "folder"),
    [
        (PLAIN, (), CAMVID, None, FolderData, "images"),
        (SPLITS, ("train", "val"), CAMVID, "val", FolderData, "val/images"),
        (SPLITS, ("train", "val"), CAMVID, "train", FolderData, "train/images"),
        (INSIDE, ("train", "val"), CAMVID, "val", FolderData, "images/val"),
        (INSIDE, ("train",), CAMVID, None, FolderData, "images/train"),
        (CITY, ("train", "val"), CITYSCAPES, None, CityscapesData, "leftImg8bit/val/ulm"),
        (CITY, ("train", "val"), CITYSCAPES, "train", CityscapesData, "leftImg8bit/train/ulm"),
        (ADE, ("training", "validation"), ADE20K, None, ADE20KData, "images/validation"),
        (ADE, ("training", "validation"), ADE20K, "train", ADE20KData, "images/training"),
        (PLAIN | {"annotations/a.png"}, (), CAMVID, None, FolderData, "images"),
        (PLAIN | SPLITS, ("val",), CAMVID, None, FolderData, "images"),
        (PLAIN | SPLITS, ("val",), CAMVID, "val", FolderData, "val/images"),
    ],
    ids=[
        "plain", "plain_val", "plain_train", "inside", "inside_all", "cityscapes", "cityscapes_train", "ade20k",
        "ade20k_train", "plain_with_annotations", "plain_beside_splits", "split_beside_plain",
    ],
)  # fmt: skip
def test_layouts_are_told_by_their_trees(tree, layout, splits, classes, split, kind, folder):
    root = tree(layout, *splits)
    data = open_dataset(root, classes, split=split)
    assert type(data) is kind
    assert [image.parent for image, _ in data.pairs] == [root / folder]
    assert len(data.names) == len(data) == 1
    frame, labels = data[0]
    assert (frame.shape, labels.shape) == ((33, 47, 3), (33, 47))
    assert set(np.unique(labels)) == {FolderData: {1, 2}, CityscapesData: {IGNORE}, ADE20KData: {0, 1}}[kind]


def test_void_ids_are_for_plain_folders(tree):
    data = open_dataset(tree(PLAIN), CAMVID, void=(200, 11))
    assert set(np.unique(data[0][1])) == {1, 2}
    with pytest.raises(DataError, match=r"void ids lie outside the 11 classes, in 11\.\.255, got \[3\]"):
        open_dataset(tree(PLAIN), CAMVID, void=(11, 3))


@pytest.mark.parametrize(("layout", "split", "own"), [(CITY, "val", CITYSCAPES), (ADE, "validation", ADE20K)])
def test_void_ids_of_other_layouts_are_their_own(tree, layout, split, own):
    with pytest.raises(DataError, match=r"(Cityscapes|ADE20K, which) has void ids of its own; leave out \[11\]"):
        open_dataset(tree(layout, split), own, void=[11])


@pytest.mark.parametrize(
    ("layout", "split", "classes", "message"),
    [
        (CITY, "val", CAMVID, r"Cityscapes has 19 classes, but 11 are wanted \(sky, \.\.\.\)"),
        (CITY, "val", ADE20K, r"Cityscapes has 19 classes, but 150 are wanted \(wall, \.\.\.\)"),
        (
            ADE,
            "validation",
            CITYSCAPES,
            r"ADE20K, which has 150 classes, but 19 are .*; labels of other data lie in labels/",
        ),
        (
            {"images/{}/a.jpg", "annotations/{}/a.png"},
            "train2017",
            CAMVID,
            r"but 11 are wanted \(sky, .* lie in labels/",
        ),
        ({"images/a.jpg", "annotations/a.png"}, "", CAMVID, r"images/ and annotations/ are taken for ADE20K"),
    ],
)
def test_classes_of_another_data_set(tree, layout, split, classes, message):
    with pytest.raises(DataError, match=message):
        open_dataset(tree(layout, split), classes)


LOOKED_FOR = r"no data set; looked for images/ and labels/, .*Cityscapes.*ADE20K\); found "


@pytest.mark.parametrize(
    ("layout", "splits", "split", "message"),
    [
        ({"a.png"}, (), None, LOOKED_FOR + "no folder$"),
        ({"images/a.png", "masks/a.png"}, (), None, LOOKED_FOR + "images/, masks/$"),
        ({"images/a.png", "masks/a.png"}, (), "val", LOOKED_FOR + "images/, masks/$"),
        ({f"drive{number:02d}/a.png" for number in range(12)}, (), None, LOOKED_FOR + "drive00/, .*drive09/, ...$"),
        (SPLITS, ("train", "val"), None, r"holds splits: choose one of train, val$"),
        (SPLITS, ("train", "val"), "test", r"no split 'test': choose one of train, val$"),
        (INSIDE, ("train", "val"), "test", r"no split 'test': choose one of train, val$"),
        (SPLITS | {"test/images/a.png"}, ("train",), "test", r"test/labels: no such folder; labelled frames lie in"),
        (PLAIN, (), "val", r"no split 'val': it holds .* without splits; leave the split out, or move both into val/$"),
        (CITY, ("train", "test"), None, r"leftImg8bit: no split 'val'; it has test, train; Cityscapes has"),
        (ADE, ("training",), "val", r"images: no split 'validation'; it has training; ADE20K has"),
        ({"leftImg8bit/val/ulm/a_leftImg8bit.png"}, (), None, r"gtFine: no such folder; Cityscapes has"),
        ({"annotations/validation/a.png"}, (), None, r"images: no such folder; ADE20K has"),
        ({"images/a.png", "annotations/a.png"}, (), None, r"it has none; .* lie in labels/ beside images/$"),
    ],
    ids=[
        "files", "masks", "masks_split", "many_folders", "which_split", "no_split", "no_split_inside", "half_a_split",
        "no_splits", "cityscapes_split", "ade20k_split", "half_cityscapes", "half_ade20k", "flat_ade20k",
    ],
)  # fmt: skip
def test_trees_that_are_none(tree, layout, splits, split, message):
    root = tree(layout, *splits)
    layout_classes = CITYSCAPES if (root / "leftImg8bit").exists() else ADE20K
    with pytest.raises(DataError, match=message) as error:
        open_dataset(root, layout_classes, split=split)
    assert str(error.value).startswith(str(root))


def test_an_empty_split(tree):
    root = tree(SPLITS, "val")
    (root / "val/images/a.png").unlink()
    with pytest.raises(DataError, match=r"val/images: holds no image"):
        open_dataset(root, CAMVID, split="val")


@pytest.mark.parametrize("name", ["none", "a.png"])
def test_no_folder(tmp_path, name):
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=f"{name}: no such folder"):
        open_dataset(tmp_path / name, CAMVID)


def labelled(folder: Path, ids: np.ndarray) -> Path:
    for name, picture in (("images", np.zeros((*ids.shape, 3), np.uint8)), ("labels", ids)):
        (folder / name).mkdir(parents=True)
        cv2.imwrite(str(folder / name / "a.png"), picture)
    return folder


def test_the_id_after_the_last_class_is_void(tmp_path: Path) -> None:
    _, labels = open_labelled(labelled(tmp_path, IDS[:, :4]), CAMVID)[0]
    assert labels.tolist() == [[0, 10, IGNORE, IGNORE]]


def test_other_ids_are_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"label ids \[30\] are neither classes nor void"):
        open_labelled(labelled(tmp_path, IDS), CAMVID)[0]


def test_void_ids_as_given(tmp_path: Path) -> None:
    _, labels = open_labelled(labelled(tmp_path, IDS), CAMVID, void=[11, 30])[0]
    assert labels.tolist() == [[0, 10, IGNORE, IGNORE, IGNORE]]


def test_given_ids_take_the_place_of_the_usual_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"label ids \[11\] are neither"):
        open_labelled(labelled(tmp_path, IDS), CAMVID, void=[30])[0]


def test_a_split_of_a_folder(tmp_path: Path) -> None:
    labelled(tmp_path / "train", IDS[:, :1])
    labelled(tmp_path / "test", IDS[:, 1:3])
    _, labels = open_labelled(tmp_path, CAMVID, "test")[0]
    assert labels.tolist() == [[10, IGNORE]]


def test_other_layouts_have_void_ids_of_their_own(tmp_path: Path) -> None:
    for kind, end, picture in (
        ("leftImg8bit", "_leftImg8bit.png", np.zeros((1, 3, 3), np.uint8)),
        ("gtFine", "_gtFine_labelIds.png", np.array([[7, 33, 19]], np.uint8)),
    ):
        path = tmp_path / kind / "val" / "bonn" / f"bonn_000000_000001{end}"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), picture)
    _, labels = open_labelled(tmp_path, CITYSCAPES)[0]
    assert labels.tolist() == [[0, 18, 6]]


def test_a_root_may_be_text(tree) -> None:
    root = tree(PLAIN)
    assert open_dataset(str(root), CAMVID).names == open_labelled(str(root), CAMVID).names == ["a"]
