"""Preprocessing on a GPU, or in Triton's interpreter, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.kernels import preprocess as dispatch
from errseg_rt.kernels import preprocess_reference
from errseg_rt.kernels.preprocess import launches, torch_op
from tests.kernels.poison import poison_memory

INTERPRETED = triton.knobs.runtime.interpret
DEVICE = "cpu" if INTERPRETED else "cuda"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLORS = {"mean": MEAN, "std": STD}
# OpenCV rounds a resized level to a whole one, and bilinear weights to 1/2048 before.
LEVEL = 0.8

SIZES = {
    "as_it_is": ((33, 47), (33, 47), (48, 64)),
    "enlarged": ((33, 47), (50, 70), (64, 80)),
    "shrunk": ((33, 47), (11, 16), (16, 16)),
    "hardly_shrunk": ((33, 47), (32, 47), (33, 48)),
    "one_side_grows": ((20, 30), (24, 10), (32, 16)),
    "one_pixel": ((1, 1), (2, 2), (17, 17)),
    "one_row": ((1, 99), (1, 50), (16, 64)),
}
every_size = pytest.mark.parametrize(("frame_size", "content", "padded"), SIZES.values(), ids=SIZES.keys())


@pytest.fixture(autouse=True)
def wide_tiles(monkeypatch):
    """Widen tiles for the interpreter, whose time goes by operation."""
    poison_memory(monkeypatch)
    if INTERPRETED:
        monkeypatch.setattr(launches, "PIXELS", 2048)


def random_frame(size):
    return np.random.default_rng([3, *size]).integers(0, 256, (*size, 3), np.uint8)


def difference_in_levels(given, wanted):
    scale = 255 * np.reshape(STD, (1, 3, 1, 1))
    return np.abs((given.double().cpu().numpy() - wanted) * scale).max()


@every_size
@pytest.mark.parametrize(("color", "reduce"), [("bgr", "area"), ("rgb", "area"), ("bgr", "bilinear")])
def test_equals_the_definition(frame_size, content, padded, color, reduce) -> None:
    frame = random_frame(frame_size)
    tensor = torch.from_numpy(frame).to(DEVICE)
    given = torch_op.preprocess(tensor, content, padded, **COLORS, color=color, reduce=reduce)
    assert (given.dtype, given.shape, given.is_contiguous()) == (torch.float32, (1, 3, *padded), True)
    wanted = preprocess_reference(frame, content, padded, **COLORS, color=color, reduce=reduce)
    # Levels up to 255 pass through a few float32 operations.
    assert difference_in_levels(given, wanted) < (LEVEL if content != frame_size else 1e-4)
    assert not given[..., content[0] :, :].any()
    assert not given[..., content[1] :].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_is_rounded_once(dtype) -> None:
    frame = torch.from_numpy(random_frame((9, 14))).to(DEVICE)
    wide, given = (torch_op.preprocess(frame, (12, 17), (16, 24), **COLORS, dtype=name) for name in ("float32", dtype))
    if dtype == "bfloat16" and INTERPRETED:  # which cuts the digits off
        assert torch.allclose(given.float(), wide, rtol=2**-7, atol=0)
    else:
        assert torch.equal(given, wide.to(getattr(torch, dtype)))


@given(data=st.data())
@settings(max_examples=12, deadline=None, derandomize=True)
def test_equals_the_definition_at_any_size(data) -> None:
    sizes = st.tuples(st.integers(1, 25), st.integers(1, 25))
    frame, content = random_frame(data.draw(sizes)), data.draw(sizes)
    padded = tuple(side + data.draw(st.integers(0, 5)) for side in content)
    given = torch_op.preprocess(torch.from_numpy(frame).to(DEVICE), content, padded, **COLORS)
    assert difference_in_levels(given, preprocess_reference(frame, content, padded, **COLORS)) < LEVEL


@pytest.mark.parametrize("content", [(21, 30), (31, 41), (12, 17)], ids=str)
def test_wide_positions_and_narrow_tiles_change_nothing(monkeypatch, content) -> None:
    frame = torch.from_numpy(random_frame((21, 30))).to(DEVICE)
    wanted = torch_op.preprocess(frame, content, (32, 42), **COLORS)
    monkeypatch.setattr(launches, "position_type", lambda *sizes: "int64")
    monkeypatch.setattr(launches, "PIXELS", 512)
    assert torch.equal(torch_op.preprocess(frame, content, (32, 42), **COLORS), wanted)
    monkeypatch.undo()
    assert launches.position_type((1080, 1920), (1080, 1920)) == "int32"
    assert launches.position_type((40_000, 40_000), (40_000, 40_000)) == "int64"


def test_any_strides_are_accepted() -> None:
    planes = torch.from_numpy(random_frame((14, 24))).permute(2, 0, 1).contiguous().to(DEVICE)
    view = planes.permute(1, 2, 0)[::2, 3:]
    wanted = torch_op.preprocess(view.contiguous(), (9, 30), (16, 32), **COLORS)
    assert torch.equal(torch_op.preprocess(view, (9, 30), (16, 32), **COLORS), wanted)


def test_a_whole_frame(monkeypatch) -> None:
    if INTERPRETED:
        monkeypatch.setattr(launches, "PIXELS", 1 << 20)
    frame = random_frame((1025, 2049))
    given = torch_op.preprocess(torch.from_numpy(frame).to(DEVICE), (1025, 2049), (1040, 2064), **COLORS)
    assert difference_in_levels(given, preprocess_reference(frame, (1025, 2049), (1040, 2064), **COLORS)) < 1e-4


class Image(torch.nn.Module):
    def forward(self, frame):
        return torch_op.preprocess(frame, (7, 9), (8, 12), **COLORS, dtype="float16") * 2


def test_is_a_sound_operator_compiled_and_exported() -> None:
    frame = torch.from_numpy(random_frame((5, 6))).to(DEVICE)
    arguments = (frame, (7, 9), (8, 12), MEAN, STD, "bgr", "area", torch.float16)
    operator = torch.ops.errseg_rt.preprocess.default
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
    wanted = Image()(frame)
    assert torch.equal(torch.compile(Image(), fullgraph=True, backend="aot_eager")(frame), wanted)
    exported = torch.export.export(Image(), (frame,))
    assert any("errseg_rt.preprocess" in str(node.target) for node in exported.graph.nodes)
    assert torch.equal(exported.module()(frame), wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": torch.zeros(4, 4, 3)}, "frame must be uint8 .*, got float32"),
        ({"frame": torch.zeros(3, 4, 4, dtype=torch.uint8)}, r"frame must be uint8 \[H, W, 3\], got uint8 \[3, 4, 4\]"),
        ({"content_size": (5, 4)}, "must fit in the input"),
        ({"dtype": "float64"}, "dtype must be float32 or float16 or bfloat16, got 'float64'"),
    ],
)
def test_refuses(change, message) -> None:
    frame = torch.zeros(4, 4, 3, dtype=torch.uint8)
    arguments = {"frame": frame, "content_size": (4, 4), "input_size": (4, 4), **COLORS, **change}
    arguments["frame"] = arguments["frame"].to(DEVICE)
    with pytest.raises(ValueError, match=message):
        dispatch(**arguments)
