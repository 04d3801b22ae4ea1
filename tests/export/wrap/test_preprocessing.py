"""What users say of pixels, against the formula: (pixel * scale - mean) / std, in the order of the channels."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.export.wrap.looks import Input
from errseg_rt.export.wrap.preprocessing import Given, missing, normalisation_of
from errseg_rt.kernels.preprocess import preprocess

FLOATS = Input("x", np.dtype(np.float32), "NCHW", 3, None, (None, None))
BYTES = Input("x", np.dtype(np.uint8), "NCHW", 3, None, (None, None))
GREY = Input("x", np.dtype(np.float32), "NCHW", 1, None, (None, None))


def planes(given: Given, network: Input = FLOATS) -> tuple[np.ndarray, np.ndarray]:
    """What the runtime makes of a frame, and the frame in RGB, `float64 [3, H, W]` both."""
    frame = np.random.default_rng(2).integers(0, 256, (7, 9, 3), np.uint8)
    values = normalisation_of(given, network)
    spec = InputSpec(multiple=1, mean=values.mean, std=values.std, color=values.color)
    image = preprocess(frame, (7, 9), (7, 9), **spec.normalisation("bgr")._asdict())
    return np.asarray(image[0], np.float64), frame[..., ::-1].transpose(2, 0, 1).astype(np.float64)


def columns(*values: float) -> np.ndarray:
    return np.reshape(values, (3, 1, 1))


SAID = {
    "imagenet": (Given("imagenet"), lambda x: (x / 255 - columns(0.485, 0.456, 0.406)) / columns(0.229, 0.224, 0.225)),
    "0..1": (Given("0..1"), lambda x: x / 255),
    "-1..1": (Given("-1..1"), lambda x: x / 127.5 - 1),
    "a_dash": (Given("-1-1"), lambda x: x / 127.5 - 1),
    "0..255": (Given("0..255"), lambda x: x),
    "caffe": (Given("caffe"), lambda x: x[::-1] - columns(103.939, 116.779, 123.68)),
    "bgr": (Given("0..1", color="bgr"), lambda x: x[::-1] / 255),
    "formula": (
        Given(mean="0.1, 0.2 0.3", std="0.5,0.6,0.7", scale="1/255", color="rgb"),
        lambda x: (x / 255 - columns(0.1, 0.2, 0.3)) / columns(0.5, 0.6, 0.7),
    ),
    "formula_in_bgr": (
        Given(mean="0.1,0.2,0.3", std="0.5,0.6,0.7", scale="1/255", color="bgr"),
        lambda x: (x[::-1] / 255 - columns(0.1, 0.2, 0.3)) / columns(0.5, 0.6, 0.7),
    ),
    "bytes": (
        Given(mean="104,117,123", std="57.375", scale="1", color="bgr"),
        lambda x: (x[::-1] - columns(104, 117, 123)) / 57.375,
    ),
    "scale_of_a_mean_in_bytes": (Given(mean="127.5", std="127.5", color="rgb"), lambda x: (x - 127.5) / 127.5),
    "scale_of_a_mean_in_0..1": (Given(mean="0.5", std="0.5", color="rgb"), lambda x: (x / 255 - 0.5) / 0.5),
    "scale_alone": (Given(scale="1/128", color="rgb"), lambda x: x / 128),
    "products": (
        Given(mean="102.9/255,.5,5e-1", std="2*31.5,62,66", scale="1/255", color="rgb"),
        lambda x: (x / 255 - columns(102.9 / 255, 0.5, 0.5)) / columns(63, 62, 66),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_the_formula(name: str) -> None:
    given, formula = SAID[name]
    assert missing(given, FLOATS) == []
    found, pixels = planes(given)
    np.testing.assert_allclose(found, formula(pixels), rtol=1e-5, atol=1e-5)


def test_whole_numbers_stay_what_they_are() -> None:
    for color in ("rgb", "bgr"):
        found, pixels = planes(Given(color=color), BYTES)
        np.testing.assert_allclose(found, pixels if color == "rgb" else pixels[::-1], atol=1e-4)
    with pytest.raises(DataError, match=r"takes whole numbers 0..255: leave out --normalise"):
        normalisation_of(Given("imagenet"), BYTES)


def test_what_is_missing() -> None:
    normalise = "--normalise imagenet|0..1|-1..1|0..255|caffe (or --mean, --std and --scale)"
    assert missing(Given(), FLOATS) == [normalise, "--color rgb|bgr"]
    assert missing(Given(), BYTES) == ["--color rgb|bgr"]
    assert missing(Given(), GREY) == [normalise]
    assert missing(Given(color="bgr"), FLOATS) == [normalise]
    assert missing(Given(mean="0.5"), FLOATS) == ["--color rgb|bgr"]


WRONG = {
    "--normalise imagnet: there are imagenet, 0..1, -1..1, 0..255, caffe": Given("imagnet"),
    "--normalise says mean, std and scale": Given("0..1", scale="1"),
    "--color gbr: wanted rgb or bgr": Given("0..1", color="gbr"),
    "--mean 1,2: wanted one number, or three": Given(mean="1,2", color="rgb"),
    "--mean 0.4;0.5;0.6: wanted a number": Given(mean="0.4;0.5;0.6", color="rgb"),
    "--std 0,1,1: wanted positive numbers": Given(mean="0.5", std="0,1,1", color="rgb"),
    "--scale 1/0: wanted a number, or a fraction": Given(scale="1/0", color="rgb"),
    "--scale 0: wanted a positive number": Given(scale="0", color="rgb"),
    "--scale is missing: 1 for values in 0..255, 1/255": Given(mean="0", std="1", color="rgb"),
    "--mean 124,117,104: is no colour after --scale 1/255: means in 0..255 go with --scale 1": (
        Given(mean="124,117,104", scale="1/255", color="rgb")
    ),
}


@pytest.mark.parametrize("says", WRONG)
def test_what_is_no_normalisation(says: str) -> None:
    with pytest.raises(DataError) as caught:
        normalisation_of(WRONG[says], FLOATS)
    assert says in str(caught.value)
