"""Tiles for Triton's interpreter, whose time goes by program."""

from __future__ import annotations

from typing import Any

from errseg_rt.kernels.calibrate import launches as calibrate
from errseg_rt.kernels.finite import launches as faults
from errseg_rt.kernels.fuse_labels import launches as fuse_labels
from errseg_rt.kernels.instances import launches as instances
from errseg_rt.kernels.preprocess import launches as preprocess
from errseg_rt.kernels.refine import launches as refine
from errseg_rt.kernels.select import launches as select
from tests.kernels.quick_interpreter import hasten


def widen_tiles(monkeypatch: Any) -> None:
    """Have fewer programs do more."""
    hasten(monkeypatch)
    monkeypatch.setattr(calibrate, "PIXELS", 1 << 14)
    monkeypatch.setattr(faults, "VALUES", 1 << 16)
    monkeypatch.setattr(fuse_labels, "CELLS", 4096)
    monkeypatch.setattr(instances, "PIXELS", 4096)
    monkeypatch.setattr(preprocess, "PIXELS", 1 << 14)
    monkeypatch.setattr(select, "PIXELS", 1024)
    for name in ("SMALL", "FLOAT32"):
        monkeypatch.setattr(refine, name, refine.Tile(1024, 64, 160, 4, 3))
    monkeypatch.setattr(refine, "MOVED_PIXELS", 1024)
