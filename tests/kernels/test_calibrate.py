"""Calibration on the CPU, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.kernels.calibrate.cpu import Segments, calibrate
from errseg_rt.kernels.calibrate.reference import calibrate_reference, doubt_reference
from tests.kernels.doubts import KINDS, assert_final, detail_of

# The result is computed in float64 and rounded to float32, below 1, once.
ROUNDING = 6e-8


def assert_equals_reference(error_logit, logits, probabilities):
    kept = error_logit.copy()
    found = calibrate(error_logit, Segments.of(logits, probabilities))
    assert found.dtype == np.float32
    assert found.shape == error_logit.shape
    wanted = calibrate_reference(error_logit, logits, probabilities)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(error_logit, kept)


def monotone(rng, count, scale=4.0):
    """Knots, the logits increasing and the probabilities never decreasing."""
    logits = np.unique(rng.normal(scale=scale, size=count))
    return logits, np.sort(rng.random(len(logits)).round(1))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    count=st.integers(1, 70),
    dtype=st.sampled_from([np.float16, np.float32]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_definition(shape, count, dtype, seed):
    rng = np.random.default_rng(seed)
    assert_equals_reference(rng.normal(scale=5, size=shape).astype(dtype), *monotone(rng, count))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (511,), (512,), (513,), (257, 513), (2, 3, 5, 7)], ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_shapes(shape, dtype):
    rng = np.random.default_rng(0)
    assert_equals_reference(np.asarray(rng.normal(scale=5, size=shape), dtype), *monotone(rng, 32))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_special_values(count):
    rng = np.random.default_rng(count)
    values = np.array([-np.inf, np.nan, np.inf, -3e38, 3e38, -0.0, 0.0, 1e-40], np.float32)
    assert_equals_reference(values, *monotone(rng, count))


def test_knots_and_their_neighbours_among_floats():
    logits, probabilities = monotone(np.random.default_rng(1), 40)
    at = logits.astype(np.float32)
    for values in (at, np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf))):
        assert_equals_reference(values, logits, probabilities)


@pytest.mark.parametrize("gap", [1e-6, 1e-8, 1e-12])
@pytest.mark.parametrize("middle", [0.1, 1.0, -7.3])
def test_knots_that_are_one_in_float32(gap, middle):
    at = np.float32(middle)
    values = np.array([at, np.nextafter(at, np.float32(9)), np.nextafter(at, np.float32(-9)), -20, 20], np.float32)
    assert_equals_reference(values, (-9.0, middle - gap, middle, middle + gap, 9.0), (0.0, 0.1, 0.5, 0.9, 1.0))


def test_knots_that_no_float32_reaches():
    values = np.array([-np.inf, -3e38, 0, 1e-40, 3e38, np.inf], np.float32)
    assert_equals_reference(values, (-1e200, 0.0, 1e-320, 1e200), (0.1, 0.2, 0.3, 0.9))


def test_arrays_with_gaps_or_that_are_read_only():
    values = np.random.default_rng(2).normal(size=(9, 11)).astype(np.float32)
    knots = monotone(np.random.default_rng(3), 6)
    for array in (values.T, values[::2, ::-3]):
        assert_equals_reference(array, *knots)
    values.flags.writeable = False
    assert_equals_reference(values, *knots)


def test_never_decreases():
    segments = Segments.of((-1.0, 0.3, 0.3 + 1e-9, 2.0), (0.1, 0.1, 0.7, 1.0))
    found = calibrate(np.linspace(-2, 3, 2001, dtype=np.float32), segments)
    assert (np.diff(found) >= 0).all()
    assert (found[0], found[-1]) == (np.float32(0.1), 1)


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_other_dtypes_are_named(dtype):
    with pytest.raises(ValueError, match=f"error_logit must be float32 or float16, got {np.dtype(dtype)}"):
        calibrate(np.zeros((2, 2), dtype), Segments.of((0.0,), (0.5,)))


def assert_final_equals_reference(error_logit, knots, detail, where, detail_knots, above=-np.inf):
    kept = [array.copy() for array in (error_logit, detail, where)]
    found = calibrate(error_logit, Segments.of(*knots), detail, where, Segments.of(*detail_knots), above)
    assert (found.dtype, found.shape) == (np.float32, error_logit.shape)
    assert_final(found, error_logit, knots, detail, where, detail_knots, ROUNDING, above)
    for array, was in zip((error_logit, detail, where), kept, strict=True):
        np.testing.assert_array_equal(array, was)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    grid=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    classes=st.integers(2, 21),
    kind=st.sampled_from(KINDS),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    gain=st.sampled_from([0.1, 4.0, 40.0]),
    above=st.sampled_from([-np.inf, 0.5, np.inf]),
    dtype=st.sampled_from([np.float16, np.float32]),
    seed=st.integers(0, 2**16),
)
def test_the_final_label_by_definition(grid, classes, kind, share, gain, above, dtype, seed):
    rng = np.random.default_rng(seed)
    detail, where = detail_of(rng, grid, classes, kind, share, gain)
    error_logit = rng.normal(scale=5, size=grid).astype(dtype)
    maps = monotone(rng, 20), monotone(rng, 9)
    assert_final_equals_reference(error_logit, maps[0], detail.astype(dtype), where, maps[1], above)


@pytest.mark.parametrize("grid", [(0, 0), (0, 5), (1, 1), (1, 511), (513, 1), (64, 65), (97, 131)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_final_label_of_sizes(grid, kind, share):
    rng = np.random.default_rng(4)
    detail, where = detail_of(rng, grid, 11, kind, share)
    error_logit = rng.normal(scale=5, size=grid).astype(np.float32)
    assert_final_equals_reference(error_logit, monotone(rng, 32), detail, where, monotone(rng, 32))


def test_an_error_logit_at_the_limit_does_not_exceed_it():
    error_logit = np.array([[0.25, np.nextafter(np.float32(0.25), np.float32(1)), np.nan]], np.float32)
    detail, where = np.zeros((2, 1, 3), np.float32), np.ones((1, 3), bool)
    found = calibrate(error_logit, Segments.of((0.0,), (0.1,)), detail, where, Segments.of((0.0,), (0.9,)), 0.25)
    np.testing.assert_array_equal(found, np.array([[0.1, 0.9, np.nan]], np.float32))


def test_no_rows():
    rng = np.random.default_rng(5)
    error_logit, where = rng.normal(size=(5, 7)).astype(np.float32), np.full((5, 7), -1, np.int32)
    detail = np.empty((0, 3), np.float32)
    assert_final_equals_reference(error_logit, monotone(rng, 4), detail, where, monotone(rng, 4))


SPECIAL = {
    "ties": [2.0, 2.0, 2.0],
    "sure": [60.0, -40.0, 3.0],
    "surer_than_float64_can_say": [3e4, -3e4, -3e4],
    "one_is_impossible": [-np.inf, 1.0, 0.5],
    "the_first_is_possible_alone": [0.0, -np.inf, -np.inf],
    "nan_first": [np.nan, 1.0, 2.0],
    "nan_last": [1.0, 2.0, np.nan],
    "zeros": [0.0, -0.0, 0.0],
    "far_below": [-3e4, -3e4 - 2, -3e4 - 3],
}


@pytest.mark.parametrize("logits", SPECIAL.values(), ids=SPECIAL)
@pytest.mark.parametrize("kind", KINDS)
def test_special_detail_logits(logits, kind):
    error_logit, where = np.array([[0.5, np.nan]], np.float32), np.array([[True, False]])
    detail = np.array([[logits, [0, 1, 2]]], np.float32).transpose(2, 0, 1)
    if kind == "rows":
        detail, where = detail[:, 0].T, np.array([[0, -1]], np.int32)
    knots = (-20.0, -3.0, 0.0, 2.0), (0.01, 0.1, 0.4, 0.9)
    assert_final_equals_reference(error_logit, knots, np.ascontiguousarray(detail), where, knots)


def test_doubt_is_the_logit_of_what_the_softmax_leaves():
    logits = np.random.default_rng(6).normal(scale=3, size=(7, 50))
    powers = np.exp(logits)
    left = 1 - powers.max(axis=0) / powers.sum(axis=0)
    np.testing.assert_allclose(doubt_reference(logits), np.log(left / (1 - left)), rtol=1e-9)
    np.testing.assert_allclose(doubt_reference(np.array([[900.0], [300.0], [300.0]])), [np.log(2) - 600])


DETAIL = np.zeros((2, 3, 4), np.float32), np.zeros((3, 4), bool), Segments.of((0.0,), (0.5,))
ROWS = np.zeros((5, 2), np.float32), np.full((3, 4), -1, np.int32), DETAIL[2]


@pytest.mark.parametrize(
    ("operands", "message"),
    [
        ((DETAIL[0], None, DETAIL[2]), "detail, where, detail_segments go together: where is None"),
        ((None, DETAIL[1], None), "go together: detail and detail_segments is None"),
        ((DETAIL[0].astype(np.float64), *DETAIL[1:]), r"detail must be float32 or float16 \[C, 3, 4\], got float64"),
        ((DETAIL[0][:, :2], *DETAIL[1:]), r"detail must be .* \[C, 3, 4\], got float32 \[2, 2, 4\]"),
        ((DETAIL[0][:1], *DETAIL[1:]), "detail must have 2 to 255 classes, got 1"),
        ((ROWS[0], *DETAIL[1:]), r"where must be int32 \[3, 4\], got bool"),
        ((DETAIL[0], *ROWS[1:]), r"where must be bool \[3, 4\], got int32"),
        ((ROWS[0][:, ::-1], *ROWS[1:]), "detail must be C-contiguous"),
        ((ROWS[0], ROWS[1] + 6, ROWS[2]), "where must hold rows of detail, below 5, got 5"),
    ],
)
def test_bad_operands_of_the_final_label_are_named(operands, message):
    with pytest.raises(ValueError, match=message):
        calibrate(np.zeros((3, 4), np.float32), Segments.of((0.0,), (0.5,)), *operands)


def test_the_final_label_of_no_map():
    with pytest.raises(ValueError, match=r"error_logit must be \[h, w\] beside detail logits, got \[12\]"):
        calibrate(np.zeros(12, np.float32), Segments.of((0.0,), (0.5,)), *DETAIL)
