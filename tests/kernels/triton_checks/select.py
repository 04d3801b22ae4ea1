"""Selection on a GPU, or in Triton's interpreter, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.kernels import select as dispatch
from errseg_rt.kernels import select_reference
from errseg_rt.kernels.select import gpu
from errseg_rt.kernels.select.cpu import select as select_on_cpu

INTERPRETED = triton.knobs.runtime.interpret
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
WORK = (9, 11, 13)


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fill outputs, so that an unwritten element shows."""
    outputs = gpu._outputs

    def poisoned(error_logit):
        rows, slots, counts, left_out, flagged = outputs(error_logit)
        return rows, slots.fill_(-77), counts.fill_(-77), left_out, flagged.fill_(True)

    monkeypatch.setattr(gpu, "_outputs", poisoned)


def assert_equals_reference(error_logit, threshold, **arguments):
    """Compare in float32, which holds every number of any of the types."""
    found = gpu.select(error_logit.to(DEVICE), threshold, **arguments)
    wanted = select_reference(error_logit.float().numpy(), threshold, **arguments)
    supports = wanted.supports
    assert found.grid_size == supports.grid_size
    assert found.counts.tolist() == list(supports.counts)
    assert int(found.left_out) == wanted.left_out
    np.testing.assert_array_equal(found.flagged.cpu().numpy(), wanted.flagged, strict=True)
    rows, slots = found.rows.cpu().numpy(), found.slots.cpu().numpy()
    assert (rows.dtype, slots.dtype, found.counts.dtype) == (np.int32, np.int32, torch.int32)
    for layer, count in enumerate(supports.counts):
        np.testing.assert_array_equal(rows[layer, :count], getattr(supports, f"rows{layer + 1}"))
        assert (rows[layer, count:] == -1).all()
        np.testing.assert_array_equal(slots[layer], getattr(supports, f"slot{layer + 1}"))
    return wanted


def ties(seed, grid, dtype=torch.float32):
    """Error logits rounded so that many are alike."""
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=2, size=grid).round(1)).to(dtype)


@given(
    grid=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    threshold=st.floats(0.05, 0.95),
    budget=st.none() | st.integers(0, 4000),
    row_work=st.just(WORK) | st.tuples(*[st.integers(0, 9)] * 3),
    seen=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_equals_the_definition(grid, threshold, budget, row_work, seen, dtype, seed):
    part = tuple(1 + int(share * (side - 1)) for share, side in zip(seen, grid, strict=True))
    assert_equals_reference(ties(seed, grid, dtype), threshold, seen=part, row_work=row_work, budget=budget)


@pytest.mark.parametrize("budget", [None, 20_000])
def test_equals_the_definition_in_many_tiles(monkeypatch, budget):
    if INTERPRETED:
        monkeypatch.setattr(gpu, "PIXELS", 1024)
    wanted = assert_equals_reference(ties(1, (37, 41)), 0.4, row_work=WORK, budget=budget)
    assert (wanted.left_out > 0) == (budget is not None)


def test_a_whole_frame(monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(gpu, "PIXELS", 1 << 16)
    assert_equals_reference(ties(2, (257, 513)), 0.95)


def test_a_whole_frame_within_a_budget(monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(gpu, "PIXELS", 1 << 16)
    error_logit, limits = ties(2, (257, 513)), {"row_work": WORK, "budget": 600_000}
    found = gpu.select(error_logit.to(DEVICE), 0.8, **limits)
    # The kernel for the CPU is held against the definition elsewhere, which is slow where a budget binds.
    wanted = select_on_cpu(error_logit.numpy(), 0.8, **limits)
    assert 0 < wanted.supports.work(WORK) <= 600_000
    assert wanted.left_out > 0
    assert (found.counts.tolist(), int(found.left_out)) == (list(wanted.supports.counts), wanted.left_out)
    np.testing.assert_array_equal(found.flagged.cpu().numpy(), wanted.flagged)


def test_multiply_adds_may_exceed_32_bits():
    work = (2**33, 2**34, 2**35)
    wanted = assert_equals_reference(ties(3, (6, 7)), 0.4, row_work=work, budget=2**39)
    assert wanted.left_out > 0
    assert wanted.supports.work(work) > 2**32


def test_zeros_of_both_signs_are_one_number_and_nan_is_not_flagged():
    error_logit = torch.zeros((2, 8))
    error_logit.view(-1)[::2] = -0.0
    assert_equals_reference(error_logit, 0.4, row_work=(0, 0, 1), budget=5)
    error_logit[1, 3] = torch.nan
    assert gpu.select(error_logit.to(DEVICE), 0.4).flagged.sum() == 15


@pytest.mark.parametrize("budget", [None, 300])
def test_is_a_sound_operator(budget, monkeypatch):
    monkeypatch.undo()
    arguments = (ties(4, (5, 6)).to(DEVICE), 0.5, (5, 4), WORK, budget)
    torch.library.opcheck(torch.ops.errseg_rt.select.default, arguments, test_utils=("test_schema", "test_faketensor"))


class Slots(torch.nn.Module):
    def forward(self, error_logit):
        selection = gpu.select(2 * error_logit, 0.6, row_work=WORK, budget=400)
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
    wanted = gpu.select(error_logit, 0.7, row_work=WORK, budget=budget)
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = gpu.select(error_logit, 0.7, row_work=WORK, budget=budget)
        graph.replay()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    for name in ("rows", "slots", "counts", "left_out", "flagged"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name
