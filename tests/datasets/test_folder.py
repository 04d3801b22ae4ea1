"""Plain folders: what they must hold, and which ids are classes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets import FolderData
from errseg_rt.errors import DataError


def test_folder_gives_its_frames_in_order(folder):
    root, frames, labels = folder
    found = FolderData(root, 11)
    assert len(found) == 4
    assert list(found.names) == ["f000", "f001", "f002", "f003"]
    for index in (2, 0, 3, 1):
        np.testing.assert_array_equal(found[index][0], frames[index])
        np.testing.assert_array_equal(found[index][1], labels[index])
        assert found[index][1].dtype == np.uint8


def test_subset_keeps_its_order(folder):
    root, frames, _ = folder
    whole = FolderData(root, 11)
    part = whole.subset([3, 1])
    assert (len(part), len(whole)) == (2, 4)
    assert list(part.names) == ["f003", "f001"]
    np.testing.assert_array_equal(part[0][0], frames[3])
    np.testing.assert_array_equal(part[1][0], frames[1])


def test_void_ids_become_ignored(folder):
    root, _, labels = folder
    found = FolderData(root, 8, void=(8, 9, 10))[0][1]
    np.testing.assert_array_equal(found, np.where(labels[0] < 8, labels[0], IGNORE))


def test_255_is_always_void(folder):
    root, _, labels = folder
    labels[0][0, :5] = IGNORE
    cv2.imwrite(str(root / "labels/f000.png"), labels[0])
    np.testing.assert_array_equal(FolderData(root, 11)[0][1], labels[0])


def test_unknown_ids_are_named(folder):
    root, _, labels = folder
    message = r"f000.png: label ids \[9, 10\] are neither classes nor void; classes are 0..7, void \[8, 255\]"
    with pytest.raises(DataError, match=message):
        FolderData(root, 8, void=(8,))[0]
    assert set(np.unique(labels[0])) == set(range(11))


@pytest.mark.parametrize("void", [(7,), (8, 0), (256,), (-1,)], ids=str)
def test_void_ids_that_are_classes_or_no_ids(folder, void):
    with pytest.raises(DataError, match=rf"void ids lie outside the 8 classes, in 8\.\.255, got \[{void[-1]}\]"):
        FolderData(folder[0], 8, void)


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_missing_folder(folder, missing):
    root = folder[0]
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(DataError, match=f"{missing}: no such folder; labelled frames lie in images/ and labels/"):
        FolderData(root, 11)


def test_empty_folder(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "images/readme.txt").write_text("none")
    with pytest.raises(DataError, match="images: holds no image"):
        FolderData(tmp_path, 11)


def test_frames_without_labels_are_counted(folder):
    root = folder[0]
    (root / "labels/f001.png").unlink()
    (root / "labels/f003.png").unlink()
    with pytest.raises(DataError, match=r"no .png for 2 of the 4 images, first f001.png"):
        FolderData(root, 11)


def test_a_bad_file_spoils_its_own_frame_alone(folder):
    root, frames, _ = folder
    (root / "labels/f002.png").write_bytes(b"no picture")
    found = FolderData(root, 11)
    np.testing.assert_array_equal(found[1][0], frames[1])
    with pytest.raises(DataError, match=r"labels/f002\.png: labels are PNG, this is no image"):
        found[2]


def test_camvid(camvid_val):
    """The ids of CamVid's frames: 11 classes, and 11 for void."""
    data = FolderData(camvid_val, 11, void=(11,))
    assert len(data) == len(data.names) == 101
    frame, labels = data[50]
    assert (frame.shape, labels.shape) == ((360, 480, 3), (360, 480))
    raw = cv2.imread(str(camvid_val / "labels" / f"{data.names[50]}.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(labels, np.where(raw == 11, IGNORE, raw))
    assert {3, IGNORE} <= set(np.unique(labels))
