"""Rendered nuclei: the same each time, at the sizes that were asked for, and with true instances."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.scenes import NucleiScene


@pytest.mark.parametrize("size", [(32, 32), (97, 131), (360, 480)])
def test_frames_are_whole_and_the_same_each_time(size) -> None:
    first, again = (NucleiScene(3, *size).frame(7) for _ in range(2))
    assert first.frame.shape == (*size, 3)
    assert (first.frame.dtype, first.labels.dtype, first.instances.dtype) == (np.uint8, np.uint8, np.uint16)
    for name in ("frame", "labels", "instances"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    np.testing.assert_array_equal(first.labels, first.instances > 0)


def test_nuclei_are_bright_and_some_touch() -> None:
    scene = NucleiScene(1).frame(0)
    inside, outside = scene.frame[scene.labels == 1].mean(), scene.frame[scene.labels == 0].mean()
    assert inside > 2 * outside
    left, right = scene.instances[:, :-1], scene.instances[:, 1:]
    touching = {tuple(pair) for pair in np.stack([left, right], axis=-1)[(left != right) & (left > 0) & (right > 0)]}
    assert len(touching) > 20
    assert len(np.unique(scene.instances)) > 100


def test_a_nucleus_keeps_its_id_and_moves_little() -> None:
    scene = NucleiScene(1)
    before, after = scene.frame(0).instances, scene.frame(1).instances
    both = (before > 0) & (after > 0)
    assert (before[both] == after[both]).mean() > 0.9
    assert (before != scene.frame(40).instances).any()


@pytest.mark.parametrize("wrong", [(-1, 64, 64, 15.0), (0, 31, 64, 15.0), (0, 64, 31, 15.0), (0, 64, 64, 0.0)])
def test_wrong_arguments(wrong) -> None:
    with pytest.raises(ValueError, match="a scene has a seed from 0, sides from 32"):
        NucleiScene(*wrong)
    with pytest.raises(ValueError, match="frames count from 0"):
        NucleiScene(0).frame(-1)
