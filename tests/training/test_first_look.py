"""One look at every frame before the first step: all that is wrong with them is told at once, by name."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets import FolderData
from errseg_rt.errors import DataError
from errseg_rt.training.first_look import check_labelled, check_usable, look_at


def bare(items, title, total):
    return items


def look(root):
    found = look_at(FolderData(root, 11, void=[11]), "data, train", bare)
    check_usable(found)
    return found.sized, found.seen


def write(root, name, frame, labels):
    for kind, picture in (("images", frame), ("labels", labels)):
        (root / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / kind / f"{name}.png"), picture)


@pytest.fixture
def mixed(tmp_path):
    """Frames of three sizes, one of them all void."""
    rng = np.random.default_rng(0)
    for name, size in {"a": (40, 56), "b": (56, 40), "c": (40, 56), "d": (33, 35)}.items():
        frame, labels = rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 11, size, np.uint8)
        write(tmp_path, name, frame, np.full(size, 11, np.uint8) if name == "c" else labels)
    return tmp_path


def test_frames_come_with_their_sizes_and_as_they_are(mixed):
    frames, seen = look(mixed)
    wanted = FolderData(mixed, 11, void=[11])
    assert frames.names == ["a", "b", "c", "d"]
    assert frames.sizes == [each.size for each in seen] == [(40, 56), (56, 40), (40, 56), (33, 35)]
    assert [each.is_labelled for each in seen] == [True, True, False, True]
    for index in range(4):
        for found, own in zip(frames[index], wanted[index], strict=True):
            np.testing.assert_array_equal(found, own)


def test_digests_tell_pictures_and_labels_apart(mixed):
    _, before = look(mixed)
    path = mixed / "labels" / "b.png"
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    labels[3, 4] = (labels[3, 4] + 1) % 11
    cv2.imwrite(str(path), labels)
    _, after = look(mixed)
    same = [
        [a == b for a, b in zip(old.digests, new.digests, strict=True)] for old, new in zip(before, after, strict=True)
    ]
    assert same == [[True, True], [True, False], [True, True], [True, True]]
    assert len({digest for each in after for digest in each.digests}) == 8


def test_pixels_count_not_bytes(mixed):
    _, before = look(mixed)
    for path in mixed.rglob("*.png"):
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        content = path.read_bytes()
        cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        assert path.read_bytes() != content
    assert look(mixed)[1] == before


def test_a_picture_that_is_turned_is_another(tmp_path):
    frame, labels = np.zeros((40, 56, 3), np.uint8), np.zeros((40, 56), np.uint8)
    write(tmp_path / "a", "x", frame, labels)
    write(tmp_path / "b", "x", frame.transpose(1, 0, 2), labels.T)
    (a,), (b,) = (look(tmp_path / name)[1] for name in "ab")
    assert a.digests[0] != b.digests[0]
    assert a.digests[1] != b.digests[1]


def test_all_bad_files_are_named_at_once(mixed):
    (mixed / "images" / "a.png").write_bytes(b"")
    write(mixed, "b", np.zeros((40, 56, 3), np.uint8), np.zeros((56, 40), np.uint8))
    write(mixed, "d", np.zeros((33, 35, 3), np.uint8), np.full((33, 35), 77, np.uint8))
    with pytest.raises(DataError) as caught:
        look(mixed)
    message = str(caught.value)
    assert message.startswith("3 of the 4 frames of data, train cannot be used: ")
    assert [part in message for part in ("images/a.png: ", "labels/b.png: ", "labels/d.png: label ids [77]")] == [
        True
    ] * 3
    assert "more" not in message.rsplit("d.png", 1)[1].replace("and 0 more", "")


@pytest.mark.parametrize(("bad", "more"), [(10, None), (11, 1), (23, 13)])
def test_of_many_bad_files_ten_are_named(tmp_path, bad, more):
    for index in range(bad + 2):
        write(
            tmp_path,
            f"f{index:02d}",
            np.zeros((33, 35, 3), np.uint8),
            np.full((33, 35), 77 if index < bad else 0, np.uint8),
        )
    with pytest.raises(DataError) as caught:
        look(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{bad} of the {bad + 2} frames of data, train cannot be used: ")
    assert message.count(".png: ") == 10
    assert message.endswith(f"; and {more} more") is (more is not None)


def test_a_file_that_goes_away_meanwhile_is_named(mixed):
    frames = FolderData(mixed, 11, void=[11])
    (mixed / "labels" / "d.png").unlink()
    with pytest.raises(DataError, match=r"1 of the 4 frames of x cannot be used: .*d\.png"):
        check_usable(look_at(frames, "x", bare))


def test_frames_that_do_not_lie_in_files_are_held_to_the_same():
    class Odd:
        names = ("only",)

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8)

    with pytest.raises(DataError, match=r"only: the frame is \(4, 5\), its labels \(5, 4\)"):
        check_usable(look_at(Odd(), "x", bare))


def test_bad_files_of_all_splits_are_named_together(mixed):
    (mixed / "images" / "a.png").write_bytes(b"")
    looks = [look_at(FolderData(mixed, 11, void=[11]), what, bare) for what in ("train", "val")]
    with pytest.raises(
        DataError, match=r"^1 of the 4 frames of train and 1 of the 4 frames of val cannot be used: .*; .*a"
    ):
        check_usable(*looks)


def test_the_look_is_shown_as_it_goes(mixed):
    shown = []

    def progress(items, title, total):
        shown.append((title, total))
        for item in items:
            shown.append(threading.current_thread() is threading.main_thread())
            yield item

    look_at(FolderData(mixed, 11, void=[11]), "data, train", progress)
    assert shown == [("look at data, train", 4), True, True, True, True]
    shown.clear()
    look_at(FolderData(mixed, 11, void=[11]).subset([]), "data, val", progress)
    assert shown == []


def test_labels_that_are_all_void_are_nothing_to_go_by(mixed):
    _, seen = look(mixed)
    check_labelled(seen, "frames to learn from")
    check_labelled([], "frames to learn from")
    with pytest.raises(DataError, match="frames to learn from: all labels are void"):
        check_labelled([seen[2]], "frames to learn from")
    assert IGNORE not in range(11)
