"""The way of a frame, against the same put together from definitions."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.kernels.calibrate.reference import calibrate_final_reference
from errseg_rt.kernels.fuse_labels import fuse_labels_reference
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.runtime import Runtime
from errseg_rt.scenes import StreetScene
from tests.opening import engine_on_cpu

# Two classes may tie within float32's rounding in a pixel or two; the definition is in float64.
ALIKE = 0.9999

SIZES = [(1, 1), (2, 90), (33, 17), (64, 128), (128, 64), (97, 131)]
every_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


def crop(rendered, size) -> np.ndarray:
    tiled = np.tile(rendered.frame, (2, 2, 1))
    return np.ascontiguousarray(tiled[: size[0], : size[1]])


def composed(runtime: Runtime, frame: np.ndarray, threshold: float):
    """Semantic and fused labels, flagged pixels and both error maps, from the graphs and the definitions alone."""
    manifest, bundle = runtime.manifest, runtime.bundle
    front_engine, refine_engine = (engine_on_cpu("onnxruntime", bundle, name) for name in ("front", "refine"))
    content, padded = manifest.input.content_size(frame.shape[:2]), manifest.input.input_size(frame.shape[:2])
    image = preprocess(frame, content, padded, mean=manifest.input.mean, std=manifest.input.std)
    front = front_engine.run({"image": image})
    detail = refine_engine.run({name: front[name] for name in refine_engine.inputs})["detail_logits"]
    error = 1 / (1 + np.exp(-front["error_logit"][0, 0].astype(np.float64)))
    geometry = Geometry(error.shape, padded, content, frame.shape[:2], manifest.align_corners)
    rows, cols = geometry.seen()
    flagged = (error > threshold) & (np.arange(error.shape[0]) < rows)[:, None] & (np.arange(error.shape[1]) < cols)
    semantic = fuse_labels_reference(front["logits"][0], None, None, geometry)
    fused = fuse_labels_reference(front["logits"][0], detail[0], flagged, geometry, confidence=True)
    error_logit, of_detail = front["error_logit"][0, 0], manifest.detail_calibration
    knots, detail_knots = ((each.logits, each.probabilities) for each in (manifest.calibration, of_detail))
    final = calibrate_final_reference(error_logit, knots, detail[0], flagged, detail_knots, manifest.detail_level)
    return semantic.labels, fused, flagged, manifest.calibration(error_logit), final


@every_size
@pytest.mark.parametrize("threshold", [0.2, 0.7])
def test_equals_the_composition_of_definitions(runtime: Runtime, rendered, size, threshold) -> None:
    frame = crop(rendered, size)
    semantic, fused, flagged, semantic_errors, errors = composed(runtime, frame, threshold)
    result = runtime.segment(frame, confidence=True, semantic=True, threshold=threshold)
    np.testing.assert_array_equal(result.flagged, flagged)
    np.testing.assert_array_equal(result.semantic_error_probability, semantic_errors)
    np.testing.assert_allclose(result.error_probability, errors, rtol=0, atol=1e-4)
    assert (result.labels == fused.labels).mean() >= ALIKE
    assert (result.semantic_labels == semantic).mean() >= ALIKE
    # Probabilities at most 1, made in float32.
    np.testing.assert_allclose(result.confidence, fused.confidence, rtol=0, atol=1e-4)


@every_size
def test_results_are_of_the_sizes_they_must_be(runtime: Runtime, rendered, size) -> None:
    result = runtime.segment(crop(rendered, size))
    assert (result.labels.shape, result.labels.dtype) == (size, np.uint8)
    assert result.labels.max() < len(runtime.manifest.classes)
    height, width = runtime.manifest.input.input_size(size)
    assert result.flagged.shape == result.error_probability.shape == (-(-height // 4), -(-width // 4))
    assert (result.flagged.dtype, result.error_probability.dtype) == (np.bool_, np.float32)
    assert ((result.error_probability >= 0) & (result.error_probability <= 1)).all()
    assert result.error_map().shape == result.flagged_map().shape == size
    assert list(result.timings) == ["preprocess", "front", "select", "refine", "fuse"]
    assert (result.confidence, result.semantic_labels) == (None, None)
    assert 0 <= result.flagged_share <= 1


def test_the_threshold_is_the_bundles_unless_given(runtime: Runtime) -> None:
    assert runtime.threshold == runtime.manifest.threshold
    with Runtime(threshold=0.25, threads=1) as other:
        assert other.threshold == 0.25


def test_near_one_nothing_is_flagged_and_labels_are_the_semantic_ones(runtime: Runtime, frame) -> None:
    result = runtime.segment(frame, semantic=True, threshold=1 - 2**-53)
    assert not result.flagged.any()
    assert result.flagged_share == 0
    np.testing.assert_array_equal(result.labels, result.semantic_labels)


def test_near_zero_everything_is_flagged(runtime: Runtime, frame) -> None:
    result = runtime.segment(frame, threshold=1e-300)
    rows, cols = result.geometry.seen()
    assert result.flagged_share == 1
    assert result.flagged[:rows, :cols].all()
    assert not result.flagged[rows:].any()
    assert not result.flagged[:, cols:].any()


def test_where_nothing_flagged_is_near_labels_are_the_semantic_ones(runtime: Runtime, frame) -> None:
    result = runtime.segment(frame, semantic=True, threshold=0.3)
    rows, cols = result.geometry.rows(), result.geometry.cols()
    last_row, last_col = (count - 1 for count in result.flagged.shape)
    touched = np.zeros(frame.shape[:2], bool)
    for y in (rows.lower, np.minimum(rows.lower + 1, last_row)):
        for x in (cols.lower, np.minimum(cols.lower + 1, last_col)):
            touched |= result.flagged[np.ix_(y, x)]
    np.testing.assert_array_equal(result.labels[~touched], result.semantic_labels[~touched])


def test_rgb_is_bgr_turned(runtime: Runtime, frame) -> None:
    bgr, rgb = runtime.segment(frame), runtime.segment(np.ascontiguousarray(frame[..., ::-1]), color="rgb")
    np.testing.assert_array_equal(bgr.labels, rgb.labels)
    np.testing.assert_array_equal(bgr.error_probability, rgb.error_probability)


@pytest.mark.parametrize("view", ["turned", "flipped", "every_second"])
def test_views_need_not_be_contiguous(runtime: Runtime, frame, view) -> None:
    frame = {"turned": frame.transpose(1, 0, 2), "flipped": frame[::-1, ::-1], "every_second": frame[::2, ::2]}[view]
    np.testing.assert_array_equal(runtime.segment(frame).labels, runtime.segment(frame.copy()).labels)


def test_the_frame_is_left_as_it_is(runtime: Runtime, frame) -> None:
    before = frame.copy()
    runtime.segment(frame).overlay(frame)
    np.testing.assert_array_equal(frame, before)


def test_a_read_only_frame(runtime: Runtime, frame) -> None:
    wanted = runtime.segment(frame).labels
    frame.flags.writeable = False
    np.testing.assert_array_equal(runtime.segment(frame).labels, wanted)


def test_torch_agrees_with_onnxruntime(runtime: Runtime) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    frames = [StreetScene(seed, 120, 160).frame(3).frame for seed in (1, 2)]
    with Runtime(engine="torch", threads=1) as reference:
        pairs = [(reference.segment(frame), runtime.segment(frame)) for frame in frames]
    equal = np.mean([(a.labels == b.labels).mean() for a, b in pairs])
    assert equal >= ALIKE
    for a, b in pairs:
        # A pixel on the threshold may fall to either side; the map itself moves by rounding alone.
        np.testing.assert_allclose(a.error_probability, b.error_probability, atol=1e-3)


def test_a_real_frame(runtime: Runtime, camvid_val) -> None:
    cv2 = pytest.importorskip("cv2")
    path = sorted((camvid_val / "images").iterdir())[0]
    frame = cv2.imread(str(path))
    truth = cv2.imread(str(camvid_val / "labels" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
    result = runtime.segment(frame, semantic=True)
    classes = len(runtime.manifest.classes)
    # Any network that was trained at all beats the commonest class.
    commonest = np.bincount(truth[truth < classes], minlength=classes).max() / (truth < classes).sum()
    assert (result.labels == truth)[truth < classes].mean() > commonest


def test_a_large_real_frame(runtime: Runtime, cityscapes) -> None:
    cv2 = pytest.importorskip("cv2")
    path = sorted((cityscapes / "leftImg8bit" / "train" / "aachen").glob("*.png"))[0]
    frame = cv2.imread(str(path))
    assert runtime.manifest.input.content_size(frame.shape[:2]) == frame.shape[:2]
    result = runtime.segment(frame)
    assert result.labels.shape == (1024, 2048)
    assert len(np.unique(result.labels)) > 3
