"""What the branches say of a frame: that of which `segment` makes its answer."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.errors import EngineError, FrameError
from errseg_rt.kernels.fuse_labels import fuse_labels
from errseg_rt.runtime import Runtime


@pytest.mark.parametrize("size", [(96, 128), (33, 17), (1, 1)], ids=str)
def test_segment_is_made_of_them(runtime: Runtime, frame, size) -> None:
    frame = np.ascontiguousarray(frame[: size[0], : size[1]])
    branches, result = runtime.branches(frame), runtime.segment(frame, semantic=True)
    flagged = branches.flagged(runtime.threshold)
    np.testing.assert_array_equal(flagged, result.flagged)
    np.testing.assert_array_equal(runtime.manifest.calibration(branches.error_logit), result.semantic_error_probability)
    fused = fuse_labels(branches.logits, branches.detail_logits, flagged, branches.geometry).labels
    # Two classes may tie within rounding, where the refinement is evaluated in another order.
    assert (fused == result.labels).mean() > 0.9999
    semantic = fuse_labels(branches.logits, None, None, branches.geometry).labels
    np.testing.assert_array_equal(semantic, result.semantic_labels)
    assert branches.geometry == result.geometry


def test_shapes_and_types(runtime: Runtime, frame) -> None:
    branches = runtime.branches(frame)
    grid, classes = branches.geometry.grid_size, len(runtime.manifest.classes)
    assert branches.logits.shape == branches.detail_logits.shape == (classes, *grid)
    assert branches.error_logit.shape == grid
    assert {branches.logits.dtype, branches.error_logit.dtype, branches.detail_logits.dtype} == {np.dtype(np.float32)}


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.95])
def test_flagged_is_equation_4_where_the_frame_is(runtime: Runtime, frame, threshold) -> None:
    branches = runtime.branches(frame)
    rows, cols = branches.geometry.seen()
    wanted = 1 / (1 + np.exp(-branches.error_logit.astype(np.float64))) > threshold
    wanted[rows:], wanted[:, cols:] = False, False
    np.testing.assert_array_equal(branches.flagged(threshold), wanted)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.25])
def test_a_scale_multiplies_that_of_the_bundle(runtime: Runtime, frame, scale) -> None:
    plain, scaled = runtime.branches(frame).geometry, runtime.branches(frame, scale=scale).geometry
    assert scaled.output_size == plain.output_size == frame.shape[:2]
    assert scaled.content_size == tuple(round(side * scale) for side in plain.content_size)
    spec = runtime.manifest.input
    for padded, content in zip(scaled.input_size, scaled.content_size, strict=True):
        assert (padded - spec.plus_one) % spec.multiple == 0
        assert content <= padded < content + spec.multiple


def test_rgb_is_bgr_turned(runtime: Runtime, frame) -> None:
    bgr, rgb = runtime.branches(frame), runtime.branches(np.ascontiguousarray(frame[..., ::-1]), color="rgb")
    np.testing.assert_array_equal(bgr.logits, rgb.logits)


def test_what_is_wrong_is_named(frame) -> None:
    with Runtime(threads=1) as runtime:
        with pytest.raises(FrameError, match="a frame is uint8, got float64"):
            runtime.branches(frame.astype(float))
        with pytest.raises(ValueError, match="color must be 'bgr' or 'rgb'"):
            runtime.branches(frame, color="hsv")
        with pytest.raises(ValueError, match="scale: wanted a positive number"):
            runtime.branches(frame, scale=0)
    with pytest.raises(EngineError, match="this runtime is closed"):
        runtime.branches(frame)
