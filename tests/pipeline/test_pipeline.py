"""The way of a frame: on the CPU what it is on a place of definitions, and all that follows from a frame's size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.errors import BundleError, EngineError
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels.calibrate.reference import calibrate_reference
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.select import Layers
from errseg_rt.kernels.select.operands import Bounds
from errseg_rt.options import Limits
from errseg_rt.pipeline.direct import Direct
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.pipeline.plan import Plan
from errseg_rt.places.cpu import Cpu
from errseg_rt.scenes import StreetScene
from tests.opening import engine_on_cpu
from tests.places.definition import Definition

SIZES = [(1, 1), (2, 90), (33, 17), (75, 107)]
EVERYTHING = Ask(confidence=True, semantic=True)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open("camvid")


@pytest.fixture(scope="module")
def engines(bundle):
    return [engine_on_cpu("onnxruntime", bundle, graph) for graph in ("front", "refine")]


@pytest.fixture(scope="module")
def street():
    return StreetScene(7, 75, 107).frame(0).frame


def ways(bundle, engines, **how):
    return [Direct(Pipeline(bundle, *engines, place, **how)) for place in (Cpu(2), Definition())]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("detail", "limits"),
    [("sparse", Limits(0.7)), ("sparse", Limits(0.3, 0.1)), ("sparse", Limits(0.95)), ("dense", Limits(0.5))],
    ids=["plain", "budget", "few", "dense"],
)
def test_the_cpu_is_the_definition(bundle, engines, street, size, detail, limits) -> None:
    frame = np.ascontiguousarray(street[: size[0], : size[1]])
    ours, theirs = (way.submit(frame, EVERYTHING, limits).result() for way in ways(bundle, engines, detail=detail))
    for name in ("flagged", "semantic_labels"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert (ours.left_out, ours.work, ours.geometry) == (theirs.left_out, theirs.work, theirs.geometry)
    # Logits of 30 are float32 sums in another order; a pixel in a frame may tie within that.
    assert (ours.labels != theirs.labels).sum() <= 1
    np.testing.assert_allclose(ours.confidence, theirs.confidence, rtol=0, atol=1e-4)
    # The final label's is of the detail branch's logits, the semantic one's of an error logit that both are given.
    np.testing.assert_allclose(ours.error_probability, theirs.error_probability, rtol=0, atol=1e-5)
    semantic = ours.semantic_error_probability
    np.testing.assert_allclose(semantic, theirs.semantic_error_probability, rtol=0, atol=1e-6)
    assert list(ours.timings) == ["preprocess", "front", "select", "refine", "fuse", "semantic"]


def without_map(bundle):
    """As bundles were before there was a map of the detail branch's labels."""
    return replace(bundle, manifest=replace(bundle.manifest, detail_calibration=None))


@pytest.mark.parametrize("detail", ["sparse", "dense"])
@pytest.mark.parametrize("limit", [0.8, 0.3])
def test_the_error_probability_is_of_the_final_label(bundle, engines, street, detail, limit) -> None:
    if limit != bundle.manifest.threshold:
        bundle = replace(bundle, manifest=replace(bundle.manifest, detail_threshold=limit))
    way = Direct(Pipeline(bundle, *engines, Cpu(2), detail=detail))
    result, branches = way.submit(street, EVERYTHING, Limits(0.5)).result(), way.branches(street)
    assert 0 < result.refined < result.flagged.size
    flagged, manifest = result.flagged, bundle.manifest
    semantic = calibrate_reference(
        branches.error_logit, manifest.calibration.logits, manifest.calibration.probabilities
    )
    p_db = softmax(branches.detail_logits.astype(np.float64), axis=0).max(axis=0)
    of_detail = manifest.detail_calibration
    final = np.interp(np.log(1 - p_db) - np.log(p_db), of_detail.logits, of_detail.probabilities)
    np.testing.assert_allclose(result.semantic_error_probability, semantic, rtol=0, atol=1e-5)
    # What a lower t than the bundle's flags besides has no map of the detail branch's doubt.
    above = flagged & (branches.error_logit > np.log(limit / (1 - limit)))
    assert 0 < above.sum() <= flagged.sum()
    assert (above.sum() < flagged.sum()) == (limit > 0.5)
    np.testing.assert_allclose(result.error_probability, np.where(above, final, semantic), rtol=0, atol=1e-5)
    assert np.abs(result.error_probability - semantic)[above].max() > 0.05
    assert result.expected_error == pytest.approx(result.error_map().mean(), abs=1e-6)
    assert not np.array_equal(result.error_map(), result.semantic_error_map())


