"""Frames that look alike stand in one group, and a split never cuts a group."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from errseg_rt.datasets import FolderData
from errseg_rt.errors import DataError
from errseg_rt.training.alike import alike_groups, split_groups
from errseg_rt.training.inputs import open_splits
from errseg_rt.training.recipe_files import parse_recipe
from tests.training.discs import Discs, write
from tests.training.test_localization import RECIPE


class Plates:
    """Five plates of twelve frames, dealt to the frames in turn: each has a light of its own, and some noise."""

    plates, each = 5, 12

    def __init__(self, *, coloured=False):
        rng = np.random.default_rng(0)
        self.names = [f"f{index:02d}" for index in range(self.plates * self.each)]
        self._frames = []
        for index in range(len(self)):
            plate = index % self.plates
            frame = np.repeat(rng.normal(20 + 40 * plate, 4, (24, 32, 1)), 3, axis=2)
            frame[..., 0] += 10 * (coloured and index % 2)
            self._frames.append(np.clip(frame, 0, 255).astype(np.uint8))

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return self._frames[index], np.zeros((24, 32), np.uint8)


def test_groups_hold_frames_of_one_plate():
    frames = Plates()
    groups = alike_groups(frames)
    assert sorted(index for group in groups for index in group) == list(range(len(frames)))
    assert len(groups) == len(frames) / 6
    assert all(len({index % Plates.plates for index in group}) == 1 for group in groups)
    plate_of = [group[0] % Plates.plates for group in groups]
    assert sum(one != other for one, other in pairwise(plate_of)) == Plates.plates - 1


def test_grey_and_coloured_frames_and_other_sizes_never_share_a_group():
    groups = alike_groups(Plates(coloured=True))
    assert all(len({index % 2 for index in group}) == 1 for group in groups)
    small, large = Discs(1), Discs(1, size=(32, 48))

    class Both:
        names = ("a", "b")

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return (small, large)[index][0]

    assert sorted(alike_groups(Both())) == [[0], [1]]


def test_no_frames_make_no_groups():
    assert alike_groups(Discs(0)) == []
    assert split_groups([], 0.2) == ([], [])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5])
def test_a_split_takes_whole_groups_and_no_more_than_its_share(share):
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 12, 40)
    numbers = iter(range(sizes.sum()))
    groups = [[next(numbers) for _ in range(size)] for size in sizes]
    learned, held = split_groups(groups, share)
    assert sorted(learned + held) == list(range(sizes.sum()))
    assert all(set(group) <= set(learned) or set(group) <= set(held) for group in groups)
    assert share * sizes.sum() - 12 < len(held) <= share * sizes.sum()


@pytest.fixture
def recipe():
    return parse_recipe("discs", {**RECIPE, "data": {**RECIPE["data"], "validation": 0.25}})


def test_a_folder_without_splits_is_split_by_groups(tmp_path, recipe):
    write(tmp_path, Discs(40, size=(40, 40)))
    splits = open_splits(tmp_path, recipe)
    assert len(splits.train) + len(splits.val) == 40
    assert not {*splits.train.names} & {*splits.val.names}
    assert 0 < len(splits.val) <= 10
    again = open_splits(tmp_path, recipe)
    assert (again.train.names, again.val.names) == (splits.train.names, splits.val.names)


def test_a_folder_with_splits_keeps_them(tmp_path, recipe):
    write(tmp_path / "train", Discs(20, size=(24, 24)))
    write(tmp_path / "val", Discs(3, size=(24, 24)))
    splits = open_splits(tmp_path, recipe)
    assert (len(splits.train), len(splits.val)) == (20, 3)


def test_data_without_instance_maps_is_refused(tmp_path, recipe, write_folder):
    write_folder(tmp_path / "train", 4, classes=2)
    assert len(FolderData(tmp_path / "train", 2)) == 4
    with pytest.raises(DataError, match="no instance maps, of which boxes are learned; they lie in instances/"):
        open_splits(tmp_path, recipe)
