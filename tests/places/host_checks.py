"""The whole frame without torch's tensors, in Triton's interpreter, against the runtime on the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import triton

from errseg_rt import Runtime
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.engine import TensorSpec
from errseg_rt.errors import EngineError, FrameError
from errseg_rt.pipeline import open as opening
from errseg_rt.scenes import StreetScene
from tests.boxed import LARGE, Boxed, blocks, boxed_bundle
from tests.kernels.wide_tiles import widen_tiles
from tests.opening import engine_on_cpu
from tests.places.host_gpu import HostGpu, interpret, on_host

assert triton.knobs.runtime.interpret
SIZE = (75, 107)
T = 0.9  # flags a third of these small frames


class OnHost:
    """A graph of onnxruntime as an engine on a GPU whose memory is the host's."""

    def __init__(self, gpu, engine):
        self._gpu, self._engine = gpu, engine
        self.inputs, self.outputs = (
            {name: TensorSpec("float32", spec.shape) for name, spec in specs.items()}
            for specs in (engine.inputs, engine.outputs)
        )
        self._kept = {}

    def run(self, feeds):
        results = self._engine.run({name: on_host(array) for name, array in feeds.items()})
        key = tuple(array.shape for array in feeds.values())
        if key not in self._kept:
            self._kept[key] = {name: self._gpu.lasting(array.shape, "float32") for name, array in results.items()}
        for name, array in results.items():
            on_host(self._kept[key][name])[...] = array
        return self._kept[key]


def bundle():
    """The embedded one, for frames as they are: OpenCV rounds what it resizes to whole levels, the GPU does not."""
    embedded = Bundle.open("camvid")
    spec = replace(embedded.manifest.input, scale=1.0, enlarge_up_to=0)
    return replace(embedded, manifest=replace(embedded.manifest, input=spec))


@pytest.fixture
def opened(monkeypatch):
    """Opens a runtime on a GPU that is none."""
    widen_tiles(monkeypatch)
    gpu = HostGpu(run=interpret, capability=(0, 0))
    monkeypatch.setattr(opening, "open_gpu", lambda index, **how: gpu)

    def open_engine(bundle, graph, options, place):
        engine = engine_on_cpu("onnxruntime", bundle, graph)
        return OnHost(gpu, engine) if place is gpu else engine

    monkeypatch.setattr(opening, "open_engine", open_engine)
    return lambda **options: Runtime(bundle(), "tensorrt", threshold=T, **options)


@pytest.fixture(scope="module")
def frames():
    scene = StreetScene(7, *SIZE)
    return [scene.frame(time).frame for time in (0, 40)]


def test_is_the_runtime_on_the_cpu(opened, frames):
    """With limits that differ from frame to frame, in one captured graph."""
    everything = {"confidence": True, "semantic": True}
    limits = [{}, {"budget": 0.2}, {"threshold": 0.95, "budget": 0.5}]
    shown = [frames[0], frames[1], frames[0]]
    with opened() as runtime, Runtime(bundle(), threshold=T) as reference:
        under_way = [runtime.submit(frame, **limit, **everything) for frame, limit in zip(shown, limits, strict=True)]
        for frame, limit, each in zip(shown, limits, under_way, strict=True):
            ours, theirs = each.result(), reference.segment(frame, **limit, **everything)
            assert 0 < theirs.refined < 0.9 * theirs.flagged.size
            assert (theirs.left_out > 0) == (limit == {"budget": 0.2})
            assert (ours.left_out, ours.work) == (theirs.left_out, theirs.work)
            assert ours.geometry == theirs.geometry
            np.testing.assert_array_equal(ours.flagged, theirs.flagged, strict=True)
            np.testing.assert_array_equal(ours.labels, theirs.labels, strict=True)
            np.testing.assert_array_equal(ours.semantic_labels, theirs.semantic_labels, strict=True)
            np.testing.assert_allclose(ours.confidence, theirs.confidence, rtol=0, atol=1e-3)
            for name in ("error_probability", "semantic_error_probability"):
                np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-5, err_msg=name)
            assert np.abs(ours.error_probability - ours.semantic_error_probability)[ours.flagged].max() > 0.05
            assert set(ours.timings) == {"upload", "compute", "download"}


def test_instances_in_a_captured_graph(monkeypatch, opened, frames):
    spec = boxed_bundle(things=LARGE, least_pixels=2, hops=1, agreement=True).manifest.instances
    boxed, plain = replace(bundle(), manifest=replace(bundle().manifest, instances=spec)), opening.open_engine

    def open_engine(bundle, graph, options, place):
        engine = plain(bundle, graph, options, place)
        if graph != "front":
            return engine
        return Boxed(engine, blocks) if place.is_immediate else Boxed(engine, blocks, taken=taken)

    def taken(array):
        kept = opening.open_gpu(0).lasting(array.shape, "float32")
        on_host(kept)[...] = array
        return kept

    monkeypatch.setattr(opening, "open_engine", open_engine)
    with Runtime(boxed, "tensorrt", threshold=T) as runtime, Runtime(boxed, threshold=T) as reference:
        for frame in frames:
            ours, theirs = runtime.segment(frame).instances, reference.segment(frame).instances
            assert len(ours) == len(theirs) > 10
            assert np.array_equal(ours.map > 0, theirs.map > 0)
            np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=1e-3)
            assert np.bincount(ours.classes).tolist() == np.bincount(theirs.classes).tolist()
        assert runtime.segment(frames[0], instances=False).instances is None


def test_branches(opened, frames):
    with opened() as runtime, Runtime(bundle(), threshold=T) as reference:
        ours, theirs = runtime.branches(frames[0]), reference.branches(frames[0])
    assert ours.geometry == theirs.geometry
    for name in ("logits", "error_logit", "detail_logits"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-4)


def test_what_needs_torch_says_so(opened, frames):
    class Elsewhere:
        def __dlpack__(self):
            raise AssertionError("nobody can read it")

    with opened() as runtime:
        with pytest.raises(EngineError, match="there is no torch: use segment"):
            runtime.segment_on_device(frames[0])
        with pytest.raises(FrameError, match=r"without torch a frame is a NumPy array .*, got Elsewhere"):
            runtime.segment(Elsewhere())


def test_results_stay_when_other_frames_follow(opened, frames):
    """Pinned memory is lent again when nobody looks at it any more, and not before."""
    with opened() as runtime:
        first = runtime.segment(frames[0])
        labels = first.labels.copy()
        kept = first.labels[3:]
        del first
        for _ in range(4):
            runtime.segment(frames[1])
        np.testing.assert_array_equal(kept, labels[3:])


def test_values_that_are_not_finite_name_their_branch(opened, frames):
    with opened() as runtime:
        engine = runtime._way.pipeline._front
        run = engine.run

        def broken(feeds):
            outputs = run(feeds)
            on_host(outputs["error_logit"])[..., 3, 4] = np.inf
            return outputs

        engine.run = broken
        for call in (runtime.segment, runtime.branches):
            with pytest.raises(EngineError, match=r"the error-prediction branch.* not finite: .*bf16"):
                call(frames[0])
