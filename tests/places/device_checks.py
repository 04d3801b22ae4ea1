"""The whole frame on a device, in Triton's interpreter, against the runtime on the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import triton

from errseg_rt import Runtime
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.open import open_engine
from errseg_rt.errors import EngineError
from errseg_rt.frames.frame import Ask
from errseg_rt.options import Limits, Options
from errseg_rt.pipeline.direct import Direct
from errseg_rt.pipeline.outcome import Outcome
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.places.cpu import Cpu
from errseg_rt.scenes import StreetScene
from tests.boxed import LARGE, Boxed, blocks, boxed_bundle
from tests.kernels.wide_tiles import widen_tiles
from tests.opening import engine_on_cpu
from tests.places.eager_gpu import EagerGpu

assert triton.knobs.runtime.interpret
SIZE = (75, 107)
T = 0.9  # flags a third of these small frames


@pytest.fixture(autouse=True)
def wide_tiles(monkeypatch):
    """Widen tiles for the interpreter, whose time goes by program."""
    widen_tiles(monkeypatch)


@pytest.fixture(scope="module")
def frame():
    return StreetScene(7, *SIZE).frame(0).frame


def bundle(scale=1.0):
    """The embedded one, for frames as they are: OpenCV rounds what it resizes to whole levels, the GPU does not."""
    embedded = Bundle.open("camvid")
    spec = replace(embedded.manifest.input, scale=scale, enlarge_up_to=0)
    return replace(embedded, manifest=replace(embedded.manifest, input=spec))


class Walk:
    """A pipeline on a device, with limits of its own."""

    def __init__(self, precision="fp32", *, detail="sparse", budget=None, threshold=T, scale=1.0):
        opened, gpu = bundle(scale), EagerGpu()
        options = Options("torch", device="cuda", precision=precision)
        self.front, stage3 = (open_engine(opened, graph, options, gpu) for graph in ("front", "refine"))
        self.pipeline = Pipeline(opened, self.front, stage3, gpu, detail=detail)
        self.limits = Limits(threshold, budget)

    def run(self, frame, **ask):
        words = torch.from_numpy(self.pipeline.plan(frame.shape[:2]).bounds(self.limits).words())
        return self.pipeline.run(torch.from_numpy(frame), Ask(**ask), words, self.pipeline.place.marks())

    def branches(self, frame, **how):
        return self.pipeline.branches(torch.from_numpy(frame), **how)


def on_the_cpu(**options):
    return Runtime(bundle(), engine="torch", threshold=T, **options)


def same_but_for_ties(ours, theirs):
    """Logits differ in rounding: no pixel of these small frames is that near to a tie, or to t."""
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(ours.flagged, theirs.flagged)
    np.testing.assert_allclose(ours.error_probability, theirs.error_probability, rtol=0, atol=1e-3)
    assert ours.left_out == theirs.left_out
    assert ours.geometry == theirs.geometry


@pytest.mark.parametrize("detail", ["sparse", "dense"])
def test_is_the_runtime_on_the_cpu(frame, detail):
    results = Walk(detail=detail).run(frame, confidence=True, semantic=True)
    assert isinstance(results, Outcome)
    ours = results.cpu()
    with on_the_cpu(detail=detail) as runtime:
        theirs = runtime.segment(frame, confidence=True, semantic=True)
    assert 0 < theirs.refined < 0.9 * theirs.flagged.size
    same_but_for_ties(ours, theirs)
    assert ours.work == theirs.work
    np.testing.assert_array_equal(ours.semantic_labels, theirs.semantic_labels)
    semantic = ours.semantic_error_probability
    np.testing.assert_allclose(semantic, theirs.semantic_error_probability, rtol=0, atol=1e-3)
    assert np.abs(ours.error_probability - semantic)[ours.flagged].max() > 0.05
    np.testing.assert_array_equal(ours.error_probability[~ours.flagged], semantic[~ours.flagged])
    np.testing.assert_allclose(ours.confidence, theirs.confidence, rtol=0, atol=1e-3)
    assert (ours.labels.dtype, ours.labels.shape) == (np.uint8, SIZE)


@pytest.mark.parametrize("changes", [{"top": 1}, {"top": 2, "hops": 2, "agreement": True}], ids=str)
def test_instances_are_those_of_the_cpu(frame, changes):
    spec = boxed_bundle(things=LARGE, least_pixels=2, **changes).manifest.instances
    opened, ran = replace(bundle(), manifest=replace(bundle().manifest, instances=spec)), Walk()
    stage3, place = ran.pipeline.refinement._stage3, ran.pipeline.place
    ran.pipeline = Pipeline(opened, Boxed(ran.front, blocks, taken=torch.from_numpy), stage3, place)
    ours = ran.run(frame).cpu()
    front, stage3 = (engine_on_cpu("torch", bundle(), graph) for graph in ("front", "refine"))
    on_cpu = Direct(Pipeline(opened, Boxed(front, blocks), stage3, Cpu(1)))
    theirs = on_cpu.submit(frame, Ask(), Limits(T)).result()
    assert len(theirs.instances) > 10
    same_but_for_ties(ours, theirs)
    same_instances(ours.instances, theirs.instances)
    assert ran.run(frame, instances=False).cpu().instances is None


def same_instances(ours, theirs):
    """Scores differ in rounding: instances whose scores are alike may change their places."""
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=1e-3)
    assert np.array_equal(ours.map > 0, theirs.map > 0)
    pairs = np.unique(np.stack([ours.map.ravel(), theirs.map.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(theirs.map))  # one to one
    for mine, its in pairs[:, pairs[0] > 0].T - 1:
        assert ours.classes[mine] == theirs.classes[its]
        assert ours.error_probability[mine] == pytest.approx(theirs.error_probability[its], abs=1e-3)


def test_a_budget_binds_on_the_device(frame):
    with on_the_cpu(budget=0.2) as runtime:
        theirs = runtime.segment(frame)
    ours = Walk(budget=0.2).run(frame).cpu()
    same_but_for_ties(ours, theirs)
    assert ours.left_out > 0
    assert ours.work == theirs.work <= 0.2
    none = Walk(budget=0.0).run(frame).cpu()
    assert (none.refined, none.work) == (0, 0)


def test_half_precision(frame):
    """float16 end to end. (The interpreter's products of bfloat16 are wrong.)"""
    with on_the_cpu() as runtime:
        theirs = runtime.segment(frame)
    ours = Walk("fp16").run(frame).cpu()
    assert (ours.labels == theirs.labels).mean() > 0.99
    assert np.abs(ours.error_probability - theirs.error_probability).mean() < 0.01


def test_colors_and_strides(frame):
    ran = Walk()
    wanted = ran.run(frame).labels
    planes = np.ascontiguousarray(frame[..., ::-1].transpose(2, 0, 1)).transpose(1, 2, 0)
    assert torch.equal(ran.run(planes, color="rgb").labels, wanted)


def test_branches_are_those_of_the_cpu(frame):
    ours = Walk().branches(frame)
    with on_the_cpu() as runtime:
        theirs = runtime.branches(frame)
        scaled = runtime.branches(frame, scale=1.5)
    assert ours.geometry == theirs.geometry
    for name in ("logits", "error_logit", "detail_logits"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=2e-3)
    assert Walk().branches(frame, scale=1.5).geometry == scaled.geometry


def test_a_frame_that_the_bundle_enlarges(frame):
    ours = Walk(scale=1.5).run(frame).cpu()
    with Runtime(bundle(1.5), engine="torch", threshold=T) as runtime:
        theirs = runtime.segment(frame)
    assert ours.geometry == theirs.geometry
    # Inputs differ by up to a level.
    assert (ours.labels == theirs.labels).mean() > 0.95
    assert np.abs(ours.error_probability - theirs.error_probability).mean() < 0.02


def test_values_that_are_not_finite_name_their_branch(frame, monkeypatch):
    ran = Walk()
    run = ran.front.run
    for name, branch in (("logits", "semantic"), ("error_logit", "error-prediction")):

        def broken(feeds, name=name):
            outputs = dict(run(feeds))
            outputs[name] = outputs[name].clone()
            outputs[name][..., 3, 4] = torch.inf
            return outputs

        monkeypatch.setattr(ran.front, "run", broken)
        results = ran.run(frame)
        for read in (results.cpu, lambda: ran.branches(frame)):
            with pytest.raises(EngineError, match=f"the {branch} branch.* gave values that are not finite: .*bf16"):
                read()
