"""Counting pixels by their logits, and groups of equal mass."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.evaluation.histogram import ErrorHistogram, equal_mass


def counted(logit, wrong) -> ErrorHistogram:
    histogram = ErrorHistogram()
    histogram.add(np.asarray(logit), np.asarray(wrong, bool))
    return histogram


def test_every_pixel_is_counted_once_near_its_logit() -> None:
    rng = np.random.default_rng(0)
    logit, wrong = rng.normal(scale=20, size=5000).astype(np.float32), rng.random(5000) < 0.3
    values, counts = counted(logit, wrong).filled()
    assert (np.diff(values) > 0).all()
    assert counts.sum(axis=0).tolist() == [(~wrong).sum(), wrong.sum()]
    # In order, the bins give back the pixels: half a bin is 0.00016 around 0 and grows with the logit.
    for kind, column in ((~wrong, 0), (wrong, 1)):
        back = np.repeat(values, counts[:, column])
        np.testing.assert_allclose(back, np.sort(logit[kind]), rtol=2e-4, atol=2e-4)


def test_ends_hold_what_lies_beyond() -> None:
    values, counts = counted([-np.inf, -1e9, -1e4, 1e4, 1e30, np.inf], [0, 1, 0, 1, 0, 1]).filled()
    assert values == pytest.approx([-1e4, 1e4], rel=1e-3)
    assert counts.tolist() == [[2, 1], [1, 2]]
    assert np.isfinite(values).all()


def test_frames_add_up_and_sums_leave_their_parts() -> None:
    one, other = counted([0.0, 1.0], [0, 1]), counted([1.0], [0])
    both = one + other
    one.add(np.array([1.0]), np.array([False]))
    np.testing.assert_array_equal(both.counts.sum(axis=0), [2, 1])
    np.testing.assert_array_equal(both.counts, one.counts)
    assert other.counts.sum() == 1


def test_nothing() -> None:
    values, counts = counted(np.empty(0), np.empty(0)).filled()
    assert (values.shape, counts.shape) == ((0,), (0, 2))


def test_pixels_must_pair() -> None:
    with pytest.raises(ValueError, match=r"wanted pixels in pairs: logit.shape = \(2,\)"):
        counted([0, 1], [True])


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 logits are NaN"):
        counted([0, np.nan], [True, False])


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
