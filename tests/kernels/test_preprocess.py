"""Preprocessing on the CPU, against its definition."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.kernels import preprocess, preprocess_reference
from errseg_rt.kernels.preprocess import cpu
from errseg_rt.kernels.preprocess.reference import resize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Normalised values are below 3, and rounded once.
ROUNDING = 2e-7

SIZES = {
    "as_it_is": ((33, 47), (33, 47), (33, 47)),
    "padded": ((33, 47), (33, 47), (48, 64)),
    "padded_below": ((16, 16), (16, 16), (17, 16)),
    "enlarged": ((33, 47), (50, 70), (64, 80)),
    "shrunk": ((33, 47), (11, 16), (16, 16)),
    "one_pixel": ((1, 1), (2, 2), (17, 17)),
    "one_row": ((1, 99), (1, 50), (16, 64)),
    "portrait": ((101, 7), (151, 10), (161, 17)),
    "one_side_grows": ((20, 30), (24, 10), (32, 16)),
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
@pytest.mark.parametrize("threads", [1, 2, 64])
def test_halves_are_the_definition_rounded(frame_size, content, padded, threads) -> None:
    frame = random_frame(frame_size)
    given = preprocess(frame, content, padded, mean=MEAN, std=STD, dtype="float16", threads=threads)
    wanted = preprocess_reference(frame, content, padded, mean=MEAN, std=STD)
    np.testing.assert_array_equal(given, wanted.astype(np.float16), strict=True)


@given(data=st.data())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_equals_the_definition_at_any_size(data) -> None:
    sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
    frame, content = random_frame(data.draw(sizes)), data.draw(sizes)
    padded = tuple(side + data.draw(st.integers(0, 9)) for side in content)
    colors = st.tuples(*[st.floats(0.01, 1)] * 3)
    kind = {"mean": data.draw(colors), "std": data.draw(colors), "color": data.draw(st.sampled_from(["bgr", "rgb"]))}
    kind["reduce"] = data.draw(st.sampled_from(["area", "bilinear"]))
    given = preprocess(frame, content, padded, **kind, threads=data.draw(st.integers(1, 3)))
    wanted = preprocess_reference(frame, content, padded, **kind)
    np.testing.assert_allclose(given, wanted, rtol=1e-7, atol=1e-30)


def test_one_kernel_serves_every_frame() -> None:
    frame = random_frame((21, 34))
    wanted = preprocess(frame, (21, 34), (32, 48), mean=MEAN, std=STD)
    compiled = len(cpu._look_up.signatures)
    frame.setflags(write=False)
    np.testing.assert_array_equal(preprocess(frame, (21, 34), (32, 48), mean=MEAN, std=STD), wanted)
    np.testing.assert_array_equal(preprocess(np.asfortranarray(frame), (21, 34), (32, 48), mean=MEAN, std=STD), wanted)
    assert len(cpu._look_up.signatures) == compiled


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
@pytest.mark.parametrize("color", ["bgr", "rgb"])
@pytest.mark.parametrize("grows", [0, 5])
def test_views_need_not_be_contiguous(view, color, grows) -> None:
    frame = random_frame((42, 30))
    frame = {
        "flipped": frame[::-1, ::-1],
        "channels_turned": frame[..., ::-1],
        "every_second": frame[::2, ::2],
        "transposed": frame.transpose(1, 0, 2),
    }[view]
    content = (frame.shape[0] + grows, frame.shape[1] + grows)
    args = {"content_size": content, "input_size": (64, 64), "mean": MEAN, "std": STD, "color": color}
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
    np.testing.assert_array_equal(resize(frame, (13, 5)), cv2.resize(frame, (5, 13), interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize("content", [(5, 7), (12, 9), (15, 30)])
@pytest.mark.parametrize("implementation", [preprocess, preprocess_reference])
def test_reducing_bilinearly_is_opencvs(implementation, content) -> None:
    frame = random_frame((12, 20))
    planes = implementation(frame, content, content, mean=(0, 0, 0), std=(1, 1, 1), color="rgb", reduce="bilinear")
    wanted = cv2.resize(frame, content[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(255 * planes[0].transpose(1, 2, 0), wanted, atol=2e-5)


FRAME = np.zeros((4, 4, 3), np.uint8)
WANTED = r"frame must be uint8 \[H, W, 3\], got "
REFUSED = {
    "dtype": ({"frame": FRAME.astype(np.float32)}, WANTED + "float32"),
    "grey": ({"frame": FRAME[..., 0]}, WANTED + r"uint8 \[4, 4\]"),
    "alpha": ({"frame": np.zeros((4, 4, 4), np.uint8)}, WANTED + r"uint8 \[4, 4, 4\]"),
    "a_list": ({"frame": FRAME.tolist()}, "frame must be a NumPy array or a CUDA tensor, got list"),
    "empty": ({"frame": FRAME[:0]}, r"frame must have pixels, got \[0, 4, 3\]"),
    "too_high": ({"content_size": (5, 4)}, r"must fit in the input: content_size = \(5, 4\), input_size = \(4, 4\)"),
    "too_wide": ({"content_size": (4, 5)}, "must fit in the input"),
    "no_content": ({"content_size": (0, 4)}, "must fit in the input"),
    "color": ({"color": "hsv"}, "color must be 'bgr' or 'rgb', got 'hsv'"),
    "reduce": ({"reduce": "nearest"}, "reduce must be area or bilinear, got 'nearest'"),
    "mean": ({"mean": (0.5, 0.5)}, r"mean must be three finite numbers, got \(0.5, 0.5\)"),
    "mean_nan": ({"mean": (0.5, 0.5, float("nan"))}, "mean must be three finite numbers"),
    "std": ({"std": (0.5, 0.0, 0.5)}, r"std must be three positive numbers, got \(0.5, 0.0, 0.5\)"),
}


@pytest.mark.parametrize("implementation", [preprocess, preprocess_reference])
@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(implementation, change, message) -> None:
    arguments = {"frame": FRAME, "content_size": (4, 4), "input_size": (4, 4), "mean": MEAN, "std": STD, **change}
    with pytest.raises(ValueError, match=message):
        implementation(**arguments)


def test_refuses_what_only_the_cpu_cannot() -> None:
    sizes = (FRAME, (4, 4), (4, 4))
    with pytest.raises(ValueError, match="dtype must be float32 or float16, got 'bfloat16'"):
        preprocess(*sizes, mean=MEAN, std=STD, dtype="bfloat16")
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        preprocess(*sizes, mean=MEAN, std=STD, threads=0)
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    with pytest.raises(ValueError, match="on an NVIDIA GPU, got cpu"):
        preprocess(torch.from_numpy(FRAME), (4, 4), (4, 4), mean=MEAN, std=STD)
