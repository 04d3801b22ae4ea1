"""Groups of equal mass."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.evaluation.groups import equal_mass


@pytest.mark.parametrize(("bins", "groups"), [(12, 4), (13, 4), (100, 7), (3, 3)])
def test_even_bins_make_even_groups(bins, groups) -> None:
    sizes = np.bincount(equal_mass(np.ones(bins), groups), minlength=groups)
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_off_by_more_than_a_bin(seed) -> None:
    mass = np.random.default_rng(seed).random(500)
    group = equal_mass(mass, 9)
    assert (np.diff(group) >= 0).all()
    assert (group.min(), group.max()) == (0, 8)
    assert np.abs(np.bincount(group, mass) - mass.sum() / 9).max() <= mass.max()


def test_a_heavy_bin_leaves_groups_empty() -> None:
    assert equal_mass(np.array([1, 98, 1]), 10).tolist() == [0, 5, 9]


def test_fewer_bins_than_groups() -> None:
    assert equal_mass(np.ones(2), 10).tolist() == [2, 7]
