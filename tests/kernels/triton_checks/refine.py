"""Refinement on a GPU, or in Triton's interpreter, against the definition."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt import Runtime
from errseg_rt.bundle.stage3 import stage3_weights
from errseg_rt.kernels import RefineWeights, preprocess, refine_reference, select, supports_reference
from errseg_rt.kernels import refine as dispatch
from errseg_rt.kernels.refine import DeviceWeights, launches, torch_op
from errseg_rt.kernels.refine.cpu import refine as refine_on_cpu
from errseg_rt.kernels.select import Selection
from errseg_rt.kernels.torch_launcher import TorchLauncher
from errseg_rt.scenes import StreetScene
from tests.kernels.poison import poison_memory
from tests.opening import engine_on_cpu

INTERPRETED = triton.knobs.runtime.interpret
DEVICE = "cpu" if INTERPRETED else "cuda"
# The interpreter's products of bfloat16 are wrong.
DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * (not INTERPRETED)
# Rounding of float32 sums; of what is stored between layers, values of a few units.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fill what is made, so that an element that is not written shows."""
    poison_memory(monkeypatch)


def make_weights(
    channels=13, low=5, coarse=7, classes=3, *, residual=True, align_corners=True, sides=(3, 3, 3), seed=0
):
    rng = np.random.default_rng([seed, channels, low])

    def draw(*shape):
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)

    first, second, third = (
        (channels, inputs, side, side) for inputs, side in zip((low, channels, channels), sides, strict=True)
    )
    return RefineWeights(
        draw(*first), draw(channels), draw(channels, coarse), draw(channels), draw(*second), draw(channels),
        draw(*third), draw(channels), draw(classes, channels), draw(classes), residual, align_corners,
    )  # fmt: skip


