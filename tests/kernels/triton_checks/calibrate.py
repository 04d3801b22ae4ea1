"""Calibration on a GPU, or in Triton's interpreter, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.kernels.calibrate import launches
from errseg_rt.kernels.calibrate.reference import calibrate_reference
from errseg_rt.kernels.torch_launcher import TorchLauncher
from tests.kernels.doubts import KINDS, assert_final, detail_of
from tests.kernels.poison import poison_memory
from tests.kernels.triton_gate import Recorder

INTERPRETED = triton.knobs.runtime.interpret
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    poison_memory(monkeypatch)


def run(error_logit, knots):
    found = launches.enqueue_calibrate(TorchLauncher(DEVICE), error_logit.to(DEVICE), knots.to(DEVICE))
    return found.cpu()


def assert_equals_reference(error_logit, knots):
    """Compare with the definition on the float32 knots that the kernel is given."""
    found = run(error_logit, knots)
    assert found.dtype == torch.float32
    wanted = calibrate_reference(error_logit.float().numpy(), *knots.double().numpy())
    # A difference, a quotient, a product and a sum, each rounded to float32; none is above 1.
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=5e-7)


def monotone(seed, count):
    rng = np.random.default_rng(seed)
    knots = np.stack([np.sort(rng.normal(scale=4, size=count)), np.sort(rng.random(count).round(1))])
    return torch.from_numpy(knots.astype(np.float32))


def normal(seed, grid, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=5, size=grid)).to(dtype)


@given(
    grid=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    count=st.integers(1, 70),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_equals_the_definition(grid, count, dtype, seed):
    assert_equals_reference(normal(seed, grid, dtype), monotone(seed, count))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9, 31, 32, 33, 300])
def test_every_knot_is_found(count):
    knots = monotone(count, count)
    at = knots[0].numpy()
    values = [at, np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf))]
    assert_equals_reference(torch.from_numpy(np.stack(values)), knots)


@pytest.mark.parametrize("grid", [(0, 0), (0, 5), (1, 1), (1, 511), (512, 1), (19, 27), (37, 41)], ids=str)
def test_sizes(grid):
    assert_equals_reference(normal(3, grid), monotone(4, 30))


def test_a_whole_frame(monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(launches, "PIXELS", 1 << 16)
    assert_equals_reference(normal(5, (257, 513), torch.float16), monotone(6, 30))


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_special_values(dtype, count):
    values = torch.tensor([[torch.nan, -torch.inf, torch.inf, -0.0, 0.0, -6e4, 6e4, 1e-7]], dtype=dtype)
    assert_equals_reference(values, monotone(7, count))


@pytest.mark.parametrize("places", [(0, 1), (1, 2), (1, 2, 3), (3, 4), (0, 1, 2, 3, 4)], ids=str)
def test_knots_at_one_place(places):
    knots = monotone(8, 5)
    knots[0, list(places)] = float(knots[0, places[0]])
    values = torch.cat([knots[0] - 0.5, knots[0], knots[0] + 0.5, torch.tensor([-50.0, 50.0])])
    assert_equals_reference(values[None], knots)


def test_is_the_map_of_the_cpu():
    logits = (-8.7, -2.1, 0.3, 1.5, 4.4)
    calibration = Calibration(logits, (0.0, 0.0003, 0.12, 0.3, 0.79))
    error_logit = normal(9, (13, 17))
    found = run(error_logit, torch.tensor([logits, calibration.probabilities]))
    np.testing.assert_allclose(found.numpy(), calibration(error_logit.numpy()), rtol=0, atol=1e-6)


def test_never_decreases_and_stays_within_its_ends():
    knots = torch.tensor([[-1.0, 0.3, 0.3, 0.30001, 2.0], [0.1, 0.1, 0.7, 0.9, 1.0]])
    found = run(torch.linspace(-2, 3, 2001)[None], knots)
    assert (found.diff() >= 0).all()
    assert (float(found.min()), float(found.max())) == (float(np.float32(0.1)), 1)


def test_one_code_serves_all_maps_and_sizes():
    recorder = Recorder(90)
    for seed, (grid, count) in enumerate([((1, 1), 1), ((257, 513), 30), ((16, 16), 1024)]):
        launches.enqueue_calibrate(recorder, normal(seed, grid), monotone(seed, count))
    assert len({launch.code for launch in recorder.launches}) == 1
    assert len(recorder.launches) == 3
    for seed, (grid, count) in enumerate([((1, 1), 1), ((257, 513), 30)]):
        rows, where = torch.zeros(seed, 19), torch.zeros(grid, dtype=torch.int32)
        knots = monotone(seed, count)
        launches.enqueue_calibrate(recorder, normal(seed, grid), knots, rows, where, knots)
    assert len({launch.code for launch in recorder.launches}) == 2


def run_final(error_logit, knots, detail, where, detail_knots, above=-np.inf):
    operands = (each.to(DEVICE) for each in (error_logit, knots, detail, where, detail_knots))
    return launches.enqueue_calibrate(TorchLauncher(DEVICE), *operands, above).cpu()


def assert_final_equals_reference(error_logit, knots, detail, where, detail_knots, above=-np.inf):
    found = run_final(error_logit, knots, detail, where, detail_knots, above)
    assert found.dtype == torch.float32
    floats = error_logit.float().numpy(), tuple(knots.double().numpy()), detail.float().numpy()
    assert_final(found.numpy(), *floats, where.numpy(), tuple(detail_knots.double().numpy()), 5e-7, above)


@given(
    grid=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    classes=st.integers(2, 14),
    kind=st.sampled_from(KINDS),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    counts=st.sampled_from([(1, 9), (9, 1), (32, 32), (5, 70)]),
    above=st.sampled_from([-np.inf, 0.5]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_the_final_label_by_definition(grid, classes, kind, share, counts, above, dtype, seed):
    detail, where = map(torch.from_numpy, detail_of(np.random.default_rng(seed), grid, classes, kind, share))
    knots, detail_knots = (monotone(seed + count, count) for count in counts)
    assert_final_equals_reference(normal(seed, grid, dtype), knots, detail.to(dtype), where, detail_knots, above)


@pytest.mark.parametrize("grid", [(0, 5), (1, 1), (1, 513), (37, 41)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_final_label_of_sizes(grid, kind):
    detail, where = map(torch.from_numpy, detail_of(np.random.default_rng(3), grid, 3, kind))
    assert_final_equals_reference(normal(3, grid), monotone(4, 30), detail, where, monotone(5, 30))


@pytest.mark.parametrize("kind", KINDS)
def test_special_detail_logits(kind):
    logits = [
        [2.0, 2.0, 2.0], [60.0, -40.0, 3.0], [3e4, -3e4, -3e4], [-torch.inf, 1.0, 0.5], [0.0, -torch.inf, -torch.inf],
        [torch.nan, 1.0, 2.0], [1.0, 2.0, torch.nan],
    ]  # fmt: skip
    detail, where = torch.tensor(logits), torch.arange(len(logits), dtype=torch.int32)[None]
    if kind == "map":
        detail, where = detail.T[:, None].contiguous(), torch.ones_like(where, dtype=torch.bool)
    knots = torch.tensor([[-20.0, -3.0, 0.0, 2.0], [0.01, 0.1, 0.4, 0.9]])
    assert_final_equals_reference(torch.zeros(1, len(logits)), knots, detail, where, knots)


def test_rows_that_are_not_there_are_nobodys():
    where = torch.tensor([[0, 1, 2, -1, -7]], dtype=torch.int32)
    knots, error_logit = torch.tensor([[-1.0, 1.0], [0.0, 1.0]]), torch.full((1, 5), 0.5)
    found = run_final(error_logit, knots, torch.zeros(2, 3), where, torch.tensor([[0.0], [0.2]]))
    np.testing.assert_allclose(found.numpy(), [[0.2, 0.2, 0.75, 0.75, 0.75]], rtol=1e-6)


@pytest.mark.parametrize("missing", [2, 3, 4])
def test_what_the_final_label_needs_goes_together(missing):
    operands = [torch.zeros(3, 4), torch.zeros(2, 1), torch.zeros(2, 3, 4), torch.zeros(3, 4).bool(), torch.zeros(2, 1)]
    operands[missing] = None
    with pytest.raises(ValueError, match="detail, where and detail_knots go together, and one of them is None"):
        launches.enqueue_calibrate(TorchLauncher(DEVICE), *operands)


def test_bad_knots_of_the_final_label_are_named():
    with pytest.raises(ValueError, match=r"detail_knots must be .*, got \[2, 0\]"):
        run_final(
            torch.zeros(3, 4), torch.zeros(2, 1), torch.zeros(2, 3, 4), torch.zeros(3, 4).bool(), torch.zeros(2, 0)
        )


@pytest.mark.parametrize(
    ("error_logit", "knots", "message"),
    [
        (torch.zeros(4, 3).T, torch.zeros(2, 1), r"error_logit must be contiguous \[h, w\], got \[3, 4\]"),
        (torch.zeros(4), torch.zeros(2, 1), r"error_logit must be contiguous \[h, w\], got \[4\]"),
        (torch.zeros(4, 3), torch.zeros(2, 0), r"knots must be .*, got \[2, 0\]"),
        (torch.zeros(4, 3), torch.zeros(3, 2), r"knots must be .*, got \[3, 2\]"),
        (torch.zeros(4, 3), torch.zeros(3, 2).T, r"knots must be contiguous .*, got \[2, 3\]"),
    ],
)
def test_bad_operands_are_named(error_logit, knots, message):
    with pytest.raises(ValueError, match=message):
        run(error_logit, knots)
