"""The whole frame on a device, in Triton's interpreter, against the runtime on the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import triton

from errseg_rt import Runtime
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines import open_device_engine
from errseg_rt.errors import EngineError
from errseg_rt.pipeline.outcome import DeviceSegmentation
from errseg_rt.pipeline.pipeline import DeviceCascade
from errseg_rt.scenes import StreetScene
from tests.kernels.wide_tiles import widen_tiles
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


def cascade(precision="fp32", *, detail="sparse", budget=None, threshold=T, scale=1.0):
    opened, gpu = bundle(scale), EagerGpu()
    front, stage3 = (
        open_device_engine("torch", opened, graph, gpu=gpu, precision=precision) for graph in ("front", "refine")
    )
    return DeviceCascade(opened, front, stage3, gpu=gpu, threshold=threshold, detail=detail, budget=budget)


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
    results = cascade(detail=detail).run(torch.from_numpy(frame), confidence=True, semantic=True)
    assert isinstance(results, DeviceSegmentation)
    ours = results.cpu()
    with on_the_cpu(detail=detail) as runtime:
        theirs = runtime.segment(frame, confidence=True, semantic=True)
    assert 0 < theirs.refined < 0.9 * theirs.flagged.size
    same_but_for_ties(ours, theirs)
    assert ours.work == theirs.work
    np.testing.assert_array_equal(ours.semantic_labels, theirs.semantic_labels)
    np.testing.assert_allclose(ours.confidence, theirs.confidence, rtol=0, atol=1e-3)
    assert (ours.labels.dtype, ours.labels.shape) == (np.uint8, SIZE)


def test_a_budget_binds_on_the_device(frame):
    with on_the_cpu(budget=0.2) as runtime:
        theirs = runtime.segment(frame)
    ours = cascade(budget=0.2).run(torch.from_numpy(frame)).cpu()
    same_but_for_ties(ours, theirs)
    assert ours.left_out > 0
    assert ours.work == theirs.work <= 0.2
    none = cascade(budget=0.0).run(torch.from_numpy(frame)).cpu()
    assert (none.refined, none.work) == (0, 0)


def test_half_precision(frame):
    """float16 end to end. (The interpreter's products of bfloat16 are wrong.)"""
    with on_the_cpu() as runtime:
        theirs = runtime.segment(frame)
    ours = cascade("fp16").run(torch.from_numpy(frame)).cpu()
    assert (ours.labels == theirs.labels).mean() > 0.99
    assert np.abs(ours.error_probability - theirs.error_probability).mean() < 0.01


def test_colors_and_strides(frame):
    ran = cascade()
    wanted = ran.run(torch.from_numpy(frame)).labels
    rgb = torch.from_numpy(np.ascontiguousarray(frame[..., ::-1]))
    planes = rgb.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert torch.equal(ran.run(planes, color="rgb").labels, wanted)


def test_branches_are_those_of_the_cpu(frame):
    ours = cascade().branches(torch.from_numpy(frame))
    with on_the_cpu() as runtime:
        theirs = runtime.branches(frame)
        scaled = runtime.branches(frame, scale=1.5)
    assert ours.geometry == theirs.geometry
    for name in ("logits", "error_logit", "detail_logits"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=2e-3)
    assert cascade().branches(torch.from_numpy(frame), scale=1.5).geometry == scaled.geometry


def test_a_frame_that_the_bundle_enlarges(frame):
    ours = cascade(scale=1.5).run(torch.from_numpy(frame)).cpu()
    with Runtime(bundle(1.5), engine="torch", threshold=T) as runtime:
        theirs = runtime.segment(frame)
    assert ours.geometry == theirs.geometry
    # Inputs differ by up to a level.
    assert (ours.labels == theirs.labels).mean() > 0.95
    assert np.abs(ours.error_probability - theirs.error_probability).mean() < 0.02


def test_values_that_are_not_finite_name_their_branch(frame):
    ran = cascade()
    engine = ran._front
    for name, branch in (("logits", "semantic"), ("error_logit", "error-prediction")):

        class Broken:
            inputs, outputs = engine.inputs, engine.outputs

            def run_on_device(self, feeds, name=name):
                outputs = dict(engine.run_on_device(feeds))
                outputs[name] = outputs[name].clone()
                outputs[name][..., 3, 4] = torch.inf
                return outputs

        ran._front = Broken()
        results = ran.run(torch.from_numpy(frame))
        for read in (results.cpu, lambda: ran.branches(torch.from_numpy(frame))):
            with pytest.raises(EngineError, match=f"the {branch} branch.* gave logits that are not finite; .*'bf16'"):
                read()
