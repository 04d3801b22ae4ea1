"""Selection on the CPU, against its definition."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.kernels import Geometry, Layers, select, select_reference, supports_reference
from errseg_rt.kernels.select.cpu import select as select_on_cpu

LAYERS = Layers((9, 11, 13))
KERNELS = st.tuples(*[st.sampled_from([1, 3])] * 3)


def assert_same(found, wanted):
    for name in ("slots", "counts", "left_out", "flagged"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name, strict=True)
    for layer in (1, 2, 3):
        np.testing.assert_array_equal(found.support(layer), wanted.support(layer), err_msg=str(layer), strict=True)
    assert found.grid_size == wanted.grid_size


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    grid=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    threshold=st.floats(0.05, 0.95),
    budget=st.none() | st.integers(0, 7000),
    layers=st.builds(Layers, st.just(LAYERS.work) | st.tuples(*[st.integers(0, 9)] * 3), KERNELS),
    seen=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    dtype=st.sampled_from([np.float16, np.float32]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_definition(grid, threshold, budget, layers, seen, dtype, seed):
    # Rounded, so that there are ties.
    error_logit = np.random.default_rng(seed).normal(scale=2, size=grid).round(1).astype(dtype)
    part = tuple(1 + int(share * (side - 1)) for share, side in zip(seen, grid, strict=True))
    arguments = {"seen": part, "layers": layers, "budget": budget}
    assert_same(select(error_logit, threshold, **arguments), select_reference(error_logit, threshold, **arguments))


def test_equals_the_definition_on_a_whole_frame():
    rng = np.random.default_rng(0)
    error_logit = rng.normal(size=(257, 513)).astype(np.float32)
    assert_same(select(error_logit, 0.95), select_reference(error_logit, 0.95))


@pytest.mark.parametrize("kernels", list(itertools.product([1, 3], repeat=3)), ids=str)
@pytest.mark.parametrize("budget", [None, 900])
def test_supports_reach_as_far_as_the_kernels_behind_them(kernels, budget):
    error_logit, layers = (
        np.random.default_rng(2).normal(size=(15, 17)).astype(np.float32),
        Layers((9, 11, 13), kernels),
    )
    found = select(error_logit, 0.9, layers=layers, budget=budget)
    assert_same(found, select_reference(error_logit, 0.9, layers=layers, budget=budget))
    second, third = kernels[1] // 2, kernels[2] // 2
    for layer, reach in enumerate((second + third, third, 0)):
        wanted = cv2.dilate(found.flagged.view(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1)))
        np.testing.assert_array_equal(found.support(layer + 1), np.flatnonzero(wanted))


@pytest.mark.parametrize("pattern", ["none", "all", "corners", "checkers"])
@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (9, 1), (2, 2), (7, 11)], ids=str)
def test_supports_equal_the_definition_for_every_mask(pattern, grid):
    flagged = np.full(grid, pattern == "all")
    if pattern == "corners":
        flagged[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    if pattern == "checkers":
        flagged = np.indices(grid).sum(axis=0) % 4 == 0
    found = select(np.where(flagged, np.float32(1), np.float32(-1)), 0.5)
    np.testing.assert_array_equal(found.flagged, flagged)
    assert_same(found, supports_reference(flagged))
    assert found.left_out == 0


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_supports_by_hand(reach):
    flagged = np.zeros((7, 9), bool)
    flagged[3, 4] = flagged[0, 0] = True
    near = np.zeros_like(flagged)
    near[3 - reach : 4 + reach, 4 - reach : 5 + reach] = near[: 1 + reach, : 1 + reach] = True
    for selection in (supports_reference(flagged), select(flagged.astype(np.float32), 0.6)):
        rows, slots = selection.support(3 - reach), selection.slots[2 - reach]
        np.testing.assert_array_equal(rows, np.flatnonzero(near))
        np.testing.assert_array_equal(slots[rows], np.arange(len(rows)))
        assert (slots >= 0).sum() == len(rows)


@pytest.mark.parametrize("share", [0, 1e-4, 0.01, 0.1, 0.3, 0.7, 1])
def test_the_work_never_exceeds_the_budget_and_one_pixel_more_would(share):
    rng = np.random.default_rng(1)
    error_logit = rng.normal(size=(257, 513)).astype(np.float32)
    budget = int(share * error_logit.size * LAYERS.of_pixel)
    found = select(error_logit, 0.3, layers=LAYERS, budget=budget)
    assert found.work(LAYERS) <= budget
    over = np.flatnonzero(error_logit > np.log(0.3 / 0.7))
    assert len(found.support(3)) + found.left_out == len(over)
    if found.left_out:
        most = over[np.argsort(-error_logit.ravel()[over], kind="stable")][: len(found.support(3)) + 1]
        more = np.zeros(error_logit.shape, bool)
        more.ravel()[most] = True
        assert set(found.support(3)) < set(most)
        assert supports_reference(more).work(LAYERS) > budget


def test_more_budget_never_refines_fewer_pixels():
    error_logit = np.random.default_rng(2).normal(size=(31, 29)).astype(np.float32)
    counts = [len(select(error_logit, 0.4, layers=LAYERS, budget=budget).support(3)) for budget in range(0, 30000, 500)]
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[-1]


@pytest.mark.parametrize("seed", range(4))
def test_ties_enter_by_index(seed):
    rng = np.random.default_rng(seed)
    error_logit = rng.integers(1, 3, (12, 15)).astype(np.float32)
    error_logit[rng.random(error_logit.shape) < 0.2] = rng.choice([-0.0, 0.0])
    arguments = {"layers": Layers((0, 0, 1)), "budget": int(rng.integers(10, 170))}
    found = select(error_logit, 0.4, **arguments)
    order = np.argsort(-error_logit.ravel(), kind="stable")
    np.testing.assert_array_equal(found.support(3), np.sort(order[: arguments["budget"]]))


def test_zeros_of_both_signs_are_one_number():
    error_logit = np.zeros((2, 8), np.float32)
    error_logit.ravel()[::2] = -0.0
    found = select(error_logit, 0.4, layers=Layers((0, 0, 1)), budget=5)
    np.testing.assert_array_equal(found.support(3), [0, 1, 2, 3, 4])


@pytest.mark.parametrize("threshold", [1e-6, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_flags_what_exceeds_the_threshold(threshold):
    # The numbers around logit(t), which is none of them.
    logit = np.log(threshold) - np.log1p(-threshold)
    around = np.float32(logit) + np.arange(-6, 7, dtype=np.float32) * np.spacing(np.float32(logit))
    np.testing.assert_array_equal(select(around[None], threshold).flagged[0], around.astype(np.float64) > logit)
    halves = around.astype(np.float16)
    np.testing.assert_array_equal(select(halves[None], threshold).flagged[0], halves.astype(np.float64) > logit)


@pytest.mark.parametrize("align_corners", [False, True], ids=["half_pixel", "aligned"])
@pytest.mark.parametrize("content", [(36, 52), (21, 52), (20, 29), (1, 1)], ids=str)
@pytest.mark.parametrize("output", [None, (7, 90)], ids=["frame_size", "resized"])
def test_nothing_is_flagged_that_no_pixel_is_made_from(content, output, align_corners):
    geometry = Geometry((9, 13), (36, 52), content, output or content, align_corners)
    rows, cols = geometry.rows(), geometry.cols()

    def used(axis, count):
        """A grid line counts where some pixel gives it a weight above zero."""
        weight = np.zeros(count)
        np.maximum.at(weight, axis.lower, 1 - axis.weight)
        np.maximum.at(weight, np.minimum(axis.lower + 1, count - 1), axis.weight)
        return weight > 0

    last_row, last_col = (np.flatnonzero(used(*pair)).max() for pair in ((rows, 9), (cols, 13)))
    expected = np.zeros((9, 13), bool)
    expected[: last_row + 1, : last_col + 1] = True
    assert geometry.seen() == (last_row + 1, last_col + 1)
    everything = np.full((9, 13), 50.0, np.float32)
    found = select(everything, 0.5, seen=geometry.seen())
    np.testing.assert_array_equal(found.flagged, expected)
    # The padding may be computed, since the frame's last pixels look at it.
    assert found.counts.tolist() == sorted(found.counts, reverse=True)
    if last_col < 12:
        assert found.slots[1].reshape(9, 13)[0, last_col + 1] >= 0


def test_operands_are_left_alone():
    error_logit = np.random.default_rng(3).normal(size=(9, 13)).astype(np.float32)
    before = error_logit.copy()
    error_logit.setflags(write=False)
    select(error_logit, 0.4, seen=(5, 5), layers=LAYERS, budget=100)
    np.testing.assert_array_equal(error_logit, before)


def test_the_dispatcher_hands_on_every_argument():
    error_logit = np.random.default_rng(4).normal(size=(9, 13)).astype(np.float32)
    arguments = {"seen": (8, 7), "layers": LAYERS, "budget": 900}
    assert_same(select(error_logit, 0.4, **arguments), select_on_cpu(error_logit, 0.4, **arguments))


def test_the_threshold_itself_is_not_flagged():
    logits = np.zeros((3, 4), np.float32)
    assert not select(logits, 0.5).flagged.any()
    assert select(np.nextafter(logits, np.float32(1)), 0.5).flagged.all()


def test_logits_beyond_what_a_sigmoid_tells_apart_keep_their_order():
    logits = np.full((3, 4), 36.0, np.float32)
    logits[1, 2] = 37.0
    assert select(logits, 1 - 2**-53).flagged.nonzero() == (1, 2)
    logits[1, 3] = 38.0
    assert select(logits, 0.5, layers=Layers((0, 0, 1)), budget=1).flagged.nonzero() == (1, 3)


REFUSED = {
    "threshold_0": ({"threshold": 0.0}, "threshold must lie between 0 and 1, got 0.0"),
    "threshold_1": ({"threshold": 1.0}, "threshold must lie between 0 and 1, got 1.0"),
    "threshold_nan": ({"threshold": float("nan")}, "threshold must lie between 0 and 1, got nan"),
    "rank": (
        {"error_logit": np.zeros((2, 3, 4), np.float32)},
        r"error_logit must be .*\[h, w\], got float32 \[2, 3, 4\]",
    ),
    "dtype": ({"error_logit": np.zeros((3, 4), np.int32)}, r"error_logit must be .*, got int32 \[3, 4\]"),
    "float64": ({"error_logit": np.zeros((3, 4))}, "error_logit must be float32 or float16 .*, got float64"),
    "strides": ({"error_logit": np.zeros((4, 8), np.float32)[:, ::2]}, "error_logit must be C-contiguous"),
    "empty": ({"error_logit": np.zeros((0, 4), np.float32)}, r"error_logit must have pixels, got \[0, 4\]"),
    "nan": ({"error_logit": np.array([[0, np.nan]], np.float32)}, r"must be finite, got nan at \(0, 1\)"),
    "infinite": ({"error_logit": np.array([[0], [np.inf]], np.float16)}, r"must be finite, got inf at \(1, 0\)"),
    "a_list": ({"error_logit": [[0.0]]}, "error_logit must be a NumPy array or a CUDA tensor, got list"),
    "seen_beyond": ({"seen": (4, 1)}, r"seen must be rows and columns within \[3, 4\], got \(4, 1\)"),
    "seen_nothing": ({"seen": (0, 1)}, r"seen must be .*got \(0, 1\)"),
    "seen_three": ({"seen": (1, 1, 1)}, r"seen must be .*got \(1, 1, 1\)"),
    "seen_float": ({"seen": (1.0, 1)}, r"seen must be .*got \(1.0, 1\)"),
    "negative_work": ({"layers": Layers((1, -1, 1))}, r"layers' work must be three counts .*got \(1, -1, 1\)"),
    "even_kernel": ({"layers": Layers(kernels=(3, 2, 3))}, r"kernels must be three sides of 3 or 1, got \(3, 2, 3\)"),
    "two_kernels": ({"layers": Layers(kernels=(3, 3))}, r"kernels must be three sides of 3 or 1, got \(3, 3\)"),
    "two_works": ({"layers": Layers((1, 1))}, r"layers' work must be three counts .*got \(1, 1\)"),
    "negative_budget": ({"budget": -1}, "budget must be a count of multiply-adds, got -1"),
    "budget_as_share": ({"budget": 0.2}, "budget must be a count of multiply-adds, got 0.2"),
}


@pytest.mark.parametrize("function", [select, select_reference])
@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_operands_that_do_not_fit(function, change, message):
    arguments = {"error_logit": np.zeros((3, 4), np.float32), "threshold": 0.5, **change}
    with pytest.raises(ValueError, match=message):
        function(arguments.pop("error_logit"), arguments.pop("threshold"), **arguments)


def test_tensors_of_the_cpu_are_refused():
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    with pytest.raises(ValueError, match="on an NVIDIA GPU, got cpu"):
        select(torch.zeros(3, 4), 0.5)
