"""Trees as VOC: labels for some of the images, lists of splits, and the map that an export brings along."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.bundle.classes import CAMVID, IGNORE
from errseg_rt.datasets import LabelMap, open_dataset, open_labelled
from errseg_rt.errors import DataError


@pytest.fixture
def tree(tmp_path, write, noise):
    """Five images, labels for three of them in ids 0..10, and lists of two splits."""
    ids = {f"{index}": noise(0, 11) for index in (3, 1, 2)}
    write(tmp_path / "JPEGImages", {f"{index}.jpg": noise() for index in range(5)})
    write(tmp_path / "SegmentationClass", {f"{name}.png": labels for name, labels in ids.items()})
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("3\n1\n\n3\n")
    (lists / "val.txt").write_text("2 1\n4\n")
    return tmp_path, ids


def test_every_frame_with_labels(tree) -> None:
    root, ids = tree
    data = open_dataset(root, CAMVID)
    assert list(data.names) == ["1", "2", "3"]
    for index, name in enumerate(data.names):
        frame, labels = data[index]
        assert frame.shape == (33, 47, 3)
        np.testing.assert_array_equal(labels, ids[name])


def test_a_split_is_its_list(tree) -> None:
    root, _ = tree
    assert list(open_dataset(root, CAMVID, split="train").names) == ["3", "1"]
    with pytest.raises(DataError, match=r"SegmentationClass: no \.png for 1 of the 2 frames of val, as 4"):
        open_dataset(root, CAMVID, split="val")
    with pytest.raises(DataError, match=r"test\.txt: no split 'test' that can be read; it has train, val"):
        open_dataset(root, CAMVID, split="test")
    (root / "ImageSets/Segmentation/empty.txt").touch()
    with pytest.raises(DataError, match="the split names no frame"):
        open_dataset(root, CAMVID, split="empty")


def test_the_maps_own_file_is_taken_where_none_is_given(tree) -> None:
    root, ids = tree
    names = ["background", *CAMVID.names[:10]]
    (root / "labelmap.txt").write_text("".join(f"{name}:{index},0,0::\n" for index, name in enumerate(names)))
    wanted = np.where(ids["1"] == 0, IGNORE, ids["1"].astype(int) - 1)
    np.testing.assert_array_equal(open_labelled(root, CAMVID)[0][1], wanted)
    np.testing.assert_array_equal(open_labelled(root, CAMVID, label_map=LabelMap.of(11))[0][1], ids["1"])
    np.testing.assert_array_equal(open_labelled(root, CAMVID, first_id=0)[0][1], ids["1"])


def test_labels_without_an_image(tree, write, noise) -> None:
    root, _ = tree
    write(root / "SegmentationClass", {"9.png": noise(0, 11)})
    with pytest.raises(DataError, match=r"JPEGImages: no image for 1 of the 4 labels, first 9\.png"):
        open_dataset(root, CAMVID)


def test_no_labels_at_all(tree) -> None:
    root, ids = tree
    for name in ids:
        (root / "SegmentationClass" / f"{name}.png").unlink()
    with pytest.raises(DataError, match=r"SegmentationClass: holds no \.png"):
        open_dataset(root, CAMVID)
