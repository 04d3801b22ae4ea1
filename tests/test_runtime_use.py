"""Using a runtime: bad frames and arguments, several threads, closing, and engines that fail."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.errors import BundleError, EngineError, ErrsegError, FrameError
from errseg_rt.kernels.fuse_labels import fuse_labels_reference
from errseg_rt.options import Limits, Options
from errseg_rt.runtime import Runtime

GOOD = np.zeros((32, 48, 3), np.uint8)


@pytest.fixture
def own() -> Runtime:
    """A runtime of the test's own, to be changed and closed."""
    return Runtime(threads=1)


class Stub:
    """Runs an engine, then changes what it gave."""

    def __init__(self, engine: Any, change: Any) -> None:
        self._engine, self._change = engine, change
        self.inputs, self.outputs = engine.inputs, engine.outputs

    def run(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        outputs = dict(self._engine.run(feeds))
        self._change(outputs)
        return outputs


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (None, "the frame is None"),
        ([[[0, 0, 0]]], "got list"),
        (GOOD.astype(np.float32), "uint8, got float32; scale it"),
        (GOOD.astype(np.int64), "uint8, got int64"),
        (GOOD.astype(bool), "uint8, got bool"),
        (GOOD[..., 0], r"got \[32, 48\]; convert grey"),
        (GOOD[None], r"got \[1, 32, 48, 3\]"),
        (np.zeros((32, 48, 4), np.uint8), r"got \[32, 48, 4\]"),
        (np.zeros((3, 32, 48), np.uint8), r"got \[3, 32, 48\]"),
        (np.zeros((0, 48, 3), np.uint8), r"no pixels: \[0, 48, 3\]"),
        (np.zeros((32, 0, 3), np.uint8), r"no pixels: \[32, 0, 3\]"),
        (np.zeros((), np.uint8), r"got \[\]"),
    ],
    ids=["none", "list", "float", "int64", "bool", "grey", "batch", "alpha", "planes", "no_rows", "no_cols", "scalar"],
)
def test_what_is_no_frame(runtime: Runtime, frame, message) -> None:
    with pytest.raises(FrameError, match=message):
        runtime.segment(frame)


def test_what_opencv_gives_for_a_path_that_it_cannot_read(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"the frame is None, which cv2\.imread gives for a file .* check its path"):
        runtime.segment(cv2.imread(str(tmp_path / "none.png")))


@pytest.mark.parametrize("mask", [False, [[[True] * 3] * 4] * 5])
def test_a_mask_is_not_passed_over(runtime: Runtime, mask) -> None:
    masked = np.ma.MaskedArray(np.zeros((5, 4, 3), np.uint8), mask=mask)
    with pytest.raises(FrameError, match=r"a frame has no mask, .*give frame\.data or frame\.filled\(\)"):
        runtime.segment(masked)
    assert runtime.segment(masked.filled()).labels.shape == (5, 4)


