"""The way of a frame: on the CPU what it is on a place of definitions, and all that follows from a frame's size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.errors import BundleError, EngineError
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels.geometry import Geometry
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
    np.testing.assert_allclose(ours.error_probability, theirs.error_probability, rtol=0, atol=1e-6)
    assert list(ours.timings) == ["preprocess", "front", "select", "refine", "fuse", "semantic"]


def test_branches_are_the_definitions(bundle, engines, street) -> None:
    ours, theirs = (way.branches(street, scale=0.75) for way in ways(bundle, engines))
    assert ours.geometry == theirs.geometry
    for name in ("logits", "error_logit", "detail_logits"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [*SIZES, (360, 480), (1025, 2049), (2160, 3840)], ids=str)
def test_a_plan_is_what_follows_from_a_size(bundle, size) -> None:
    manifest = bundle.manifest
    plan = Plan.of(manifest, manifest.input, size, 1.0, (5, 3, 2))
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
