"""Kernels for GPUs compile for every architecture, and need neither spills nor many registers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from errseg_rt.kernels import Geometry, Layers  # noqa: E402
from errseg_rt.kernels.calibrate.launches import enqueue_calibrate  # noqa: E402
from errseg_rt.kernels.finite.launches import enqueue_finite  # noqa: E402
from errseg_rt.kernels.fuse_labels import launches as of_fusion  # noqa: E402
from errseg_rt.kernels.fuse_labels.launches import enqueue_fuse_labels  # noqa: E402
from errseg_rt.kernels.instances.launches import DeviceThings, enqueue_instances  # noqa: E402
from errseg_rt.kernels.instances.spec import InstanceSpec  # noqa: E402
from errseg_rt.kernels.preprocess.launches import enqueue_preprocess  # noqa: E402
from errseg_rt.kernels.select import launches as of_selection  # noqa: E402
from errseg_rt.kernels.select.launches import enqueue_select  # noqa: E402
from tests.kernels.triton_gate import Call, changed, check_fits  # noqa: E402

ARCHITECTURES = [80, 86, 87, 89, 90, 100, 110, 120, 121]  # 87, 110: Jetson Orin, Thor; 121: DGX Spark
# What the smallest of them gives a program without asking: 48 KiB.
SHARED = 48 << 10
GRID = (257, 513)
FRAME = Geometry(GRID, (1025, 2049), (1025, 2049), (1025, 2049), True)
POINT = Geometry((1, 1), (1, 1), (1, 1), (1, 1), True)


def fuse(dtype: torch.dtype, geometry: Geometry, layout: str, everything: bool) -> Call:
    grid = geometry.grid_size
    semantic = torch.empty((19, *grid), dtype=dtype)
    detail, flagged = {
        "none": (None, None),
        "map": (semantic, torch.empty(grid, dtype=torch.bool)),
        "rows": (torch.empty((5, 19), dtype=dtype), torch.empty(grid, dtype=torch.int32)),
    }[layout]
    error = torch.empty(grid) if everything else None
    return lambda launcher: enqueue_fuse_labels(
        launcher, semantic, detail, flagged, geometry, error=error, confidence=everything
    )


def select(dtype: torch.dtype, grid: tuple[int, int]) -> Call:
    error_logit, layers = torch.zeros(grid, dtype=dtype), Layers((331_776, 186_624, 2**33))
    limits = torch.zeros(2, dtype=torch.int64)
    return lambda launcher: enqueue_select(launcher, error_logit, limits, seen=grid, layers=layers)


def preprocess(size: tuple[int, int], dtype: str) -> Call:
    frame, colors = torch.empty((1025, 2049, 3), dtype=torch.uint8), (0.5, 0.5, 0.5)
    return lambda launcher: enqueue_preprocess(
        launcher, frame, size, size, mean=colors, std=colors, color="rgb", dtype=dtype
    )


def calibrate(dtype: torch.dtype) -> Call:
    error_logit, knots = torch.zeros(GRID, dtype=dtype), torch.zeros((2, 30))
    return lambda launcher: enqueue_calibrate(launcher, error_logit, knots)


def calibrate_final(dtype: torch.dtype, layout: str) -> Call:
    error_logit, knots = torch.zeros(GRID), torch.zeros((2, 30))
    detail, where = {
        "map": (torch.empty((19, *GRID), dtype=dtype), torch.empty(GRID, dtype=torch.bool)),
        "rows": (torch.empty((5, 19), dtype=dtype), torch.empty(GRID, dtype=torch.int32)),
    }[layout]
    return lambda launcher: enqueue_calibrate(launcher, error_logit, knots, detail, where, knots, 1.4)


def finite(dtype: torch.dtype, counted: bool) -> Call:
    values = torch.zeros((GRID[0] * GRID[1], 19), dtype=dtype)
    count = torch.zeros(3, dtype=torch.int32)[2] if counted else None
    return lambda launcher: enqueue_finite(launcher, [values], [count])


def instances(dtype: torch.dtype, geometry: Geometry, layout: str, top: int) -> Call:
    grid = geometry.grid_size
    semantic, labels = torch.empty((19, *grid), dtype=dtype), torch.empty(geometry.output_size, dtype=torch.uint8)
    detail, flagged = (None, None)
    if layout == "rows":
        detail, flagged = torch.empty((5, 19), dtype=dtype), torch.empty(grid, dtype=torch.int32)
    things = DeviceThings(InstanceSpec((11, 13, 18), top=top, hops=2, agreement=top > 1), torch.empty(19))
    boxes = torch.empty((12, *grid))
    return lambda launcher: enqueue_instances(launcher, semantic, detail, flagged, boxes, labels, geometry, things)


# Registers of a thread: somewhat above what Triton 3.6 and 3.7 take for any architecture.
EVERYWHERE = {
    "fuse_labels": (fuse(torch.float16, FRAME, "rows", False), 160),
    "select": (select(torch.float16, GRID), 96),
    "preprocess": (preprocess((1025, 2049), "float16"), 64),
    "calibrate": (calibrate(torch.float32), 64),
    "calibrate_final": (calibrate_final(torch.float16, "rows"), 64),
    "calibrate_final_map": (calibrate_final(torch.bfloat16, "map"), 64),
    "finite": (finite(torch.float16, True), 64),
    "instances": (instances(torch.float16, FRAME, "rows", 2), 160),
}
ON_ONE = {
    "fuse_labels_map": (fuse(torch.bfloat16, FRAME, "map", False), 160),
    "fuse_labels_everything": (fuse(torch.float32, FRAME, "rows", True), 200),
    "fuse_labels_of_one_pixel": (fuse(torch.float32, POINT, "none", False), 160),
    "fuse_labels_in_tiles_of_rows": (changed(fuse(torch.float16, FRAME, "rows", False), of_fusion, TILE_ROWS=4), 160),
    "select_with_a_ticket": (changed(select(torch.float16, GRID), of_selection, TICKET=True), 96),
    "select_half": (select(torch.bfloat16, GRID), 96),
    "select_of_one_pixel": (select(torch.float32, (1, 1)), 96),
    "calibrate_half": (calibrate(torch.float16), 64),
    "instances_of_the_best_class": (instances(torch.float32, FRAME, "none", 1), 128),
    "instances_of_one_pixel": (instances(torch.bfloat16, POINT, "none", 1), 128),
    "finite_of_a_map": (finite(torch.float32, False), 64),
    "preprocess_enlarging": (preprocess((1536, 3072), "bfloat16"), 112),
    "preprocess_shrinking": (preprocess((512, 1024), "float32"), 112),
}
CASES = [pytest.param(sm, *case, id=f"{name}-sm_{sm}") for name, case in EVERYWHERE.items() for sm in ARCHITECTURES]
CASES += [pytest.param(90, *case, id=f"{name}-sm_90") for name, case in ON_ONE.items()]


@pytest.mark.parametrize(("architecture", "call", "registers"), CASES)
def test_fits(architecture: int, call: Call, registers: int) -> None:
    check_fits(call, architecture, registers, SHARED)
