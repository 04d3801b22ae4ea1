"""Kernels for GPUs compile for every architecture, and need neither spills nor many registers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from errseg_rt.kernels import Geometry  # noqa: E402
from errseg_rt.kernels.fuse_labels import gpu as fuse_labels_gpu  # noqa: E402
from errseg_rt.kernels.preprocess import gpu as preprocess_gpu  # noqa: E402
from errseg_rt.kernels.select import gpu as select_gpu  # noqa: E402
from tests.kernels.triton_gate import launches, usage  # noqa: E402

ARCHITECTURES = [80, 86, 89, 90, 100, 120]
# What the smallest of them gives a program without asking: 48 KiB.
SHARED = 48 << 10
GRID = (257, 513)
FRAME = Geometry(GRID, (1025, 2049), (1025, 2049), (1025, 2049), True)
POINT = Geometry((1, 1), (1, 1), (1, 1), (1, 1), True)


def fuse(dtype: torch.dtype, geometry: Geometry, layout: str, everything: bool) -> Callable[[], object]:
    grid = geometry.grid_size
    semantic = torch.empty((19, *grid), dtype=dtype)
    detail, flagged = {
        "none": (None, None),
        "map": (semantic, torch.empty(grid, dtype=torch.bool)),
        "rows": (torch.empty((5, 19), dtype=dtype), torch.empty(grid, dtype=torch.int32)),
    }[layout]
    error = torch.empty(grid) if everything else None
    return lambda: fuse_labels_gpu.fuse_labels(semantic, detail, flagged, geometry, error=error, confidence=everything)


def select(dtype: torch.dtype, grid: tuple[int, int]) -> Callable[[], object]:
    error_logit = torch.zeros(grid, dtype=dtype)
    return lambda: select_gpu.select(error_logit, 0.7, row_work=(331_776, 186_624, 2**33), budget=10**9)


def preprocess(size: tuple[int, int], dtype: str) -> Callable[[], object]:
    frame = torch.empty((1025, 2049, 3), dtype=torch.uint8)
    colors = (0.5, 0.5, 0.5)
    return lambda: preprocess_gpu.preprocess(frame, size, size, mean=colors, std=colors, dtype=dtype)


# Registers of a thread: somewhat above what Triton 3.6 and 3.7 take for any architecture.
EVERYWHERE = {
    "fuse_labels": (fuse_labels_gpu, fuse(torch.float16, FRAME, "rows", False), 160),
    "select": (select_gpu, select(torch.float16, GRID), 96),
    "preprocess": (preprocess_gpu, preprocess((1025, 2049), "float16"), 64),
}
ON_ONE = {
    "fuse_labels_map": (fuse_labels_gpu, fuse(torch.bfloat16, FRAME, "map", False), 160),
    "fuse_labels_everything": (fuse_labels_gpu, fuse(torch.float32, FRAME, "rows", True), 200),
    "fuse_labels_of_one_pixel": (fuse_labels_gpu, fuse(torch.float32, POINT, "none", False), 160),
    "select_of_one_pixel": (select_gpu, select(torch.float32, (1, 1)), 96),
    "preprocess_enlarging": (preprocess_gpu, preprocess((1536, 3072), "bfloat16"), 112),
    "preprocess_shrinking": (preprocess_gpu, preprocess((512, 1024), "float32"), 112),
}
CASES = [pytest.param(sm, *case, id=f"{name}-sm_{sm}") for name, case in EVERYWHERE.items() for sm in ARCHITECTURES]
CASES += [pytest.param(90, *case, id=f"{name}-sm_90") for name, case in ON_ONE.items()]


@pytest.mark.parametrize(("architecture", "module", "call", "registers"), CASES)
def test_fits(architecture, module, call, registers, monkeypatch) -> None:
    for launch in launches(module, call, monkeypatch):
        taken = usage(launch, architecture)
        name = launch.kernel.__name__
        assert (taken.stack, taken.local) == (0, 0), f"{name} spills: {taken}"
        assert taken.registers <= registers, f"{name}: {taken}"
        assert taken.shared <= SHARED, f"{name}: {taken}"
