"""Instances on the way of a frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.errors import BundleError, EngineError
from errseg_rt.frames.frame import Ask
from errseg_rt.options import Limits
from errseg_rt.pipeline.direct import Direct
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.places.cpu import Cpu
from errseg_rt.scenes import StreetScene
from tests.boxed import Boxed, boxed_bundle, boxes_of
from tests.opening import engine_on_cpu
from tests.places.definition import Definition

SIZE = (150, 210)


@pytest.fixture(scope="module")
def scene():
    return StreetScene(4, *SIZE).frame(0)


@pytest.fixture(scope="module")
def engines():
    embedded = Bundle.open("camvid")
    return [engine_on_cpu("onnxruntime", embedded, graph) for graph in ("front", "refine")]


def way(engines, scene, place=None, boxes=None, **changes):
    front = Boxed(engines[0], boxes or boxes_of(scene.instances))
    return Direct(Pipeline(boxed_bundle(**changes), front, engines[1], place or Cpu(2), detail="sparse"))


@pytest.mark.parametrize("changes", [{}, {"top": 2, "least_pixels": 3}, {"hops": 3, "agreement": True}], ids=str)
def test_the_cpu_is_the_definition(engines, scene, changes):
    ours, theirs = (
        way(engines, scene, place, **changes).submit(scene.frame, Ask(), Limits(0.5)).result()
        for place in (Cpu(2), Definition())
    )
    assert len(ours.instances) == len(theirs.instances) > 2
    # Logits of flagged pixels are float32 sums in another order.
    assert (ours.instances.map != theirs.instances.map).mean() < 1e-3
    np.testing.assert_array_equal(ours.instances.classes, theirs.instances.classes)
    np.testing.assert_allclose(ours.instances.scores, theirs.instances.scores, rtol=0, atol=1e-4)
    assert list(ours.timings) == ["preprocess", "front", "select", "refine", "fuse", "instances"]


def test_what_is_known_of_them(engines, scene):
    result = way(engines, scene, least_pixels=4).submit(scene.frame, Ask(), Limits(0.5)).result()
    found = result.instances
    assert found.class_set == result.classes
    assert (np.diff(found.scores) <= 0).all()
    errors = result.error_map()
    for k, area in enumerate(found.areas):
        mask = found.map == k + 1
        assert area == mask.sum() > 0
        assert set(result.labels[mask]) == {found.classes[k]}
        assert found.error_probability[k] == pytest.approx(errors[mask].mean(), abs=1e-5)


def test_they_can_be_left_out(engines, scene):
    result = way(engines, scene).submit(scene.frame, Ask(instances=False), Limits(0.5)).result()
    assert result.instances is None
    assert "instances" not in result.timings


def test_a_bundle_without_boxes_has_none(engines, scene):
    plain = Direct(Pipeline(Bundle.open("camvid"), *engines, Cpu(1)))
    assert plain.submit(scene.frame, Ask(), Limits(0.5)).result().instances is None


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (33, 17), (75, 107)], ids=str)
def test_odd_sizes(engines, scene, size):
    frame = np.ascontiguousarray(scene.frame[: size[0], : size[1]])
    part = replace(scene, instances=scene.instances[: size[0], : size[1]])
    ours, theirs = (
        way(engines, part, place).submit(frame, Ask(), Limits(0.99)).result().instances
        for place in (Cpu(2), Definition())
    )
    assert ours.map.shape == size
    assert len(ours) == len(theirs)
    assert (ours.map != theirs.map).sum() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_boxes_that_are_not_finite_name_their_branch(engines, scene, value):
    def boxes(grid):
        found = boxes_of(scene.instances)(grid)
        found[5, -1, -1] = value
        return found

    with pytest.raises(EngineError, match="the localization branch gave values that are not finite"):
        way(engines, scene, boxes=boxes).submit(scene.frame, Ask(), Limits(0.5))


def test_a_graph_without_boxes_is_refused(engines):
    with pytest.raises(BundleError, match="its graphs do not fit together"):
        Pipeline(boxed_bundle(), *engines, Cpu(1))


def test_a_thing_without_boxes_is_refused(engines, scene):
    front = Boxed(engines[0], boxes_of(scene.instances), channels=8)
    with pytest.raises(BundleError, match="boxes of 8 channels where 3 classes of instances need 12; export it again"):
        Pipeline(boxed_bundle(), front, engines[1], Cpu(1))


def test_the_runtime_hands_on_what_is_asked(engines, scene, monkeypatch):
    from errseg_rt import Runtime
    from errseg_rt.pipeline import open as opening

    monkeypatch.setattr(
        opening,
        "open_engine",
        lambda bundle, graph, options, place: (
            Boxed(engines[0], boxes_of(scene.instances)) if graph == "front" else engines[1]
        ),
    )
    with Runtime(boxed_bundle()) as runtime:
        runtime.warm_up()
        assert len(runtime.segment(scene.frame).instances) > 2
        assert runtime.segment(scene.frame, instances=False).instances is None


def test_warming_up_compiles_what_instances_need(engines, scene):
    from errseg_rt.kernels.instances import loops

    way(engines, scene, top=2).prepare((64, 64))
    for loop in (loops.rank_rows, loops.list_candidates, loops.group, loops.weigh, loops.accept, loops.paint_rows):
        assert loop.signatures
    before = {name: len(getattr(loops, name).signatures) for name in ("rank_rows", "group", "accept", "paint_rows")}
    way(engines, scene, top=2).submit(scene.frame, Ask(), Limits(0.5)).result()
    assert {name: len(getattr(loops, name).signatures) for name in before} == before