@pytest.mark.parametrize("detail", ["sparse", "dense"])
def test_without_a_map_of_its_own_the_final_label_has_the_semantic_ones(bundle, engines, street, detail) -> None:
    old, new = (
        Direct(Pipeline(each, *engines, Cpu(2), detail=detail)).submit(street, EVERYTHING, Limits(0.5)).result()
        for each in (without_map(bundle), bundle)
    )
    assert old.refined == new.refined > 0
    np.testing.assert_array_equal(old.error_probability, new.semantic_error_probability)
    np.testing.assert_array_equal(old.error_probability, old.semantic_error_probability)
    np.testing.assert_array_equal(old.labels, new.labels)


def test_where_nothing_is_flagged_both_labels_are_one(bundle, engines, street) -> None:
    result = Direct(Pipeline(bundle, *engines, Cpu(2))).submit(street, EVERYTHING, Limits(1 - 1e-9)).result()
    assert result.refined == 0
    np.testing.assert_array_equal(result.error_probability, result.semantic_error_probability)


def test_errors_of_semantic_labels_are_asked_for(bundle, engines, street) -> None:
    result = Direct(Pipeline(bundle, *engines, Cpu(2))).submit(street, Ask(), Limits(0.7)).result()
    assert (result.semantic_labels, result.semantic_error_probability) == (None, None)
    with pytest.raises(ValueError, match="ask segment for these, by semantic=True"):
        result.semantic_error_map()


def test_branches_are_the_definitions(bundle, engines, street) -> None:
    ours, theirs = (way.branches(street, scale=0.75) for way in ways(bundle, engines))
    assert ours.geometry == theirs.geometry
    for name in ("logits", "error_logit", "detail_logits"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [*SIZES, (360, 480), (1025, 2049), (2160, 3840)], ids=str)
def test_a_plan_is_what_follows_from_a_size(bundle, size) -> None:
    manifest = bundle.manifest
    plan = Plan.of(manifest, manifest.input, size, 1.0, Layers((5, 3, 2)))
    padded = manifest.input.input_size(size)
    grid = tuple(-(-side // manifest.grid_stride) for side in padded)
    assert plan.geometry == Geometry(grid, padded, manifest.input.content_size(size), size, manifest.align_corners)
    assert (plan.grid, plan.seen, plan.dense_work) == (grid, plan.geometry.seen(), 10 * grid[0] * grid[1])
    assert plan.bounds(Limits(0.6)) == Bounds(0.6, None)
    assert plan.bounds(Limits(0.6, 0.1)) == Bounds(0.6, int(0.1 * plan.dense_work))


def test_another_stride_than_the_graphs_is_named(bundle, engines, street) -> None:
    wrong = replace(bundle, manifest=replace(bundle.manifest, grid_stride=8))
    way = Direct(Pipeline(wrong, *engines, Cpu(1)))
    with pytest.raises(
        EngineError, match=r"gave a grid of \(\d+, \d+\) where the manifest's stride makes \(\d+, \d+\)"
    ):
        way.submit(street, Ask(), Limits(0.7))


def test_graphs_that_do_not_fit_are_named(bundle, engines) -> None:
    front, stage3 = engines
    with pytest.raises(BundleError, match="its graphs do not fit together; export it again"):
        Pipeline(bundle, stage3, front, Cpu(1))


def test_a_frame_that_is_done_says_so(bundle, engines, street) -> None:
    way, seen = ways(bundle, engines)[0], []
    under_way = way.submit(street, Ask(), Limits(0.7))
    under_way._seen = seen.append
    assert under_way.done()
    np.testing.assert_array_equal(under_way.result().labels, under_way.result().labels)
    assert len(seen) == 1
