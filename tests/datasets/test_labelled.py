"""Opening labelled frames for a bundle: which ids mean "no class"."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.classes import CAMVID, CITYSCAPES, IGNORE
from errseg_rt.datasets.labelled import open_labelled
from errseg_rt.errors import DataError

IDS = np.array([[0, 10, 11, 255, 30]], np.uint8)


def write(folder: Path, ids: np.ndarray) -> Path:
    for name, picture in (("images", np.zeros((*ids.shape, 3), np.uint8)), ("labels", ids)):
        (folder / name).mkdir(parents=True)
        cv2.imwrite(str(folder / name / "a.png"), picture)
    return folder


def test_the_id_after_the_last_class_is_void(tmp_path: Path) -> None:
    _, labels = open_labelled(write(tmp_path, IDS[:, :4]), CAMVID)[0]
    assert labels.tolist() == [[0, 10, IGNORE, IGNORE]]


def test_other_ids_are_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"label ids \[30\] are neither classes nor void"):
        open_labelled(write(tmp_path, IDS), CAMVID)[0]


def test_void_ids_as_given(tmp_path: Path) -> None:
    _, labels = open_labelled(write(tmp_path, IDS), CAMVID, void=[11, 30])[0]
    assert labels.tolist() == [[0, 10, IGNORE, IGNORE, IGNORE]]


def test_given_ids_take_the_place_of_the_usual_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"label ids \[11\] are neither"):
        open_labelled(write(tmp_path, IDS), CAMVID, void=[30])[0]


def test_a_split_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "train", IDS[:, :1])
    write(tmp_path / "test", IDS[:, 1:3])
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
