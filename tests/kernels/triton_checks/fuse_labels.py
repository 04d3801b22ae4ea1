"""Fusion on a GPU, or in Triton's interpreter, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.kernels import Geometry, fuse_labels_reference
from errseg_rt.kernels import fuse_labels as dispatch
from errseg_rt.kernels.fuse_labels import launches, torch_op
from errseg_rt.kernels.fuse_labels.cpu import fuse_labels as fuse_labels_on_cpu
from tests.kernels.poison import poison_memory

INTERPRETED = triton.knobs.runtime.interpret
DEVICE = "cpu" if INTERPRETED else "cuda"
ROUNDING = 1e-5  # as for the CPU

GEOMETRIES = {
    "stride4_aligned": Geometry((9, 17), (33, 65), (33, 65), (33, 65), True),
    "ceil_half_pixel": Geometry((9, 16), (34, 61), (34, 61), (34, 61), False),
    "padded_aligned": Geometry((8, 12), (32, 48), (27, 41), (27, 41), True),
    "frame_larger_half_pixel": Geometry((4, 5), (16, 20), (13, 19), (25, 40), False),
    "frame_smaller_aligned": Geometry((23, 31), (92, 124), (90, 119), (13, 19), True),
    "one_pixel_grid": Geometry((1, 1), (4, 4), (3, 4), (3, 5), True),
    "one_row": Geometry((1, 9), (4, 36), (4, 35), (6, 35), False),
    "one_column": Geometry((9, 1), (33, 3), (33, 3), (33, 3), True),
}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
KINDS = ["without", "map", "rows"]
CASES = [
    ("stride4_aligned", "rows", "fp16"),
    ("ceil_half_pixel", "map", "fp32"),
    ("padded_aligned", "rows", "fp32"),
    ("frame_larger_half_pixel", "without", "bf16"),
    ("frame_smaller_aligned", "map", "bf16"),
    ("frame_smaller_aligned", "rows", "fp16"),
    ("one_pixel_grid", "map", "fp16"),
    ("one_row", "rows", "bf16"),
    ("one_column", "without", "fp32"),
]


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fill outputs, so that an unwritten element shows; for the interpreter, make tiles of more cells."""
    poison_memory(monkeypatch)
    if INTERPRETED:
        monkeypatch.setattr(launches, "CELLS", 256)


def operands(geometry, classes, kind, dtype, seed=0, gain=3.0):
    """Operands on the device, and as NumPy arrays in float32, which holds every number of any of the types."""
    rng = np.random.default_rng([seed, classes, *geometry.grid_size])
    logits = gain * rng.standard_normal((2, classes, *geometry.grid_size))
    error = torch.from_numpy(rng.random(geometry.grid_size)).to(dtype)
    semantic, detail = torch.from_numpy(logits).to(dtype)
    flagged = torch.from_numpy(rng.random(geometry.grid_size) < 0.4)
    if kind == "without":
        tensors = [semantic, None, None, error]
    elif kind == "map":
        tensors = [semantic, detail, flagged, error]
    else:
        places = torch.from_numpy(rng.permutation(flagged.numel() + 2)[: int(flagged.sum())]).int()
        rows = torch.full((flagged.numel() + 2, classes), torch.nan, dtype=dtype)
        rows[places.long()] = detail[:, flagged].T
        index = torch.full(geometry.grid_size, -1, dtype=torch.int32)
        index[flagged] = places
        tensors = [semantic, rows, index, error]
    arrays = [x if x is None else (x.float() if x.is_floating_point() else x).numpy() for x in tensors]
    return [x if x is None else x.contiguous().to(DEVICE) for x in tensors], arrays


