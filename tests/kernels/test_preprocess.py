"""Preprocessing on the CPU, against its definition."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from errseg_rt.kernels.preprocess import preprocess, preprocess_reference

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Normalised values are below 3 and pass through three float32 operations of relative error 6e-8 each.
ROUNDING = 2e-6

SIZES = {
    "as_it_is": ((33, 47), (33, 47), (33, 47)),
    "padded": ((33, 47), (33, 47), (48, 64)),
    "padded_below": ((16, 16), (16, 16), (17, 16)),
    "enlarged": ((33, 47), (50, 70), (64, 80)),
    "shrunk": ((33, 47), (11, 16), (16, 16)),
    "one_pixel": ((1, 1), (2, 2), (17, 17)),
    "one_row": ((1, 99), (1, 50), (16, 64)),
    "portrait": ((101, 7), (151, 10), (161, 17)),
}
every_size = pytest.mark.parametrize(("frame_size", "content", "padded"), SIZES.values(), ids=SIZES.keys())


def random_frame(size):
    return np.random.default_rng([3, *size]).integers(0, 256, (*size, 3), np.uint8)


@every_size
@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_equals_the_definition(frame_size, content, padded, color) -> None:
    frame = random_frame(frame_size)
    given = preprocess(frame, content, padded, mean=MEAN, std=STD, color=color)
    wanted = preprocess_reference(frame, content, padded, mean=MEAN, std=STD, color=color)
    assert given.dtype == np.float32
    assert given.shape == (1, 3, *padded)
    assert given.flags.c_contiguous
    np.testing.assert_allclose(given, wanted, rtol=0, atol=ROUNDING)


@every_size
def test_padding_is_zero(frame_size, content, padded) -> None:
    planes = preprocess(random_frame(frame_size), content, padded, mean=MEAN, std=STD)
    assert not planes[..., content[0] :, :].any()
    assert not planes[..., content[1] :].any()


@pytest.mark.parametrize("implementation", [preprocess, preprocess_reference])
def test_one_pixel_by_hand(implementation) -> None:
    frame = np.array([[[10, 20, 30]]], np.uint8)
    bgr = implementation(frame, (1, 1), (1, 2), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    wanted = [(30 / 255 - 0.1) / 0.5, (20 / 255 - 0.2) / 0.25, (10 / 255 - 0.3) / 0.125]
    np.testing.assert_allclose(bgr[0, :, 0, 0], wanted, atol=ROUNDING)
    np.testing.assert_allclose(bgr[0, :, 0, 1], 0, atol=ROUNDING)


def test_rgb_is_bgr_turned() -> None:
    frame = random_frame((21, 34))
    bgr, rgb = (
        preprocess(f, (31, 51), (32, 64), mean=MEAN, std=STD, color=color)
        for f, color in ((frame, "bgr"), (np.ascontiguousarray(frame[..., ::-1]), "rgb"))
    )
    np.testing.assert_array_equal(bgr, rgb)


@pytest.mark.parametrize("view", ["flipped", "channels_turned", "every_second", "transposed"])
def test_views_need_not_be_contiguous(view) -> None:
    frame = random_frame((42, 30))
    frame = {
        "flipped": frame[::-1, ::-1],
        "channels_turned": frame[..., ::-1],
        "every_second": frame[::2, ::2],
        "transposed": frame.transpose(1, 0, 2),
    }[view]
    content = (frame.shape[0] + 5, frame.shape[1] + 3)
    args = {"content_size": content, "input_size": (64, 64), "mean": MEAN, "std": STD}
    np.testing.assert_array_equal(preprocess(frame, **args), preprocess(np.ascontiguousarray(frame), **args))


def test_resizing_is_by_area_to_shrink_and_bilinear_to_enlarge() -> None:
    frame = random_frame((12, 20))
    blocks = frame.reshape(4, 3, 5, 4, 3).mean(axis=(1, 3))
    shrunk = preprocess_reference(frame, (4, 5), (4, 5), mean=(0, 0, 0), std=(1, 1, 1), color="rgb")
    # A mean rounded to a whole level.
    np.testing.assert_allclose(255 * shrunk[0].transpose(1, 2, 0), blocks, atol=0.5 + 1e-9)
    enlarged = preprocess_reference(frame, (24, 40), (24, 40), mean=(0, 0, 0), std=(1, 1, 1), color="rgb")
    bilinear = cv2.resize(frame, (40, 24), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(255 * enlarged[0].transpose(1, 2, 0), bilinear, atol=1e-9)


@pytest.mark.parametrize(
    ("frame", "content", "padded", "color", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), (4, 4), (4, 4), "bgr", "got float32"),
        (np.zeros((4, 4), np.uint8), (4, 4), (4, 4), "bgr", r"got uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), (4, 4), (4, 4), "bgr", r"got uint8 \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), (4, 4), (4, 4), "bgr", "with pixels"),
        (np.zeros((4, 4, 3), np.uint8), (5, 4), (4, 4), "bgr", "must fit in the input"),
        (np.zeros((4, 4, 3), np.uint8), (4, 5), (4, 4), "bgr", "must fit in the input"),
        (np.zeros((4, 4, 3), np.uint8), (4, 4), (4, 4), "hsv", "color must be 'bgr' or 'rgb', got 'hsv'"),
    ],
    ids=["dtype", "grey", "alpha", "empty", "too_high", "too_wide", "color"],
)
def test_refuses(frame, content, padded, color, message) -> None:
    with pytest.raises(ValueError, match=message):
        preprocess(frame, content, padded, mean=MEAN, std=STD, color=color)
