"""Refinement on the CPU, against its definition and against torch's convolutions."""

from __future__ import annotations

import itertools
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.kernels.refine import RefineWeights, refine
from errseg_rt.kernels.refine.reference import refine_reference, stage_reference
from errseg_rt.kernels.select import Layers, supports_reference

cpu, loops = (import_module(f"errseg_rt.kernels.refine.{name}") for name in ("cpu", "loops"))


def random_weights(rng, channels=8, low=5, coarse=6, classes=4, residual=True, align_corners=True, sides=(3, 3, 3)):
    def draw(*shape):
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)

    first, second, third = (
        (channels, inputs, side, side) for inputs, side in zip((low, channels, channels), sides, strict=True)
    )
    return RefineWeights(
        draw(*first), draw(channels), draw(channels, coarse), draw(channels),
        draw(*second), draw(channels), draw(*third), draw(channels),
        draw(classes, channels), draw(classes), residual, align_corners,
    )  # fmt: skip


def operands(rng, weights, grid):
    coarse = (weights.coarse_channels, -(-grid[0] // 2), -(-grid[1] // 2))
    shapes = ((weights.classes, *grid), (weights.low_channels, *grid), coarse, (weights.channels,))
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def assert_exact(weights, flagged, maps, threads=1):
    supports = supports_reference(flagged, weights.layers)
    wanted = refine_reference(weights, supports, *maps)
    found = refine(weights, supports, *maps, threads=threads)
    assert found.dtype == np.float32
    assert found.shape == (flagged.sum(), weights.classes)
    # Sums of a few hundred products of numbers around one, in float32.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def corners(grid):
    mask = np.zeros(grid, bool)
    mask[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    return mask


MASKS = {
    "none": lambda rng, grid: np.zeros(grid, bool),
    "all": lambda rng, grid: np.ones(grid, bool),
    "corners": lambda rng, grid: corners(grid),
    "scattered": lambda rng, grid: rng.random(grid) < 0.1,
    "clustered": lambda rng, grid: np.indices(grid).sum(axis=0) < min(grid),
    "last_row": lambda rng, grid: np.indices(grid)[0] == grid[0] - 1,
    "last_column": lambda rng, grid: np.indices(grid)[1] == grid[1] - 1,
}


@pytest.mark.parametrize("align_corners", [True, False], ids=["aligned", "half_pixel"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("grid", [(17, 25), (1, 1), (2, 3), (1, 19), (23, 1), (33, 40)], ids=str)
def test_equals_the_definition(grid, mask, align_corners):
    rng = np.random.default_rng(3)
    weights = random_weights(rng, align_corners=align_corners)
    assert_exact(weights, MASKS[mask](rng, grid), operands(rng, weights, grid))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("mask", ["all", "corners", "scattered", "last_row", "last_column"])
@pytest.mark.parametrize("sides", list(itertools.product([1, 3], repeat=3)), ids=str)
def test_kernels_of_one_pixel(monkeypatch, sides, mask, threads):
    monkeypatch.setattr(cpu, "WORK_OF_A_THREAD", 1)
    rng = np.random.default_rng(10)
    weights = random_weights(rng, sides=sides)
    for grid in ((17, 25), (1, 19), (23, 1)):
        assert_exact(weights, MASKS[mask](rng, grid), operands(rng, weights, grid), threads)


@pytest.mark.parametrize("residual", [True, False], ids=["residual", "plain"])
@pytest.mark.parametrize(
    ("channels", "low", "coarse", "classes"),
    [(5, 3, 5, 2), (13, 7, 9, 11), (50, 24, 50, 19), (48, 24, 48, 11), (1, 1, 1, 2), (16, 16, 16, 16), (33, 2, 3, 255)],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_channels_that_are_multiples_of_nothing(monkeypatch, channels, low, coarse, classes, residual, threads):
    monkeypatch.setattr(cpu, "WORK_OF_A_THREAD", 1)  # however little there is to do
    rng = np.random.default_rng(4)
    weights = random_weights(rng, channels, low, coarse, classes, residual)
    grid = (21, 34)
    assert_exact(weights, rng.random(grid) < 0.2, operands(rng, weights, grid), threads)


@pytest.mark.parametrize("which", ["logits", "low", "coarse", "gate"])
def test_nan_spreads_as_in_the_definition(which):
    rng, grid = np.random.default_rng(6), (17, 25)
    weights = random_weights(rng)
    maps = dict(zip(("logits", "low", "coarse", "gate"), operands(rng, weights, grid), strict=True))
    maps[which].flat[maps[which].size // 2] = np.nan
    supports = supports_reference(np.indices(grid).sum(axis=0) % 2 == 0)
    wanted = refine_reference(weights, supports, *maps.values())
    assert np.isnan(wanted).any()
    np.testing.assert_array_equal(np.isnan(refine(weights, supports, *maps.values())), np.isnan(wanted))


@settings(max_examples=40, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    share=st.floats(0, 1),
    align_corners=st.booleans(),
    sides=st.tuples(*[st.sampled_from([1, 3])] * 3),
    seed=st.integers(0, 2**16),
)
def test_any_mask_on_any_grid(grid, share, align_corners, sides, seed):
    rng = np.random.default_rng(seed)
    weights = random_weights(rng, align_corners=align_corners, sides=sides)
    assert_exact(weights, rng.random(grid) < share, operands(rng, weights, grid))


@pytest.mark.parametrize("sides", [(3, 3, 3), (1, 3, 1), (3, 1, 3)], ids=str)
@pytest.mark.parametrize("align_corners", [True, False], ids=["aligned", "half_pixel"])
def test_the_definition_is_what_torch_computes(align_corners, sides):
    rng = np.random.default_rng(5)
    weights = random_weights(rng, align_corners=align_corners, sides=sides)
    maps = operands(rng, weights, (17, 25))
    logits, low, coarse, gate = (torch.from_numpy(array).double()[None] for array in maps)
    names = ("low_weight", "low_bias", "project_weight", "project_bias", "weight1", "bias1", "weight2", "bias2")
    w = {name: torch.from_numpy(getattr(weights, name)).double() for name in (*names, "head_weight", "head_bias")}
    up = F.interpolate(
        F.conv2d(coarse, w["project_weight"][..., None, None], w["project_bias"]),
        size=(17, 25), mode="bilinear", align_corners=align_corners,
    )  # fmt: skip
    x = up + gate[..., None, None] * F.conv2d(low, w["low_weight"], w["low_bias"], padding=sides[0] // 2)
    y = F.conv2d(x, w["weight1"], w["bias1"], padding=sides[1] // 2).relu()
    z = F.conv2d(y, w["weight2"], w["bias2"], padding=sides[2] // 2).relu()
    wanted = F.conv2d(z, w["head_weight"][..., None, None], w["head_bias"]) + logits
    np.testing.assert_allclose(stage_reference(weights, *maps), wanted[0].numpy(), rtol=0, atol=1e-10)


def test_operands_are_left_as_they_are():
    rng = np.random.default_rng(6)
    weights = random_weights(rng)
    maps = operands(rng, weights, (9, 11))
    before = [array.copy() for array in maps]
    refine(weights, supports_reference(np.ones((9, 11), bool)), *maps)
    for array, old in zip(maps, before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, lambda a: a[:, :-1], r"logits must be float32 \[4, 9, 11\], got float32 \[4, 8, 11\]"),
        (0, lambda a: a.astype(np.float64), r"logits must be float32 .*got float64"),
        (1, lambda a: a[:-1], r"low must be float32 \[5, 9, 11\], got float32 \[4, 9, 11\]"),
        (1, lambda a: np.asfortranarray(a), r"low must be C-contiguous"),
        (2, lambda a: a[0], r"coarse must be float32 \[6, h8, w8\], got float32 \[5, 6\]"),
        (2, lambda a: a[:, :0], r"coarse must have pixels, got \[6, 0, 6\]"),
        (3, lambda a: a[None], r"gate must be float32 \[8\], got float32 \[1, 8\]"),
        (3, lambda a: a.tolist(), r"gate must be a NumPy array or a CUDA tensor, got list"),
    ],
)
def test_operands_that_do_not_fit(place, change, message):
    rng = np.random.default_rng(7)
    weights = random_weights(rng)
    maps = operands(rng, weights, (9, 11))
    maps[place] = change(maps[place])
    with pytest.raises(ValueError, match=message):
        refine(weights, supports_reference(np.ones((9, 11), bool)), *maps)


def test_supports_of_other_kernels():
    rng = np.random.default_rng(11)
    weights, flagged = random_weights(rng), np.zeros((9, 11), bool)
    flagged[4, 5] = True
    too_small = supports_reference(flagged, Layers(kernels=(3, 3, 1)))
    with pytest.raises(ValueError, match="supports must be those of flagged pixels, as select makes them"):
        refine(weights, too_small, *operands(rng, weights, (9, 11)))


def test_too_few_threads():
    rng = np.random.default_rng(8)
    weights = random_weights(rng)
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        refine(weights, supports_reference(np.ones((9, 11), bool)), *operands(rng, weights, (9, 11)), threads=0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bias1", np.zeros(7, np.float32), r"bias1 must be \[8\] without a zero, got \[7\]"),
        ("weight2", np.zeros((8, 8, 3, 3)), "weight2 must be a float32 array, got float64"),
        ("low_bias", np.full(8, np.nan, np.float32), "low_bias holds values that are not finite"),
        ("weight1", np.zeros((8, 8, 3, 1), np.float32), r"weight1 must be \[8, 8, 1, 1\] .*, got \[8, 8, 3, 1\]"),
        ("low_weight", np.zeros((8, 5, 5, 5), np.float32), r"low_weight must be \[8, 5, 3, 3\] .*, got \[8, 5, 5, 5\]"),
        ("head_weight", np.zeros((4, 7), np.float32), r"head_weight must be \[4, 8\] without a zero, got \[4, 7\]"),
        ("project_weight", np.zeros(8, np.float32), r"project_weight \[C, Cc\]"),
    ],
)
def test_weights_that_do_not_fit(name, value, message):
    weights = random_weights(np.random.default_rng(9))
    with pytest.raises(ValueError, match=message):
        replace(weights, **{name: value})
