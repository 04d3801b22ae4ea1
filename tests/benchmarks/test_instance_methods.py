"""The comparison of instances with what needs no network for them, on cells whose number is known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from benchmarks import instance_methods as module
from errseg_rt.bundle.classes import ClassSet
from errseg_rt.frames.instances import Instances
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.kernels.geometry import Geometry

CLASSES = ClassSet(("background", "cell"), ((0, 0, 0), (255, 0, 0)))
SIZE = (64, 80)


def cells(seed: int) -> np.ndarray:
    """Three pairs of cells that touch."""
    index, rng = np.zeros(SIZE, np.uint16), np.random.default_rng(seed)
    for pair, (x, y) in enumerate(((14, 14), (55, 14), (30, 46))):
        x, y = x + int(rng.integers(0, 4)), y + int(rng.integers(0, 4))
        cv2.circle(index, (x, y), 9, 2 * pair + 1, -1)
        cv2.circle(index, (x + 16, y), 9, 2 * pair + 2, -1)
    return index


class Seer:
    """A runtime that sees the instances in the blue of a frame, and says that half of them may be wrong."""

    manifest = SimpleNamespace(classes=CLASSES, things=(1,), name="seer")

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> Seer:
        return self

    def __exit__(self, *_: object) -> None: ...

    def segment(self, frame: np.ndarray, *, confidence: bool) -> Segmentation:
        index = frame[..., 0].astype(np.int32)
        errors = np.full((16, 20), 0.25, np.float32)
        return Segmentation(
            labels=(index > 0).astype(np.uint8),
            error_probability=errors,
            flagged=errors > 1,
            classes=CLASSES,
            geometry=Geometry((16, 20), SIZE, SIZE, SIZE, False),
            timings={},
            confidence=np.ones(SIZE, np.float32),
            instances=Instances.of(index, np.ones(6, int), np.ones(6), CLASSES),
        )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("images", "instances"):
        (tmp_path / name).mkdir()
    for seed in range(11):
        index = cells(seed)
        cv2.imwrite(str(tmp_path / f"images/f{seed}.png"), np.dstack([index.astype(np.uint8)] * 3))
        cv2.imwrite(str(tmp_path / f"instances/f{seed}.png"), index)
    return tmp_path


def test_what_touches_is_one_piece(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(module, "Runtime", Seer)
    monkeypatch.setattr(sys, "argv", ["instance_methods", "seer", "--data", str(data), "--tune", str(data),
                                      "--json", str(tmp_path / "told.json")])  # fmt: skip
    module.main()
    told = json.loads((tmp_path / "told.json").read_text())
    methods = told["methods"]
    assert methods["bundle"]["map_r_0.5"] == 1
    assert methods["watershed"]["map_r_0.5"] > 0.95
    # A pair's piece has an IoU of about a half with each of the two.
    assert methods["components"]["map_r_0.7"] == methods["components, true labels"]["map_r_0.7"] == 0
    assert told["bundle_minus"]["components"]["map_r_0.5"] > 0
    assert told["watershed"].keys() == {"sigma", "apart"}
    assert "watershed, true labels" in capsys.readouterr().out


def test_a_bundle_without_instances(monkeypatch) -> None:
    plain = SimpleNamespace(manifest=SimpleNamespace(name="plain", things=(), classes=CLASSES))
    with pytest.raises(SystemExit, match="plain: the bundle finds no instances"):
        module.scored(plain, [], {})
