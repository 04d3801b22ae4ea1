"""Sizes that engines are built for, and the shapes of the graphs' inputs that follow."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.export.engines.profiles import Profile


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("1025x2049", [(1025, 2049)] * 3),
        ("64x96..128x160", [(64, 96), (128, 160), (128, 160)]),
        ("64x96..96x96..128x160", [(64, 96), (96, 96), (128, 160)]),
    ],
)
def test_reading(text: str, sizes) -> None:
    profile = Profile.parse(text)
    assert [profile.smallest, profile.best, profile.largest] == sizes
    assert Profile.parse(str(profile)) == profile


@pytest.mark.parametrize("text", ["", "1025", "1025x", "ax9", "1x2..3", "1x2..2x3..3x4..4x5", "-1x5", "1025x2049 "])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is neither HxW nor"):
        Profile.parse(text)


@pytest.mark.parametrize("text", ["9x9..8x9", "0x5", "5x9..5x8..5x9"])
def test_sizes_that_fall(text: str) -> None:
    with pytest.raises(ValueError, match="sizes must not fall"):
        Profile.parse(text)


def test_frames_become_inputs() -> None:
    spec = InputSpec(multiple=16, plus_one=True)
    assert str(Profile.parse("360x480..1024x2048").of_input(spec)) == "369x481..1025x2049..1025x2049"


def test_sizes_of_inputs_hold_what_a_limit_reduces() -> None:
    """1024x2048 is wider as it is than 2160x3840 reduced, and less high."""
    spec = InputSpec(multiple=16, plus_one=True, work_pixels=2_100_225)
    assert spec.input_size((2160, 3840)) == (1089, 1937)
    profile = Profile.parse("360x480..1024x2048..2160x3840").of_input(spec)
    assert str(profile) == "369x481..1025x2049..1089x2049"
    assert str(Profile.parse("1024x2048..2160x3840").of_input(spec)) == "1025x1937..1089x1937..1089x2049"


@pytest.mark.parametrize("size", [(97, 129), (50, 62), (161, 49), (33, 33)])
def test_shapes_are_those_that_the_front_graph_gives(bundle, size) -> None:
    graphs = {name: bundle.read(f"graphs/{name}.onnx") for name in ("front", "refine")}
    models = {name: onnx.load_from_string(data).graph for name, data in graphs.items()}
    stride = bundle.manifest.grid_stride
    shapes = {name: Profile(size, size, size).shapes(model, stride) for name, model in models.items()}
    assert shapes["front"] == {"image": ((1, 3, *size),) * 3}
    outputs = OnnxRuntimeEngine(graphs["front"], "front", threads=1).run({"image": np.zeros((1, 3, *size), np.float32)})
    assert shapes["refine"] == {name: (outputs[name].shape,) * 3 for name in ("logits", "low", "coarse", "gate")}
