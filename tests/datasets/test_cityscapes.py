"""Cityscapes: the official tree, and the official table from label ids to classes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.classes import CITYSCAPES, IGNORE
from errseg_rt.datasets import CityscapesData
from errseg_rt.errors import DataError

# The label ids that count, by name, as the data set's authors give them.
LABEL_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip


@pytest.fixture
def add(tmp_path, write, noise):
    """Writes one frame with its labels into a tree of Cityscapes; gives both."""

    def add(name: str, split: str = "val", top: int = 34):
        frame, ids = noise(), noise(0, top)
        city = name.partition("_")[0]
        write(tmp_path / "leftImg8bit" / split / city, {f"{name}_leftImg8bit.png": frame})
        write(
            tmp_path / "gtFine" / split / city,
            {f"{name}_gtFine_{kind}.png": ids for kind in ("labelIds", "labelTrainIds", "instanceIds", "color")},
        )
        return frame, ids

    return add


@pytest.fixture
def class_of():
    """Class of every label id, by the table above."""
    classes = np.full(256, IGNORE, np.uint8)
    for name, label in LABEL_IDS.items():
        classes[label] = CITYSCAPES.names.index(name)
    return classes


def test_every_label_id_has_its_class(tmp_path, add, class_of):
    _, ids = add("ulm_000000_000019")
    assert set(np.unique(ids)) == set(range(34))
    np.testing.assert_array_equal(CityscapesData(tmp_path)[0][1], class_of[ids])


def test_frames_come_by_city_and_name(tmp_path, add):
    names = ["ulm_000001_000019", "bonn_000000_000019", "ulm_000000_000020", "ulm_000000_000019"]
    frames = {name: add(name)[0] for name in names}
    add("jena_000000_000019", split="train")
    data = CityscapesData(tmp_path)
    wanted = ["bonn_000000_000019", "ulm_000000_000019", "ulm_000000_000020", "ulm_000001_000019"]
    assert list(data.names) == [f"{name.partition('_')[0]}/{name}" for name in wanted]
    for index, name in enumerate(wanted):
        np.testing.assert_array_equal(data[index][0], frames[name])
    assert list(CityscapesData(tmp_path, "train").names) == ["jena/jena_000000_000019"]


def test_ids_that_are_none(tmp_path, add, write):
    _, ids = add("ulm_000000_000019")
    ids[0, :2] = (34, 255)
    write(tmp_path / "gtFine/val/ulm", {"ulm_000000_000019_gtFine_labelIds.png": ids})
    message = r"ulm_000000_000019_gtFine_labelIds\.png: label ids \[34, 255\] are neither .* Cityscapes are 0\.\.33"
    with pytest.raises(DataError, match=message):
        CityscapesData(tmp_path)[0]


def test_a_frame_without_label_ids(tmp_path, add):
    for name in ("ulm_000000_000019", "ulm_000000_000020"):
        add(name)
    (tmp_path / "gtFine/val/ulm/ulm_000000_000020_gtFine_labelIds.png").unlink()
    message = r"gtFine/val: no _gtFine_labelIds\.png for 1 of the 2 images, first ulm_000000_000020_leftImg8bit\.png"
    with pytest.raises(DataError, match=message):
        CityscapesData(tmp_path)


def test_splits_that_are_not_there(tmp_path, add):
    add("ulm_000000_000019", "train")
    add("ulm_000000_000020", "trainextra")
    with pytest.raises(DataError, match=r"leftImg8bit: no split 'val'; it has train, trainextra"):
        CityscapesData(tmp_path)
    (tmp_path / "leftImg8bit/val/ulm").mkdir(parents=True)
    with pytest.raises(DataError, match=r"gtFine: no split 'val'; it has train, trainextra"):
        CityscapesData(tmp_path)
    (tmp_path / "gtFine/val").mkdir()
    with pytest.raises(DataError, match=r"leftImg8bit/val: holds no image \(_leftImg8bit\.png\)"):
        CityscapesData(tmp_path)


@pytest.mark.parametrize("missing", ["leftImg8bit", "gtFine"])
def test_half_of_the_tree_is_missing(tmp_path, add, missing):
    add("ulm_000000_000019")
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"{missing}: no such folder; Cityscapes has leftImg8bit/<split>/ and gtFine"):
        CityscapesData(tmp_path)


def test_real_frames(cityscapes, class_of):
    data = CityscapesData(cityscapes, "train")
    assert list(data.names) == [f"aachen/aachen_{number:06d}_000019" for number in range(4)]
    frame, labels = data[2]
    name = data.names[2]
    np.testing.assert_array_equal(frame, cv2.imread(str(cityscapes / f"leftImg8bit/train/{name}_leftImg8bit.png")))
    ids = cv2.imread(str(cityscapes / f"gtFine/train/{name}_gtFine_labelIds.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(labels, class_of[ids])
    common = ["road", "sidewalk", "building", "vegetation", "sky", "person", "car"]
    assert {CITYSCAPES.names.index(name) for name in common} < set(np.flatnonzero(np.bincount(labels.ravel())))
