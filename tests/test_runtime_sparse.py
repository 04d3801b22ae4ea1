"""Sparse refinement in the runtime: the same labels as everywhere, within a budget, within a deadline."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from errseg_rt.errors import BundleError
from errseg_rt.kernels.refine import BREAK_EVEN
from errseg_rt.kernels.select import supports_reference
from errseg_rt.kernels.select.operands import Bounds
from errseg_rt.places import cpu
from errseg_rt.runtime import Runtime
from errseg_rt.scenes import StreetScene

ALMOST_ZERO, ALMOST_ONE = 1e-300, 1 - 2**-53
LARGEST_DIFFERENCE = 1e-4  # of float32 logits, summed in another order

SIZES = [(1, 1), (2, 90), (33, 17), (97, 131), (181, 243)]
every_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
every_threshold = pytest.mark.parametrize("threshold", [ALMOST_ZERO, 0.05, 0.7, ALMOST_ONE], ids=str)


@pytest.fixture(scope="module")
def dense() -> Iterator[Runtime]:
    with Runtime(detail="dense", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def street() -> np.ndarray:
    return StreetScene(seed=3, height=181, width=243).frame(0).frame


def read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture


def check_sparse_equals_dense(sparse: Runtime, dense: Runtime, frame: np.ndarray, threshold: float) -> None:
    """Flagged logits within rounding, and labels the same wherever the dense margin exceeds twice that."""
    branches = dense.branches(frame)
    pipeline = sparse._way.pipeline
    plan = pipeline.plan(frame.shape[:2])
    front = pipeline._dense(frame, "bgr", plan, pipeline.place.marks())
    bounds = Bounds(threshold)
    selection = pipeline.place.select(branches.error_logit, bounds, seen=plan.seen, layers=sparse.layers)
    # With a budget of 0 the dense stage never takes over.
    refined = pipeline.refinement.run(front, selection, plan, bounds._replace(budget=0))
    flagged = branches.flagged(threshold)
    np.testing.assert_array_equal(selection.flagged, flagged)
    if flagged.any():
        wanted = branches.detail_logits[:, flagged].T
        difference = np.abs(refined.detail - wanted).max()
        assert difference <= LARGEST_DIFFERENCE
        second, first = np.partition(wanted, -2, axis=1)[:, -2:].T
        is_clear = first - second > 2 * difference
        np.testing.assert_array_equal(refined.detail.argmax(1)[is_clear], wanted.argmax(1)[is_clear])

    one, other = (runtime.segment(frame, threshold=threshold) for runtime in (sparse, dense))
    np.testing.assert_array_equal(one.flagged, other.flagged)
    assert one.left_out == other.left_out == 0
    # A pixel in a frame may tie within rounding between the same two classes.
    assert (one.labels != other.labels).sum() <= max(1, one.labels.size // 100_000)


@every_size
@every_threshold
def test_rendered_frames(runtime: Runtime, dense: Runtime, street, size, threshold) -> None:
    check_sparse_equals_dense(runtime, dense, np.ascontiguousarray(street[: size[0], : size[1]]), threshold)


@pytest.mark.parametrize("threshold", [0.05, 0.7])
def test_real_frames(runtime: Runtime, dense: Runtime, camvid_val, threshold) -> None:
    for path in sorted((camvid_val / "images").iterdir())[:40:20]:
        check_sparse_equals_dense(runtime, dense, read(path), threshold)


def test_a_large_real_frame(runtime: Runtime, dense: Runtime, cityscapes) -> None:
    path = sorted((cityscapes / "leftImg8bit" / "train" / "aachen").glob("*.png"))[0]
    check_sparse_equals_dense(runtime, dense, read(path)[:701, :1203], runtime.threshold)


def test_the_torch_engine(street) -> None:
    pytest.importorskip("torch")
    with Runtime(engine="torch", threads=1) as sparse, Runtime(engine="torch", detail="dense", threads=1) as dense:
        check_sparse_equals_dense(sparse, dense, street, sparse.threshold)


@pytest.mark.parametrize("threads", [2, 5])
def test_the_number_of_threads_changes_nothing(dense: Runtime, street, threads) -> None:
    with Runtime(threads=threads) as sparse:
        check_sparse_equals_dense(sparse, dense, street, sparse.threshold)


def test_all_flagged_and_none_flagged(runtime: Runtime, street) -> None:
    everything = runtime.segment(street, threshold=ALMOST_ZERO)
    rows, cols = everything.geometry.seen()
    assert (everything.refined, everything.left_out) == (rows * cols, 0)
    assert everything.work == 1
    nothing = runtime.segment(street, semantic=True, threshold=ALMOST_ONE)
    assert (nothing.refined, nothing.left_out, nothing.work) == (0, 0, 0)
    np.testing.assert_array_equal(nothing.labels, nothing.semantic_labels)


def test_work_is_that_of_the_supports(runtime: Runtime, street) -> None:
    result = runtime.segment(street, threshold=0.95)
    work = supports_reference(result.flagged, runtime.layers).work(runtime.layers)
    assert 0 < result.work == work / (result.flagged.size * runtime.layers.of_pixel) < BREAK_EVEN


BUDGETS = [0.0, 1e-9, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.8, 0.999, 1.0]


@pytest.mark.parametrize("threshold", [ALMOST_ZERO, 0.2, 0.7])
def test_the_budget_is_never_exceeded_and_more_of_it_never_refines_less(runtime: Runtime, street, threshold) -> None:
    whole, error_logit = runtime.segment(street, threshold=threshold), runtime.branches(street).error_logit
    before, dense_work = np.zeros_like(whole.flagged), whole.flagged.size * runtime.layers.of_pixel
    for budget in BUDGETS:
        result = runtime.segment(street, threshold=threshold, budget=budget)
        spent = supports_reference(result.flagged, runtime.layers).work(runtime.layers)
        assert spent <= int(budget * dense_work)
        if budget < 1:  # a budget of 1 leaves room for the dense stage
            assert result.work == spent / dense_work
        assert result.refined + result.left_out == result.over_threshold == whole.refined
        assert (result.flagged | before == result.flagged).all()
        left_out = whole.flagged & ~result.flagged
        if result.refined and left_out.any():
            assert error_logit[result.flagged].min() >= error_logit[left_out].max()
        # One more pixel, the most doubtful of those left out, would not have fitted.
        if left_out.any():
            more = result.flagged.copy()
            more.flat[np.where(left_out, error_logit, -np.inf).argmax()] = True
            assert supports_reference(more, runtime.layers).work(runtime.layers) > int(budget * dense_work)
        before = result.flagged
    assert (before == whole.flagged).all()


def test_pixels_that_a_budget_leaves_out_keep_their_semantic_labels(street) -> None:
    with Runtime(threads=1, threshold=0.2, budget=0.0) as limited:
        result = limited.segment(street, semantic=True)
    assert result.left_out == result.over_threshold > 0
    assert (result.flagged.any(), result.work) == (False, 0)
    np.testing.assert_array_equal(result.labels, result.semantic_labels)


def test_a_budget_for_all_changes_nothing(runtime: Runtime, street) -> None:
    with Runtime(threads=1, budget=1.0) as limited:
        result, wanted = limited.segment(street), runtime.segment(street)
    np.testing.assert_array_equal(result.labels, wanted.labels)
    assert (result.left_out, result.work) == (0, wanted.work)


class Machine:
    """A machine whose time is known: a clock that only the front graph and refinement move.

    Attributes:
        front_ms: Milliseconds of the front graph.
        per_work: Milliseconds of a multiply-add of refinement.
    """

    def __init__(self, runtime: Runtime, front_ms: float, per_work: float) -> None:
        self.front_ms, self.per_work = front_ms, per_work
        self.now_ms = 0.0
        pipeline = runtime._way.pipeline
        self._engine, self._refine = pipeline._front, pipeline.refinement.run
        pipeline._front = SimpleNamespace(inputs=self._engine.inputs, run=self._run_front)
        pipeline.refinement.run = self._run_refinement

    def perf_counter(self) -> float:
        return self.now_ms / 1000

    def _run_front(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        self.now_ms += self.front_ms
        return self._engine.run(feeds)

    def _run_refinement(self, front: Any, selection: Any, plan: Any, bounds: Any) -> Any:
        refined = self._refine(front, selection, plan, bounds)
        work = plan.dense_work if refined.layers is None else selection.work(refined.layers)
        self.now_ms += 0.2 + self.per_work * work if work else 0.0
        return refined


@pytest.fixture
def machine(monkeypatch) -> Callable[..., Machine]:
    def make(runtime: Runtime, front_ms: float, per_work: float) -> Machine:
        made = Machine(runtime, front_ms, per_work)
        monkeypatch.setattr(cpu, "time", made)
        return made

    return make


def test_a_deadline_becomes_a_budget_that_follows_the_machine(street, machine) -> None:
    with Runtime(threads=1, threshold=ALMOST_ZERO, deadline_ms=30) as limited:
        dense_work = limited.branches(street).error_logit.size * limited.layers.of_pixel
        fast = machine(limited, front_ms=10, per_work=40 / dense_work)  # half of the dense stage in 20 ms
        results = [limited.segment(street) for _ in range(4)]
        assert all(result.milliseconds <= 30 for result in results)
        assert 0.2 < results[-1].work <= 0.5
        assert results[-1].left_out > 0
        fast.front_ms = 20
        slower = [limited.segment(street) for _ in range(4)]
        assert all(result.milliseconds <= 30 for result in slower)
        assert 0 < slower[-1].work < 0.6 * results[-1].work
        fast.front_ms = 10
        again = [limited.segment(street) for _ in range(4)]
        assert again[-1].work > 1.5 * slower[-1].work


def test_a_deadline_that_the_front_graph_misses_refines_nothing(street, machine) -> None:
    with Runtime(threads=1, threshold=0.2, deadline_ms=5) as limited:
        machine(limited, front_ms=10, per_work=1e-9)
        results = [limited.segment(street, semantic=True) for _ in range(3)]
    for result in results:
        assert (result.refined, result.work) == (0, 0)
        assert result.left_out > 0
        np.testing.assert_array_equal(result.labels, result.semantic_labels)


def test_a_late_deadline_refines_everything(runtime: Runtime, street, machine) -> None:
    with Runtime(threads=1, deadline_ms=1e6) as limited:
        machine(limited, front_ms=10, per_work=1e-7)
        result = [limited.segment(street) for _ in range(3)][-1]
    assert result.left_out == 0
    np.testing.assert_array_equal(result.labels, runtime.segment(street).labels)


def test_a_deadline_on_several_threads(runtime: Runtime, street) -> None:
    frames = [np.ascontiguousarray(street[: 60 + 10 * index]) for index in range(4)]
    with Runtime(threads=1, deadline_ms=1e6) as limited:
        for _ in range(2):
            limited.segment(street)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(limited.segment, frames))
    for frame, result in zip(frames, results, strict=True):
        np.testing.assert_array_equal(result.labels, runtime.segment(frame).labels)


def test_sparse_is_the_default_and_is_told(runtime: Runtime, dense: Runtime) -> None:
    assert (runtime.detail, dense.detail) == ("sparse", "dense")
    assert (runtime.limits.budget, runtime.limits.deadline_ms) == (None, None)


def test_a_bundle_without_frozen_norms_is_refined_densely(dense: Runtime, bundle_copy: Path, street) -> None:
    table = json.loads((bundle_copy / "manifest.json").read_text())
    del table["cascade"]["detail_frozen"]
    (bundle_copy / "manifest.json").write_text(json.dumps(table))
    with Runtime(bundle_copy, threads=1) as old:
        assert old.detail == "dense"
        result = old.segment(street)
        assert result.work == 1
        np.testing.assert_array_equal(result.labels, dense.segment(street).labels)
    for wanted in ({"detail": "sparse"}, {"budget": 0.5}, {"deadline_ms": 50}):
        with pytest.raises(BundleError, match="its detail branch has no frozen norms"):
            Runtime(bundle_copy, **wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"detail": "Sparse"}, "detail must be sparse or dense, got 'Sparse'"),
        ({"detail": ""}, "detail must be sparse or dense, got ''"),
        ({"budget": -0.1}, r"budget must be a share in 0\.\.1, got -0\.1"),
        ({"budget": 1.1}, r"budget must be a share in 0\.\.1, got 1\.1"),
        ({"budget": float("nan")}, r"budget must be a share in 0\.\.1, got nan"),
        ({"deadline_ms": 0}, "deadline_ms must be a positive number, got 0"),
        ({"deadline_ms": -5}, "deadline_ms must be a positive number, got -5"),
        ({"deadline_ms": float("inf")}, "deadline_ms must be a positive number, got inf"),
        ({"deadline_ms": float("nan")}, "deadline_ms must be a positive number, got nan"),
        ({"budget": 0.5, "deadline_ms": 20}, r"give one of them, got budget = 0\.5 and deadline_ms = 20"),
        ({"detail": "dense", "budget": 0.5}, "detail must be sparse for a budget or a deadline, got 'dense'"),
        ({"detail": "dense", "deadline_ms": 20}, "detail must be sparse for a budget or a deadline, got 'dense'"),
    ],
    ids=str,
)
def test_limits_that_are_none(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        Runtime(**arguments)
