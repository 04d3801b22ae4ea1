"""Refinement's kernels for GPUs compile for every architecture, and do not spill."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from errseg_rt.kernels.refine import DeviceWeights, RefineWeights, launches  # noqa: E402
from errseg_rt.kernels.refine.launches import enqueue_refine  # noqa: E402
from errseg_rt.kernels.select import Selection  # noqa: E402
from tests.kernels.triton_gate import Call, Recorder, changed, check_fits  # noqa: E402

# What an architecture gives a program, KiB.
SHARED = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 110: 227, 120: 99, 121: 99}


def refine(
    dtype: torch.dtype, channels: int, low: int, classes: int, grid: tuple[int, int] = (256, 512), *, side: int = 3
) -> Call:
    height, width = grid
    shapes = ((channels, low, side, side), (channels,), (channels, channels), (channels,))
    squares = ((channels, channels, 3, 3), (channels,), (channels, channels, side, side), (channels,))
    shapes = (*shapes, *squares, (classes, channels), (classes,))
    host = RefineWeights(*(np.zeros(shape, np.float32) for shape in shapes), residual=True, align_corners=True)
    weights = DeviceWeights.of(host, "cpu", dtype)
    numbers = (torch.empty((3, height * width), dtype=torch.int32) for _ in range(2))
    rest = (torch.empty(shape, dtype=torch.int32) for shape in ((3,), (), grid))
    selection = Selection(*numbers, *rest)
    sizes = ((classes, *grid), (low, *grid), (channels, height // 2, width // 2), (channels,))
    tensors = [torch.empty(size, dtype=dtype) for size in sizes]
    return lambda launcher: enqueue_refine(launcher, weights, selection, *tensors)


# Of Cityscapes' size on every architecture, others on one. Registers of a thread: somewhat above what Triton 3.6 and
# 3.7 take; tensor cores from sm_90 on read their operands from shared memory.
WIDE = {80: 224, 86: 224, 87: 224, 89: 224, 90: 176, 100: 184, 110: 184, 120: 208, 121: 208}
CASES = [
    pytest.param(sm, refine(torch.float16, 144, 256, 19), registers, id=f"wide-sm_{sm}")
    for sm, registers in WIDE.items()
] + [
    pytest.param(90, changed(refine(torch.float16, 144, 256, 19), launches, PROGRAMS=132), 192, id="persistent-sm_90"),
    pytest.param(90, refine(torch.float16, 48, 24, 11), 136, id="narrow-sm_90"),
    pytest.param(90, refine(torch.float16, 32, 24, 11, side=1), 136, id="of_one_pixel-sm_90"),
    pytest.param(90, refine(torch.float16, 13, 5, 3, (9, 11)), 80, id="odd-sm_90"),
    pytest.param(90, refine(torch.float32, 144, 256, 19), 248, id="float32-sm_90"),
    pytest.param(100, refine(torch.bfloat16, 192, 256, 150), 112, id="many_classes-sm_100"),
]


@pytest.mark.parametrize(("architecture", "call", "registers"), CASES)
def test_fits(architecture: int, call: Call, registers: int) -> None:
    check_fits(call, architecture, registers, SHARED[architecture] << 10)


def test_no_axis_of_a_grid_but_the_first_grows_with_the_frame() -> None:
    """The others end at 65,535 programs."""
    recorder = Recorder(90)
    refine(torch.float16, 144, 16, 19, (1, 5_000_000))(recorder)
    assert max(launch.grid[0] for launch in recorder.launches) > 65_535
    assert all(axis <= 16 for launch in recorder.launches for axis in launch.grid[1:])