def assert_equals_reference(tensors, arrays, geometry):
    wanted = fuse_labels_reference(*arrays[:3], geometry, error=arrays[3], confidence=True)
    fused = torch_op.fuse_labels(*tensors[:3], geometry, error=tensors[3], confidence=True)
    assert (fused.labels.dtype, fused.confidence.dtype, fused.error.dtype) == (
        torch.uint8,
        torch.float32,
        torch.float32,
    )
    # These small maps have no ties.
    np.testing.assert_array_equal(fused.labels.cpu().numpy(), wanted.labels)
    np.testing.assert_allclose(fused.confidence.cpu().numpy(), wanted.confidence, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(fused.error.cpu().numpy(), wanted.error, rtol=0, atol=ROUNDING)
    return fused


@pytest.mark.parametrize(("name", "kind", "dtype"), CASES, ids=map("-".join, CASES))
def test_equals_the_definition(name, kind, dtype):
    geometry = GEOMETRIES[name]
    tensors, arrays = operands(geometry, 3, kind, DTYPES[dtype])
    fused = assert_equals_reference(tensors, arrays, geometry)
    plain = torch_op.fuse_labels(*tensors[:3], geometry)
    assert (plain.confidence, plain.error) == (None, None)
    assert torch.equal(plain.labels, fused.labels)


@pytest.mark.parametrize("rows", [2, 4, 32])
@pytest.mark.parametrize("name", ["stride4_aligned", "one_row", "one_column", "frame_smaller_aligned"])
def test_tiles_of_several_rows_give_the_same(monkeypatch, name, rows):
    monkeypatch.setattr(launches, "CELLS", 32)
    monkeypatch.setattr(launches, "TILE_ROWS", rows)
    tensors, arrays = operands(GEOMETRIES[name], 3, "rows", torch.float32)
    assert_equals_reference(tensors, arrays, GEOMETRIES[name])


@given(data=st.data())
@settings(max_examples=4, deadline=None, derandomize=True)
def test_equals_the_definition_for_any_geometry(data):
    size = st.tuples(st.integers(1, 14), st.integers(1, 14))
    padded = data.draw(size)
    geometry = Geometry(
        grid_size=data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6))),
        input_size=padded,
        content_size=data.draw(st.tuples(*(st.integers(1, n) for n in padded))),
        output_size=data.draw(size),
        align_corners=data.draw(st.booleans()),
    )
    kind, classes = data.draw(st.sampled_from(KINDS)), data.draw(st.integers(2, 4))
    tensors, arrays = operands(geometry, classes, kind, torch.float32, seed=data.draw(st.integers(0, 99)))
    assert_equals_reference(tensors, arrays, geometry)


def test_equals_the_definition_with_wide_positions(monkeypatch):
    geometry = GEOMETRIES["frame_smaller_aligned"]
    # Nothing changes but the type of the numbers.
    assert launches.position_type(geometry) == "int32"
    large = Geometry((9000, 9000), (36001, 36001), (35999, 35999), (35998, 35998), True)
    assert launches.position_type(large) == "int64"
    monkeypatch.setattr(launches, "position_type", lambda geometry: "int64")
    assert_equals_reference(*operands(geometry, 2, "rows", torch.float32), geometry)


def test_equals_the_definition_in_many_tiles(monkeypatch):
    monkeypatch.setattr(launches, "CELLS", 16)
    geometry = Geometry((7, 6), (7, 6), (7, 6), (7, 6), True)
    assert_equals_reference(*operands(geometry, 2, "rows", torch.float32), geometry)


def whole_frame(classes):
    """Operands of a frame of 1025x2049 with regions like real ones."""
    geometry = Geometry((257, 513), (1025, 2049), (1025, 2049), (1025, 2049), True)
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(4 * rng.standard_normal((2, classes, 9, 17)))
    smooth = torch.nn.functional.interpolate(coarse, size=geometry.grid_size, mode="bicubic")
    semantic, detail = (smooth + 0.1 * torch.from_numpy(rng.standard_normal(smooth.shape))).float()
    flagged = semantic.topk(2, dim=0).values.diff(dim=0)[0].abs() < 0.5
    index = torch.where(flagged, flagged.flatten().cumsum(0).view(flagged.shape) - 1, -1).int()
    return geometry, [semantic, detail[:, flagged].T.contiguous(), index]


def test_a_whole_frame(monkeypatch):
    monkeypatch.setattr(launches, "CELLS", 1 << 17 if INTERPRETED else launches.CELLS)
    geometry, tensors = whole_frame(5)
    labels = torch_op.fuse_labels(*(x.to(DEVICE) for x in tensors), geometry).labels.cpu().numpy()
    # The kernel for the CPU, which is held against the definition elsewhere, is faster than this.
    wanted = fuse_labels_on_cpu(*(x.numpy() for x in tensors), geometry, threads=2).labels
    assert len(np.unique(wanted)) == 5
    assert (labels != wanted).sum() <= labels.size // 100_000


