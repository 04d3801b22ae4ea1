"""Splits of drives: what is kept back, and the folds that see every frame once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.training.folds import folds, hold_out
from errseg_rt.training.recipe_learning import CrossFitConfig


@settings(deadline=None)
@given(frames=st.integers(25, 600), blocks=st.integers(1, 6), share=st.floats(0.01, 0.4), gap=st.integers(0, 3))
def test_hold_out_leaves_a_gap_and_takes_of_every_block(frames, blocks, share, gap):
    learned, held = hold_out(frames, blocks, share, gap)
    assert learned == sorted(set(learned))
    assert held == sorted(set(held))
    assert set(learned) | set(held) <= set(range(frames))
    apart = np.abs(np.subtract.outer(np.array(learned, int), held))
    assert apart.min(initial=frames) == (gap + 1 if learned else frames)
    edges = [round(frames * block / blocks) for block in range(blocks + 1)]
    for start, end in itertools.pairwise(edges):
        size = len([index for index in held if start <= index < end])
        assert size == min(max(1, round(frames / blocks * share)), end - start)
    # Only what is near to something kept back is wasted.
    near = {index for index in range(frames) if min(abs(index - h) for h in held) <= gap}
    assert set(learned) == set(range(frames)) - near


drives = st.lists(st.integers(1, 60), min_size=1, max_size=4)
configs = st.builds(
    CrossFitConfig, folds=st.integers(2, 5), blocks=st.integers(1, 4), gap=st.integers(0, 3), iterations=st.just(1)
)


def names_of(lengths):
    """Names of frames as CamVid has them: the drive, and the time in it."""
    return [f"drive{drive}_{frame:06d}" for drive, length in enumerate(lengths) for frame in range(length)]


@settings(deadline=None)
@given(lengths=drives, config=configs)
def test_folds_hold_every_frame_once_and_learn_from_what_is_not_near(lengths, config):
    names = names_of(lengths)
    dealt = folds(names, config)
    assert len(dealt) == config.folds
    assert sorted(index for fold in dealt for index in fold.held) == list(range(len(names)))
    for fold in dealt:
        apart = np.abs(np.subtract.outer(np.arange(len(names)), fold.held)).min(axis=1, initial=1000)
        assert fold.learned == np.flatnonzero(apart > config.gap).tolist()


@settings(deadline=None)
@given(lengths=drives, config=configs)
def test_each_drive_is_dealt_in_stretches_of_consecutive_frames(lengths, config):
    dealt = folds(names_of(lengths), config)
    holder = {index: number for number, fold in enumerate(dealt) for index in fold.held}
    start = 0
    for length in lengths:
        runs = [(number, len(list(run))) for number, run in itertools.groupby(holder[start + i] for i in range(length))]
        start += length
        sizes = [size for _, size in runs]
        assert max(sizes) - min(sizes) <= 1
        if length >= config.folds * config.blocks:
            assert [number for number, _ in runs] == [*range(config.folds)] * config.blocks


def test_drives_go_by_what_stands_before_the_first_underscore():
    # Two drives of three frames, whose names follow each other: each is cut by itself.
    config = CrossFitConfig(folds=3, blocks=1, gap=0, iterations=1)
    names = ["0001TP_006690", "0001TP_006720", "0001TP_006750", "Seq05VD_f00000", "Seq05VD_f00030", "Seq05VD_f00060"]
    assert [fold.held for fold in folds(names, config)] == [[0, 3], [1, 4], [2, 5]]
    cities = ["aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "bochum/bochum_000000_000019"]
    halves = CrossFitConfig(folds=2, blocks=1, gap=0, iterations=1)
    assert [fold.held for fold in folds(cities, halves)] == [[0, 2], [1]]


def test_names_without_an_underscore_are_one_drive():
    config = CrossFitConfig(folds=2, blocks=1, gap=0, iterations=1)
    assert [fold.held for fold in folds([f"{index:04d}" for index in range(6)], config)] == [[0, 1, 2], [3, 4, 5]]


def test_drives_may_be_mixed_up():
    config = CrossFitConfig(folds=2, blocks=1, gap=0, iterations=1)
    assert [fold.held for fold in folds(["a_1", "b_1", "a_2", "b_2"], config)] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("names", [[], ["a_1", "a_2"]], ids=["nothing", "two"])
def test_without_folds_there_are_none(names):
    assert folds(names, CrossFitConfig()) == []


def test_no_frames_leave_empty_folds():
    assert folds([], CrossFitConfig(folds=2, iterations=1)) == [([], []), ([], [])]
