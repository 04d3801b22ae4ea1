"""Calibration on the CPU, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.kernels.calibrate.cpu import Segments, calibrate
from errseg_rt.kernels.calibrate.reference import calibrate_reference

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