def test_large_labels_fit():
    geometry = Geometry((2, 3), (8, 12), (8, 12), (8, 12), False)
    semantic = torch.zeros((130, 2, 3), device=DEVICE)
    semantic[129] = 100
    fused = torch_op.fuse_labels(semantic, None, None, geometry, confidence=True)
    assert (fused.labels == 129).all()
    assert (fused.confidence == 1).all()


def test_ties_go_to_the_lowest_class():
    geometry = Geometry((2, 2), (5, 5), (5, 5), (5, 5), True)
    semantic = torch.zeros((4, 2, 2), device=DEVICE)
    assert (torch_op.fuse_labels(semantic, None, None, geometry).labels == 0).all()
    semantic[3, :, 0] = semantic[1, :, 1] = 50
    labels = torch_op.fuse_labels(semantic, None, None, geometry).labels
    np.testing.assert_array_equal(labels.cpu().numpy(), [[3, 3, 1, 1, 1]] * 5)


def test_rows_that_are_not_there_count_as_none():
    geometry = GEOMETRIES["padded_aligned"]
    (semantic, rows, index, _), _ = operands(geometry, 3, "rows", torch.float32)
    wild = torch.where(index < 0, torch.tensor(len(rows), device=DEVICE), index).int()
    wild[0, :3] = -7
    tame = torch.where(wild < len(rows), wild, -1).int()
    tame[0, :3] = -1
    labels = [torch_op.fuse_labels(semantic, rows, x, geometry).labels for x in (wild, tame)]
    assert torch.equal(*labels)


TINY = Geometry((2, 3), (6, 9), (5, 9), (5, 8), False)


@pytest.mark.parametrize(("kind", "is_all_wanted"), [("without", False), ("rows", True)])
def test_is_a_sound_operator(kind, is_all_wanted, monkeypatch):
    monkeypatch.undo()  # what poisons would write into fake tensors
    (semantic, detail, flagged, error), _ = operands(TINY, 2, kind, torch.float32)
    sizes = TINY.input_size, TINY.content_size, TINY.output_size
    error = error if is_all_wanted else None
    arguments = (semantic, detail, flagged, error, *sizes, TINY.align_corners, is_all_wanted)
    operator = torch.ops.errseg_rt.fuse_labels.default
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


class Labels(torch.nn.Module):
    def forward(self, semantic, detail, flagged):
        return torch_op.fuse_labels(2 * semantic, detail, flagged, TINY).labels + 1


def test_is_compiled_and_exported_with_its_surroundings(monkeypatch):
    monkeypatch.undo()
    (*inputs, _), _ = operands(TINY, 2, "rows", torch.float32)
    wanted = Labels()(*inputs)
    compiled = torch.compile(Labels(), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*inputs), wanted)
    exported = torch.export.export(Labels(), tuple(inputs))
    assert any("errseg_rt.fuse_labels" in str(node.target) for node in exported.graph.nodes)
    assert torch.equal(exported.module()(*inputs), wanted)


GOOD = torch.zeros((5, 2, 3), device=DEVICE)


@pytest.mark.parametrize(
    ("operands", "message"),
    [
        ((GOOD.double(), None, None), r"float32 or float16 or bfloat16 \[C, 2, 3\], got float64 \[5, 2, 3\]"),
        ((GOOD[:, :1], None, None), r"got float32 \[5, 1, 3\]"),
        ((GOOD.transpose(1, 2).contiguous().transpose(1, 2), None, None), "must be C-contiguous, got strides"),
        ((GOOD, GOOD.half(), GOOD[0] > 0), "detail must be float32 .*, got float16"),
        ((GOOD, GOOD, GOOD[0].int()), "flagged must be bool .*, got int32"),
        ((GOOD, GOOD[0].T.contiguous(), None), "got detail, but flagged is None"),
        ((GOOD, GOOD, np.zeros((2, 3), bool)), "flagged must lie where the other operands do"),
        ((GOOD.expand(260, -1, -1, -1)[:, 0].contiguous(), None, None), "2 to 255 classes, got 260"),
    ],
)
def test_bad_operands_are_named(operands, message):
    with pytest.raises(ValueError, match=message):
        dispatch(*operands, TINY)


@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
def test_runs_in_a_cuda_graph_and_never_waits():
    geometry, tensors = whole_frame(19)
    tensors = [x.to(DEVICE) for x in tensors]
    wanted = torch_op.fuse_labels(*tensors, geometry).labels
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            labels = torch_op.fuse_labels(*tensors, geometry).labels
        graph.replay()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert torch.equal(labels, wanted)