def make_maps(weights, grid, seed=0):
    rng = np.random.default_rng([seed, *grid])
    coarse = (weights.coarse_channels, -(-grid[0] // 2), -(-grid[1] // 2))
    shapes = ((weights.classes, *grid), (weights.low_channels, *grid), coarse, (weights.channels,))
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def on_device(selection):
    """The same on a GPU, with rows beyond the counts that are none."""
    rows = selection.rows.copy()
    for layer, count in enumerate(selection.counts):
        rows[layer, count:] = 2**30
    arrays = (rows, selection.slots, selection.counts, selection.left_out, selection.flagged)
    return Selection(*(torch.tensor(array, device=DEVICE) for array in arrays))


def run(weights, supports, maps, dtype):
    """Rows on the device, and the maps rounded to the dtype."""
    tensors = [torch.from_numpy(array).to(DEVICE, dtype) for array in maps]
    rows = torch_op.refine(DeviceWeights.of(weights, DEVICE, dtype), on_device(supports), *tensors)
    assert rows.dtype == dtype
    assert rows.shape == (supports.grid_size[0] * supports.grid_size[1], weights.classes)
    return rows.float().cpu().numpy(), [tensor.float().cpu().numpy() for tensor in tensors]


def test_half_precision_keeps_the_labels_of_flagged_pixels(monkeypatch):
    # Of the embedded bundle on streets: what is flagged is in doubt, and its largest logits are near to each other.
    if INTERPRETED:
        monkeypatch.setattr(launches, "SMALL", replace(launches.SMALL, pixels=1 << 10))
        monkeypatch.setattr(launches, "MOVED_PIXELS", 1 << 12)
    equal = []
    with Runtime(threads=1) as runtime:
        weights, spec = stage3_weights(runtime.bundle), runtime.manifest.input
        front = engine_on_cpu("onnxruntime", runtime.bundle, "front")
        for seed in range(1, 5):
            frame = StreetScene(seed, 180, 240).frame(20).frame
            content, padded = spec.sizes(frame.shape[:2])
            maps = front.run({"image": preprocess(frame, content, padded, mean=spec.mean, std=spec.std)})
            supports = select(maps["error_logit"][0, 0], runtime.threshold, layers=weights.layers)
            operands = [maps[name][0] for name in ("logits", "low", "coarse")] + [maps["gate"].ravel()]
            wanted = refine_on_cpu(weights, supports, *operands).argmax(axis=1)
            rows, _ = run(weights, supports, operands, torch.float16)
            equal.append(rows[: len(wanted)].argmax(axis=1) == wanted)
    assert len(np.concatenate(equal)) > 1000
    assert np.concatenate(equal).mean() >= 0.999


def assert_equals_reference(weights, flagged, dtype=torch.float32, seed=0):
    supports = supports_reference(flagged, weights.layers)
    rows, maps = run(weights, supports, make_maps(weights, flagged.shape, seed), dtype)
    wanted = refine_reference(weights, supports, *maps)
    np.testing.assert_allclose(rows[: len(wanted)], wanted, rtol=0, atol=TOLERANCES[dtype])
    assert np.isnan(rows[len(wanted) :]).all()


def corners(grid):
    mask = np.zeros(grid, bool)
    mask[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    return mask


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_equals_the_definition(dtype, share):
    flagged = np.random.default_rng(1).random((9, 13)) < share
    assert_equals_reference(make_weights(), flagged, dtype)


@pytest.mark.parametrize("sides", list(itertools.product([1, 3], repeat=3)), ids=str)
def test_kernels_of_one_pixel(sides):
    flagged = np.random.default_rng(4).random((7, 9)) < 0.2
    assert_equals_reference(make_weights(sides=sides), flagged)


@pytest.mark.parametrize(("channels", "low", "coarse", "classes"), [(5, 3, 2, 2), (50, 17, 9, 19), (48, 24, 48, 11)])
def test_channels_that_are_multiples_of_nothing(channels, low, coarse, classes):
    weights = make_weights(channels, low, coarse, classes, residual=channels == 50, align_corners=channels == 5)
    assert_equals_reference(weights, corners((6, 9)), torch.float16)


def test_more_output_channels_and_classes_than_a_tile_holds(monkeypatch):
    monkeypatch.setattr(launches, "SMALL", replace(launches.SMALL, width=32))
    monkeypatch.setattr(launches, "LARGE", replace(launches.LARGE, width=32))
    monkeypatch.setattr(launches, "POINT_WIDTH", 16)
    assert_equals_reference(make_weights(channels=70, classes=40), corners((5, 4)), torch.float16)


@pytest.mark.parametrize("align_corners", [True, False], ids=["aligned", "half_pixel"])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (1, 19), (23, 1)], ids=str)
def test_grids_of_few_pixels(grid, align_corners):
    assert_equals_reference(make_weights(align_corners=align_corners), corners(grid))


@given(
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    share=st.floats(0, 1),
    align_corners=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_any_mask_on_any_grid(grid, share, align_corners, seed):
    flagged = np.random.default_rng(seed).random(grid) < share
    assert_equals_reference(make_weights(align_corners=align_corners), flagged, seed=seed)


def test_a_whole_frame(monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(launches, "FLOAT32", replace(launches.FLOAT32, pixels=1 << 13))
        monkeypatch.setattr(launches, "MOVED_PIXELS", 1 << 14)
    weights = make_weights(16, 16, 16, 5)
    flagged = np.random.default_rng(2).random((257, 513)) < 0.005
    supports = supports_reference(flagged)
    rows, maps = run(weights, supports, make_maps(weights, flagged.shape), torch.float32)
    # The kernel for the CPU is held against the definition elsewhere, and faster than that.
    wanted = refine_on_cpu(weights, supports, *maps, threads=2)
    np.testing.assert_allclose(rows[: len(wanted)], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("low", [5, 16], ids=["padded", "as_it_is"])
@pytest.mark.parametrize("grid", [(7, 6), (1, 9), (9, 1)], ids=str)
def test_channels_may_come_last(low, grid):
    weights = make_weights(low=low)
    supports = supports_reference(corners(grid))
    logits, planes, *rest = (torch.from_numpy(array).to(DEVICE) for array in make_maps(weights, grid))
    last = planes[None].to(memory_format=torch.channels_last)[0]
    device_weights = DeviceWeights.of(weights, DEVICE, torch.float32)
    rows, same = (torch_op.refine(device_weights, on_device(supports), logits, x, *rest) for x in (planes, last))
    assert torch.equal(rows[: supports.counts[2]], same[: supports.counts[2]])


def test_a_large_tile_gives_the_same(monkeypatch):
    monkeypatch.setattr(TorchLauncher, "capability", (9, 0))
    flagged = np.random.default_rng(1).random((13, 17)) < 0.3
    assert_equals_reference(make_weights(channels=20), flagged, torch.float16)


@pytest.mark.parametrize(("programs", "dtype"), [(1, torch.float16), (3, torch.float32)])
def test_programs_that_do_tile_after_tile_give_the_same_bits(monkeypatch, programs, dtype):
    monkeypatch.setattr(launches, "LARGE", launches.SMALL)  # of fewer pixels, so that there are several tiles
    for name in ("SMALL", "FLOAT32"):
        monkeypatch.setattr(launches, name, replace(getattr(launches, name), pixels=16, width=16))
    weights, flagged = make_weights(channels=20), np.random.default_rng(3).random((9, 13)) < 0.3
    supports = supports_reference(flagged)
    maps = make_maps(weights, flagged.shape)
    wanted, _ = run(weights, supports, maps, dtype)
    monkeypatch.setattr(launches, "PROGRAMS", programs)
    found, _ = run(weights, supports, maps, dtype)
    np.testing.assert_array_equal(found, wanted)
    assert_equals_reference(weights, np.zeros((3, 4), bool), dtype)


def operands(dtype=torch.float32):
    weights = make_weights()
    supports = supports_reference(corners((4, 5)))
    tensors = [torch.from_numpy(array).to(DEVICE, dtype) for array in make_maps(weights, (4, 5))]
    return DeviceWeights.of(weights, DEVICE, dtype), on_device(supports), tensors


def test_gives_the_same_bits_every_time():
    weights, selection, tensors = operands()
    first, second = (torch_op.refine(weights, selection, *tensors)[:4] for _ in range(2))
    assert torch.equal(first, second)


class Detail(torch.nn.Module):
    """What a model around the operator may do."""

    def __init__(self, weights, selection):
        super().__init__()
        self.weights, self.selection = weights, selection

    def forward(self, logits, low, coarse, gate):
        return torch_op.refine(self.weights, self.selection, 2 * logits, low, coarse, gate)[:4] + 1


def test_is_a_sound_operator(monkeypatch):
    monkeypatch.undo()  # what poisons would write into fake tensors
    weights, selection, tensors = operands()
    parts = [weights.low, weights.project, weights.first, weights.second, weights.head, *weights.biases]
    arguments = (*tensors, selection.rows, selection.slots, selection.counts, parts, True, True)
    torch.library.opcheck(torch.ops.errseg_rt.refine.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_is_compiled_and_exported_with_its_surroundings(monkeypatch):
    monkeypatch.undo()
    weights, selection, tensors = operands()
    model = Detail(weights, selection)
    wanted = model(*tensors)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*tensors), wanted)
    exported = torch.export.export(model, tuple(tensors))
    assert any("errseg_rt.refine" in str(node.target) for node in exported.graph.nodes)
    assert torch.equal(exported.module()(*tensors), wanted)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, lambda x: x[:, :-1].contiguous(), r"logits must be float32 \[3, 4, 5\], got float32 \[3, 3, 5\]"),
        (0, lambda x: x.half(), r"logits must be float32 .*got float16"),
        (1, lambda x: x.half(), r"low must be float32 .*got float16"),
        (1, lambda x: x.transpose(1, 2).contiguous().transpose(1, 2), "low must be C-contiguous, got strides"),
        (2, lambda x: x[1:].contiguous(), r"coarse must be float32 \[7, h8, w8\], got float32 \[6, 2, 3\]"),
        (3, lambda x: x.cpu().numpy(), "gate must lie where the other operands do"),
    ],
)
def test_bad_operands_are_named(place, change, message):
    weights, selection, tensors = operands()
    tensors[place] = change(tensors[place])
    with pytest.raises(ValueError, match=message):
        dispatch(weights, selection, *tensors)


def test_weights_and_supports_of_the_host_are_refused():
    weights, selection, tensors = operands()
    with pytest.raises(ValueError, match="weights that are DeviceWeights, got RefineWeights"):
        dispatch(weights.host, selection, *tensors)
    with pytest.raises(ValueError, match=r"rows must lie where the other operands do \(.*\), got NumPy"):
        dispatch(weights, supports_reference(corners((4, 5))), *tensors)
    with pytest.raises(ValueError, match="selection must be what select gives, got dict"):
        dispatch(weights, {}, *tensors)


@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
def test_runs_in_a_cuda_graph_and_never_waits():
    weights, selection, tensors = operands(torch.float16)
    wanted = torch_op.refine(weights, selection, *tensors)[:4]
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            rows = torch_op.refine(weights, selection, *tensors)
        graph.replay()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert torch.equal(rows[:4], wanted)
