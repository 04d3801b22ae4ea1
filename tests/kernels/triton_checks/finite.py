"""The search for values that are not finite on a GPU, or in Triton's interpreter, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.kernels.finite import launches
from errseg_rt.kernels.finite.reference import finite_reference
from errseg_rt.kernels.torch_launcher import TorchLauncher
from tests.kernels.triton_gate import Recorder

INTERPRETED = triton.knobs.runtime.interpret
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
FAULTS = [torch.nan, -torch.nan, torch.inf, -torch.inf]
TILE = launches.VALUES


def found(branches, counts):
    given = [
        # Within an array, as the count of a support is.
        None if count is None else torch.tensor([-77, -77, count, -77], dtype=torch.int32, device=DEVICE)[2:3]
        for count in counts
    ]
    return launches.enqueue_finite(TorchLauncher(DEVICE), [each.to(DEVICE) for each in branches], given).tolist()


def marked(values, count=None):
    return found([values], [count])


def normal(shape, dtype=torch.float32, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    at=st.floats(0, 1),
    count=st.none() | st.integers(0, 40),
    fault=st.sampled_from(FAULTS),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equals_the_definition(rows, columns, at, count, fault, dtype):
    values = normal((rows, columns), dtype)
    values.view(-1)[int(at * (rows * columns - 1))] = fault
    count = None if count is None else min(count, rows)
    assert marked(values, count) == finite_reference([values.float().numpy()], [count]).tolist()


@pytest.mark.parametrize("fault", FAULTS, ids=["nan", "-nan", "inf", "-inf"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 2, 777, TILE - 1, TILE, TILE + 1, 2 * TILE, 3 * TILE + 5])
def test_every_end_of_a_tile(size, dtype, fault):
    # What lies beyond the values would be a fault.
    values = torch.full((size + TILE,), fault, dtype=dtype, device=DEVICE)[:size]
    values[:] = normal((size,), dtype)
    values[size // 2] = torch.finfo(dtype).max
    assert marked(values) == [0]
    for at in {0, min(TILE, size) - 1, min(TILE, size - 1), size - 1}:
        kept, values[at] = values[at].clone(), fault
        assert marked(values) == [1], at
        values[at] = kept
    assert marked(values) == [0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_and_small_values_are_no_faults(dtype):
    info = torch.finfo(dtype)
    assert marked(torch.tensor([info.max, info.min, info.tiny, info.tiny / 4, 0.0, -0.0], dtype=dtype)) == [0]


@pytest.mark.parametrize("columns", [1, 19, 4097])
@pytest.mark.parametrize("rows", [1, 3, 11])
def test_only_as_far_as_the_count(rows, columns):
    for count in range(rows + 1):
        values = normal((rows, columns))
        values[count:] = torch.nan
        assert marked(values, count) == [0]
        if count:
            values[count - 1, -1] = torch.inf
            assert marked(values, count) == [1]
            values[count - 1, -1], values[0, 0] = 0, torch.nan
            assert marked(values, count) == [1]


def test_a_count_beyond_the_rows_reads_no_further():
    memory = torch.full((TILE + 300,), torch.nan, device=DEVICE)
    values = memory[: 5 * 19].view(5, 19)
    values[:] = 1
    for count in (5, 6, 2**31 - 1):
        assert marked(values, count) == [0]


@pytest.mark.parametrize("shape", [(0,), (0, 19), (5, 0), (3, 0, 7)], ids=str)
@pytest.mark.parametrize("count", [None, 0, 3])
def test_nothing_holds_no_fault(shape, count):
    assert marked(torch.empty(shape), count) == [0]


def test_branches_are_marked_one_by_one():
    branches = [normal((3, 50, 31), seed=1), normal((50, 31), torch.float16, 2), normal((40, 19), torch.bfloat16, 3)]
    branches[0][2, -1, -1] = torch.inf
    branches[2][7] = torch.nan
    counts = [None, None, 7]
    wanted = finite_reference([values.float().numpy() for values in branches], counts)
    assert wanted.tolist() == [1, 0, 0]
    assert found(branches, counts) == wanted.tolist()
    branches[1][0, 0] = -torch.inf
    assert found(branches, [None, None, 8]) == [1, 1, 1]
    assert found([], []) == []


@pytest.mark.parametrize("at", [0, -1])
def test_channels_may_come_last(at):
    values = normal((5, 7, 3)).permute(2, 0, 1)
    assert marked(values) == [0]
    values[at, at, at] = torch.nan
    assert marked(values) == [1]


def test_a_whole_frame(monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(launches, "VALUES", 1 << 19)
    values = normal((19, 257, 513), torch.float16)
    assert marked(values) == [0]
    values[11, 129, 400] = torch.inf
    assert marked(values) == [1]


def test_one_code_serves_all_sizes():
    recorder = Recorder(90)
    count = torch.zeros(1, dtype=torch.int32)
    huge = torch.empty((2**17, 2**16), dtype=torch.float16, device="meta")
    for values in (torch.empty((16, 16), dtype=torch.float16), torch.empty((257, 513), dtype=torch.float16), huge):
        launches.enqueue_finite(recorder, [values], [count])
    assert len({launch.code for launch in recorder.launches}) == 1
    assert recorder.launches[-1].grid == (2**33 // TILE,)


@pytest.mark.parametrize(
    ("values", "count", "message"),
    [
        (torch.zeros(4, 6)[:, ::2], None, r"values must have no gaps, got strides \(6, 2\) at shape \[4, 3\]"),
        (torch.zeros(4, 6)[:, :3], None, "values must have no gaps"),
        (torch.zeros(1, 3).expand(4, 3), None, "values must have no gaps"),
        (torch.zeros(4, 6).T, 2, "values must have no gaps"),
    ],
)
def test_bad_operands_are_named(values, count, message):
    with pytest.raises(ValueError, match=message):
        marked(values, count)