SHORT = [
    MemoryError("Unable to allocate 24 MiB"),
    MemoryError(),
    cv2.error("OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
    EngineError("onnxruntime cannot run the front graph on {}: bfc_arena.cc Failed to allocate memory"),
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
]


@pytest.mark.parametrize("error", SHORT, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", ["segment", "submit", "branches"])
def test_short_memory_is_an_error_of_the_frame(own: Runtime, frame, monkeypatch, error, call) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(own._way.pipeline.place, "preprocess", fail)
        with pytest.raises(EngineError, match=r"out of memory for a frame of 96x128 .*; free memory, raise the limit"):
            getattr(own, call)(frame)
        for other in (ValueError("a fault of ours"), EngineError("another")):
            error = other
            with pytest.raises(type(other), match=f"^{other}$"):
                getattr(own, call)(frame)
    assert own.segment(frame).labels.shape == frame.shape[:2]


def test_a_frame_over_the_limit() -> None:
    with Runtime(threads=1, max_pixels=32 * 48) as runtime:
        assert runtime.segment(GOOD).labels.shape == (32, 48)
        assert runtime.segment(GOOD.transpose(1, 0, 2)).labels.shape == (48, 32)
        with pytest.raises(FrameError, match="33x48 pixels, over the limit of 1536; shrink it, or raise max_pixels"):
            runtime.segment(np.zeros((33, 48, 3), np.uint8))


def test_a_frame_over_the_limit_on_work_is_seen_as_if_reduced_by_hand(runtime: Runtime, frame) -> None:
    height, width = frame.shape[:2]

    def limited(pixels: int) -> Bundle:
        spec = replace(runtime.manifest.input, scale=1.0, work_pixels=pixels)
        return replace(runtime.bundle, manifest=replace(runtime.manifest, input=spec))

    with Runtime(limited(4000), threads=1, threshold=0.2) as bounded, Runtime(limited(0), threads=1) as free:
        result = bounded.segment(frame, semantic=True)
        content = result.geometry.content_size
        branches = free.branches(cv2.resize(frame, content[::-1], interpolation=cv2.INTER_AREA))
        assert bounded.segment(frame[:50, :80]).scale == 1.0
    assert content[0] * content[1] <= 4000 < height * width
    assert result.labels.shape == result.error_map().shape == (height, width)
    assert result.scale == pytest.approx((content[0] * content[1] / (height * width)) ** 0.5)
    assert result.flagged.any()
    np.testing.assert_array_equal(result.semantic_error_probability, runtime.manifest.calibration(branches.error_logit))
    back = replace(branches.geometry, output_size=(height, width))
    wanted = fuse_labels_reference(branches.logits, branches.detail_logits, result.flagged, back)
    # Two classes may tie within float32's rounding in a pixel or two.
    assert (result.labels == wanted.labels).mean() >= 0.9999


def test_an_unknown_order_of_colours(runtime: Runtime) -> None:
    with pytest.raises(ValueError, match="color must be 'bgr' or 'rgb', got 'hsv'"):
        runtime.segment(GOOD, color="hsv")


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_threshold_that_is_none(threshold) -> None:
    with pytest.raises(ValueError, match="threshold must lie between 0 and 1"):
        Runtime(threshold=threshold)


@pytest.mark.parametrize("threads", [0, -1])
def test_too_few_threads(threads) -> None:
    with pytest.raises(ValueError, match=f"threads must be a whole number of at least 1, got {threads}"):
        Runtime(threads=threads)


def test_a_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest\.json there"):
        Runtime(tmp_path)


def test_a_damaged_bundle(bundle_copy: Path) -> None:
    path = bundle_copy / "graphs" / "refine.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"refine\.onnx: does not match its SHA-256"):
        Runtime(bundle_copy)


def test_a_moved_bundle_says_the_same(runtime: Runtime, bundle_copy: Path, frame) -> None:
    with Runtime(bundle_copy, threads=1) as moved:
        np.testing.assert_array_equal(moved.segment(frame).labels, runtime.segment(frame).labels)


def test_an_unknown_engine() -> None:
    with pytest.raises(ValueError, match="engine must be onnxruntime, tensorrt or torch, got 'tensorflow'"):
        Runtime(engine="tensorflow")


def test_a_missing_provider() -> None:
    with pytest.raises(EngineError, match="onnxruntime has no NoSuchProvider here"):
        Runtime(providers=["NoSuchProvider"])


@pytest.mark.parametrize("name", ["logits", "error_logit", "low", "coarse", "gate", "detail_logits"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_non_finite_outputs(own: Runtime, frame, name, value) -> None:
    def spoil(outputs: dict[str, Any]) -> None:
        outputs[name] = outputs[name].copy()
        outputs[name].flat[-1] = value

    pipeline = own._way.pipeline
    holder, attribute = (pipeline, "_front") if name != "detail_logits" else (pipeline.refinement, "_stage3")
    setattr(holder, attribute, Stub(getattr(holder, attribute), spoil))
    branch = {"logits": "semantic", "low": "semantic", "error_logit": "error-prediction"}.get(name, "detail")
    with pytest.raises(EngineError, match=f"^the {branch} branch gave values that are not finite"):
        own.segment(frame, threshold=1e-9)  # all pixels are flagged, so that the refine graph is run


def test_several_threads_say_what_one_says(runtime: Runtime, scene) -> None:
    frames = [scene.frame(index).frame[: 96 - 7 * index, : 128 - 5 * index] for index in range(4)]
    alone = [runtime.segment(frame) for frame in frames]
    start = Barrier(4)

    def work(shift: int) -> list[Any]:
        start.wait()
        return [runtime.segment(frames[(index + shift) % 4]) for index in range(4)]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(4)))
    for shift, results in enumerate(together):
        for index, result in enumerate(results):
            wanted = alone[(index + shift) % 4]
            np.testing.assert_array_equal(result.labels, wanted.labels)
            np.testing.assert_array_equal(result.flagged, wanted.flagged)
            np.testing.assert_array_equal(result.error_probability, wanted.error_probability)


def test_frames_of_several_sizes_do_not_mix(runtime: Runtime, frame) -> None:
    sizes = [(96, 128), (33, 17), (96, 128), (17, 33), (33, 17)]
    results = {}
    for height, width in sizes:
        labels = runtime.segment(frame[:height, :width]).labels
        np.testing.assert_array_equal(labels, results.setdefault((height, width), labels))


@pytest.mark.parametrize("threads", [None, 3])
def test_the_number_of_threads_does_not_change_the_labels(runtime: Runtime, frame, threads) -> None:
    with Runtime(threads=threads) as other:
        # Sums in another order may turn a tie.
        assert (other.segment(frame).labels == runtime.segment(frame).labels).mean() >= 0.9999


def test_a_closed_runtime_says_so(own: Runtime) -> None:
    own.segment(GOOD)
    own.close()
    own.close()
    with pytest.raises(EngineError, match="this runtime is closed; make a new one"):
        own.segment(GOOD)


def test_a_with_block_closes(own: Runtime) -> None:
    with pytest.raises(KeyError, match="stop"), own as entered:  # noqa: PT012 the block is what is tested
        assert entered is own
        raise KeyError("stop")
    with pytest.raises(EngineError, match="closed"):
        own.segment(GOOD)


def test_closing_lets_go_of_everything_at_once(frame) -> None:
    with Runtime(threads=1) as runtime:
        runtime.segment(frame)
        engines = weakref.ref(runtime._way.pipeline)
        gc.disable()
    try:
        assert engines() is None
    finally:
        gc.enable()


def test_closing_lets_a_frame_under_way_finish(own: Runtime, runtime: Runtime, frame) -> None:
    pipeline = own._way.pipeline
    pipeline._front = Stub(pipeline._front, lambda _: own.close())
    result = own.segment(frame, threshold=1e-9)
    assert result.flagged.any()
    with pytest.raises(EngineError, match="closed"):
        own.segment(frame)


@pytest.mark.parametrize("kind", [FrameError, BundleError])
def test_errors_are_value_errors_too(kind) -> None:
    assert issubclass(kind, ErrsegError)
    assert issubclass(kind, ValueError)


def test_graphs_of_other_classes_than_the_manifests(bundle_copy: Path) -> None:
    table = json.loads((bundle_copy / "manifest.json").read_text())
    table["classes"] = {"names": ["a", "b"], "colors": [[0, 0, 0], [1, 1, 1]]}
    (bundle_copy / "manifest.json").write_text(json.dumps(table))
    with pytest.raises(BundleError, match="the front graph has 11 classes, the manifest has 2; export it again"):
        Runtime(bundle_copy)


def test_a_sliver_is_refused_before_it_takes_memory(runtime: Runtime) -> None:
    with pytest.raises(FrameError, match="so narrow that the network's input would be 17x16777217"):
        runtime.segment(np.zeros((1, 2**24, 3), np.uint8))


WARM_UP = """
import sys
import numpy as np
from numba.core.dispatcher import Dispatcher
from errseg_rt.runtime import Runtime

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("errseg_rt.kernels")]
    kernels = [kernel for module in modules for kernel in vars(module).values() if isinstance(kernel, Dispatcher)]
    return {f"{kernel.__module__}.{kernel.__name__}": kernel.signatures for kernel in kernels}

frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
with Runtime(threshold=0.01, budget=0.5) as runtime:
    assert not any(compiled().values())
    runtime.warm_up()
    ahead = compiled()
    assert any(name.startswith("errseg_rt.kernels.refine") and kernel for name, kernel in ahead.items())
    result = runtime.segment(frame, confidence=True, semantic=True)
    assert 0 < result.work < 0.5
    runtime.segment(frame, budget=1.0).error_map()
    assert compiled() == ahead, set(map(str, compiled().items())) ^ set(map(str, ahead.items()))
"""


def test_after_warming_up_nothing_is_left_to_compile() -> None:
    done = subprocess.run([sys.executable, "-c", WARM_UP], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_limits_may_differ_from_frame_to_frame(runtime: Runtime, frame) -> None:
    with Runtime(threads=1, threshold=0.3, budget=0.02) as other:
        wanted = other.segment(frame)
    found = runtime.segment(frame, threshold=0.3, budget=0.02)
    assert 0 < found.left_out == wanted.left_out
    for name in ("labels", "flagged"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    # A frame's limits are its own.
    assert runtime.segment(frame).left_out == 0
    assert runtime.limits.budget is None
    assert runtime.submit(frame, deadline_ms=1e-6).result().work == 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"threshold": 1}, "threshold must lie between 0 and 1, got 1"),
        ({"threshold": "0.5"}, "threshold must be a number, got '0.5'"),
        ({"budget": True}, "budget must be a number, got True"),
        ({"deadline_ms": [5]}, r"deadline_ms must be a number, got \[5\]"),
        ({"budget": 2}, r"budget must be a share in 0\.\.1, got 2"),
        ({"deadline_ms": 0}, "deadline_ms must be a positive number, got 0"),
        ({"budget": 0.1, "deadline_ms": 3}, "give one of them, got budget = 0.1 and deadline_ms = 3"),
    ],
    ids=str,
)
def test_limits_of_a_frame_that_are_none(runtime: Runtime, frame, limits, message) -> None:
    for call in (runtime.segment, runtime.submit):
        with pytest.raises(ValueError, match=message):
            call(frame, **limits)


def test_what_is_refined_densely_has_no_budget(frame) -> None:
    with (
        Runtime(threads=1, detail="dense") as dense,
        pytest.raises(ValueError, match="budget and deadline_ms need sparse"),
    ):
        dense.segment(frame, budget=0.5)


def test_options_are_one_thing_and_can_be_changed_by_name(frame) -> None:
    options = Options(threads=1, budget=0.1)
    with Runtime(options=options, threshold=0.4) as runtime:
        assert runtime.options == replace(options, threshold=0.4)
        assert runtime.limits == Limits(0.4, 0.1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'thread'"):
        Runtime(thread=1)


@pytest.mark.parametrize("name", ["threshold"])
def test_what_frames_are_given_is_read_only(own: Runtime, name) -> None:
    with pytest.raises(AttributeError):
        setattr(own, name, 0.5)


def test_options_of_a_wrong_type_are_named() -> None:
    for name, value in (("threshold", "0.5"), ("budget", "x"), ("deadline_ms", "5"), ("device", 0), ("engine", 1)):
        with pytest.raises(ValueError, match=rf"^{name} must be .*, got {value!r}"):
            Options(**{name: value})
