"""ADE20K: the tree of the scene parsing benchmark, whose label 0 is no class."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets import ADE20KData
from errseg_rt.errors import DataError


@pytest.fixture
def add(tmp_path, write, noise):
    """Writes one frame with its labels into a tree of ADE20K; gives its ids."""

    def add(name: str, split: str = "validation", frame=None):
        ids = noise(0, 151)
        write(tmp_path / "images" / split, {f"{name}.jpg": noise() if frame is None else frame})
        write(tmp_path / "annotations" / split, {f"{name}.png": ids})
        return ids

    return add


def test_labels_are_shifted_and_0_is_ignored(tmp_path, add):
    ids = add("ADE_val_00000001")
    ids[0, :2] = (0, 150)
    cv2.imwrite(str(tmp_path / "annotations/validation/ADE_val_00000001.png"), ids)
    labels = ADE20KData(tmp_path)[0][1]
    assert (labels[0, 0], labels[0, 1]) == (IGNORE, 149)
    np.testing.assert_array_equal(labels, np.where(ids == 0, IGNORE, ids.astype(int) - 1))


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["ADE_train_1", "ADE_train_2"]),
        ("training", ["ADE_train_1", "ADE_train_2"]),
        ("val", ["ADE_val_1"]),
        ("validation", ["ADE_val_1"]),
    ],
)
def test_splits(tmp_path, add, split, names):
    for name in ("ADE_train_2", "ADE_train_1"):
        add(name, "training")
    add("ADE_val_1")
    assert list(ADE20KData(tmp_path, split).names) == names
    assert list(ADE20KData(tmp_path).names) == ["ADE_val_1"]


def test_frames_are_read_also_where_they_are_grey(tmp_path, add):
    smooth = np.linspace(0, 255, 33 * 47).astype(np.uint8).reshape(33, 47)
    add("a", frame=smooth)
    frame, labels = ADE20KData(tmp_path)[0]
    assert (frame.shape, labels.shape) == ((33, 47, 3), (33, 47))
    assert np.abs(frame.astype(int) - smooth[..., None]).mean() < 4  # JPEG


@pytest.mark.parametrize("strange", [151, 255])
def test_ids_that_are_none(tmp_path, add, strange):
    """255 says that the labels were shifted already."""
    ids = add("a")
    ids[3, 4] = strange
    cv2.imwrite(str(tmp_path / "annotations/validation/a.png"), ids)
    message = rf"a\.png: label ids \[{strange}\] are neither .* ADE20K are 1\.\.150, and 0 for other"
    with pytest.raises(DataError, match=message):
        ADE20KData(tmp_path)[0]


def test_frames_without_labels_and_splits_that_are_not_there(tmp_path, add):
    add("a", "training")
    with pytest.raises(DataError, match=r"images: no split 'validation'; it has training"):
        ADE20KData(tmp_path)
    with pytest.raises(DataError, match=r"images: no split 'test'; it has training"):
        ADE20KData(tmp_path, "test")
    (tmp_path / "annotations/training/a.png").unlink()
    with pytest.raises(DataError, match=r"annotations/training: no \.png for 1 of the 1 images, first a\.jpg"):
        ADE20KData(tmp_path, "train")
    (tmp_path / "images/training/a.jpg").unlink()
    with pytest.raises(DataError, match=r"images/training: holds no image"):
        ADE20KData(tmp_path, "train")
