"""Selection on a GPU, or in Triton's interpreter, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.kernels import Layers, select_reference
from errseg_rt.kernels import select as dispatch
from errseg_rt.kernels.select import launches, supports_reference, torch_op
from errseg_rt.kernels.select.checks import level
from errseg_rt.kernels.select.cpu import select as select_on_cpu
from errseg_rt.kernels.select.operands import Bounds
from tests.kernels.poison import poison_memory
from tests.kernels.triton_gate import Recorder

INTERPRETED = triton.knobs.runtime.interpret
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
LAYERS = Layers((9, 11, 13))
KERNELS = st.tuples(*[st.sampled_from([1, 3])] * 3)


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    poison_memory(monkeypatch)


def assert_equals_reference(error_logit, threshold, **arguments):
    """Compare in float32, which holds every number of any of the types."""
    found = torch_op.select(error_logit.to(DEVICE), threshold, **arguments)
    wanted = select_reference(error_logit.float().numpy(), threshold, **arguments)
    assert found.grid_size == wanted.grid_size
    for name in ("slots", "counts", "left_out", "flagged"):
        given = getattr(found, name).cpu().numpy()
        np.testing.assert_array_equal(given, getattr(wanted, name), err_msg=name, strict=True)
    for layer in (1, 2, 3):
        rows = found.rows[layer - 1, : found.counts[layer - 1]].cpu().numpy()
        np.testing.assert_array_equal(rows, wanted.support(layer), strict=True)
    return wanted


def ties(seed, grid, dtype=torch.float32):
    """Error logits rounded so that many are alike."""
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=2, size=grid).round(1)).to(dtype)


@given(
    grid=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    threshold=st.floats(0.05, 0.95),
    budget=st.none() | st.integers(0, 4000),
    layers=st.builds(Layers, st.just(LAYERS.work) | st.tuples(*[st.integers(0, 9)] * 3), KERNELS),
    seen=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_equals_the_definition(grid, threshold, budget, layers, seen, dtype, seed):
    part = tuple(1 + int(share * (side - 1)) for share, side in zip(seen, grid, strict=True))
    assert_equals_reference(ties(seed, grid, dtype), threshold, seen=part, layers=layers, budget=budget)


@pytest.mark.parametrize("budget", [None, 20_000])
def test_equals_the_definition_in_many_tiles(monkeypatch, budget):
    if INTERPRETED:
        monkeypatch.setattr(launches, "PIXELS", 1024)
    wanted = assert_equals_reference(ties(1, (37, 41)), 0.4, layers=LAYERS, budget=budget)
    assert (wanted.left_out > 0) == (budget is not None)


def test_a_whole_frame(monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(launches, "PIXELS", 1 << 16)
    assert_equals_reference(ties(2, (257, 513)), 0.95)


def test_a_whole_frame_within_a_budget(monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(launches, "PIXELS", 1 << 16)
    error_logit, limits = ties(2, (257, 513)), {"layers": LAYERS, "budget": 600_000}
    found = torch_op.select(error_logit.to(DEVICE), 0.8, **limits)
    # The kernel for the CPU is held against the definition elsewhere, which is slow where a budget binds.
    wanted = select_on_cpu(error_logit.numpy(), 0.8, **limits)
    assert 0 < wanted.work(LAYERS) <= 600_000
    assert wanted.left_out > 0
    assert (found.counts.tolist(), int(found.left_out)) == (wanted.counts.tolist(), wanted.left_out)
    np.testing.assert_array_equal(found.flagged.cpu().numpy(), wanted.flagged)


def work_of_prefixes(error_logit, threshold):
    """What the flagged pixels cost, as they enter one after the other, by the definition."""
    pixels = select_reference(error_logit, threshold).support(3)
    flagged, costs = np.zeros(error_logit.size, np.bool_), []
    for pixel in pixels[np.argsort(-error_logit.ravel()[pixels], kind="stable")]:
        flagged[pixel] = True
        costs.append(supports_reference(flagged.reshape(error_logit.shape)).work(LAYERS))
    return costs


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_budget_that_fits_exactly_and_one_less(dtype):
    error_logit = ties(8, (7, 9), dtype)
    costs = work_of_prefixes(error_logit.float().numpy(), 0.4)
    for taken in (1, 2, len(costs) // 2, len(costs)):
        budget = costs[taken - 1]
        exact = assert_equals_reference(error_logit, 0.4, layers=LAYERS, budget=budget)
        less = assert_equals_reference(error_logit, 0.4, layers=LAYERS, budget=budget - 1)
        assert exact.work(LAYERS) == budget
        assert len(less.support(3)) < taken <= len(exact.support(3))


@pytest.mark.parametrize("budget", [None, 0, 1, 3000, 9000, 2**62])
@pytest.mark.parametrize("grid", [(1, 1), (37, 41)], ids=str)
def test_the_last_program_may_narrow_a_digit(monkeypatch, grid, budget):
    monkeypatch.setattr(launches, "TICKET", True)
    if INTERPRETED:
        monkeypatch.setattr(launches, "PIXELS", 512)
    assert_equals_reference(ties(12, grid), 0.4, layers=LAYERS, budget=budget)


@pytest.mark.parametrize("layers", [LAYERS, Layers((0, 0, 7)), Layers((0, 0, 0))], ids=str)
@pytest.mark.parametrize("budget", [0, 1, 2**31 - 1, 2**31, 2**62])
def test_budgets_of_nothing_and_of_more_than_all(layers, budget):
    wanted = assert_equals_reference(ties(9, (5, 7)), 0.4, layers=layers, budget=budget)
    assert (wanted.left_out > 0) == (layers.work[2] > budget)


@pytest.mark.parametrize("budget", [None, 0, 500, 10**6])
@pytest.mark.parametrize("logit", [-9.0, 9.0])
def test_nothing_and_everything_flagged(logit, budget):
    assert_equals_reference(torch.full((5, 11), logit), 0.5, layers=LAYERS, budget=budget)


def test_every_bit_of_a_logit_and_of_an_index_counts():
    # Neighbouring floats, of both signs and far apart in size, and as many of each one as end in other tiles.
    values = np.array([-1e-3, -1e-40, 0, 1e-40, 1e-3, 1.5, 1e30], np.float32)
    values = np.concatenate([np.nextafter(values, np.float32(side)) for side in (-np.inf, np.inf)] + [values])
    shuffled = np.random.default_rng(10).permutation(np.resize(values, 23 * 31)).reshape(23, 31)
    for budget in range(0, 8000, 1600):
        assert_equals_reference(torch.from_numpy(shuffled), 0.4, layers=Layers((0, 1, 13)), budget=budget)


@pytest.mark.parametrize("work", [(2**33, 2**34, 2**35), (2**31, 2**32 - 1, 2**31 + 7)], ids=["33_bits", "32_bits"])
def test_multiply_adds_may_exceed_32_bits(work):
    wanted = assert_equals_reference(ties(3, (6, 7)), 0.4, layers=Layers(work), budget=55 * work[0])
    assert wanted.left_out > 0
    assert wanted.work(Layers(work)) > 2**32


def test_zeros_of_both_signs_are_one_number():
    error_logit = torch.zeros((2, 8))
    error_logit.view(-1)[::2] = -0.0
    for budget in (4, 5):
        wanted = assert_equals_reference(error_logit, 0.4, layers=Layers((0, 0, 1)), budget=budget)
        assert wanted.support(3).tolist() == list(range(budget))


@pytest.mark.parametrize("budget", [None, 2, 9])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_infinity_comes_first_and_nan_is_not_flagged(dtype, budget):
    error_logit = torch.tensor([[1, torch.nan, 3, torch.inf], [-torch.inf, 2, torch.nan, torch.inf]], dtype=dtype)
    found = torch_op.select(error_logit.to(DEVICE), 0.4, layers=Layers((0, 0, 1)), budget=budget)
    wanted = [3, 7] if budget == 2 else [0, 2, 3, 5, 7]
    assert found.rows[2, : found.counts[2]].tolist() == wanted
    assert int(found.left_out) == 5 - len(wanted)


def test_launches_are_the_same_whatever_the_frame_shows_and_may_cost():
    recorders = [Recorder(90) for _ in range(3)]
    for recorder, logit, bounds in zip(
        recorders, (-9.0, 9.0, 9.0), (Bounds(0.5, 100), Bounds(0.9, 10**9), Bounds(0.1)), strict=True
    ):
        limits = torch.from_numpy(bounds.words())
        launches.enqueue_select(recorder, torch.full((3, 4), logit), limits, seen=(3, 4), layers=LAYERS)
    first, *others = ([(launch.code, launch.grid) for launch in recorder.launches] for recorder in recorders)
    assert others == [first, first]
    assert len(first) == 5 + launches.DIGITS


@pytest.mark.parametrize("threshold", [1e-300, 0.5, 0.7, 1 - 2**-53])
@pytest.mark.parametrize("budget", [None, 0, 2**62])
def test_words_hold_the_limits(threshold, budget):
    words = Bounds(threshold, budget).words()
    assert (words.dtype, words.shape) == (np.int64, (2,))
    assert words[0] == (-1 if budget is None else budget)
    assert words[1:].astype(np.int32).view(np.float32)[0] == np.float32(level(threshold))


def test_grids_that_a_budget_cannot_number_are_named():
    wide = torch.empty((1, 1)).expand(2**14, 2**15)
    with pytest.raises(ValueError, match="a grid has at most 268435456 pixels, got 16384 x 32768"):
        launches.enqueue_select(Recorder(90), wide, torch.zeros(2), seen=wide.shape, layers=LAYERS)


@pytest.mark.parametrize("budget", [None, 300])
def test_is_a_sound_operator(budget, monkeypatch):
    monkeypatch.undo()
    arguments = (ties(4, (5, 6)).to(DEVICE), 0.5, (5, 4), *LAYERS, budget)
    torch.library.opcheck(torch.ops.errseg_rt.select.default, arguments, test_utils=("test_schema", "test_faketensor"))


class Slots(torch.nn.Module):
    def forward(self, error_logit):
        selection = torch_op.select(2 * error_logit, 0.6, layers=LAYERS, budget=400)
        return selection.slots + 1, selection.counts


def test_is_compiled_and_exported_with_its_surroundings(monkeypatch):
    monkeypatch.undo()
    error_logit = ties(5, (5, 6)).to(DEVICE)
    wanted = Slots()(error_logit)
    exported = torch.export.export(Slots(), (error_logit,))
    assert any("errseg_rt.select" in str(node.target) for node in exported.graph.nodes)
    for module in (torch.compile(Slots(), fullgraph=True, backend="aot_eager"), exported.module()):
        for ours, theirs in zip(module(error_logit), wanted, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("error_logit", "arguments", "message"),
    [
        (torch.zeros(3, 4).double(), {}, "float32 or float16 or bfloat16 .*, got float64"),
        (torch.zeros(2, 3, 4), {}, r"\[h, w\], got float32 \[2, 3, 4\]"),
        (torch.zeros(4, 3).T, {}, "must be C-contiguous"),
        (torch.zeros(3, 4), {"seen": (4, 4)}, r"seen must be .* within \[3, 4\], got \(4, 4\)"),
        (torch.zeros(3, 4), {"budget": 0.5}, "budget must be a count of multiply-adds, got 0.5"),
    ],
)
def test_bad_operands_are_named(error_logit, arguments, message):
    with pytest.raises(ValueError, match=message):
        dispatch(error_logit.to(DEVICE), 0.5, **arguments)


@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
@pytest.mark.parametrize("budget", [None, 10**6])
def test_runs_in_a_cuda_graph_and_never_waits(budget):
    error_logit = ties(6, (257, 513), torch.float16).to(DEVICE)
    wanted = torch_op.select(error_logit, 0.7, layers=LAYERS, budget=budget)
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = torch_op.select(error_logit, 0.7, layers=LAYERS, budget=budget)
        graph.replay()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    for name in ("slots", "counts", "left_out", "flagged"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name
    for layer, count in enumerate(wanted.counts.tolist()):
        assert torch.equal(found.rows[layer, :count], wanted.rows[layer, :count])
