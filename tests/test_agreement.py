"""Torch, ONNX Runtime and the saved bundle say the same of real frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.options import Options
from errseg_rt.pipeline.direct import Direct
from errseg_rt.pipeline.open import open_way

pytest.importorskip("torch")
from errseg_rt.export.engines.parity import compare


@pytest.fixture(scope="module")
def ways() -> list[Direct]:
    return [open_way(Bundle.open("camvid"), Options(engine)) for engine in ("torch", "onnxruntime")]


def test_labels_agree_at_480x360(ways: list[Direct], camvid_val: Path) -> None:
    paths = sorted((camvid_val / "images").iterdir())[::25]
    parity = compare(*ways, (cv2.imread(str(path)) for path in paths))
    assert parity.agreement >= 0.9999
    assert parity.pixels == len(paths) * 360 * 480


@pytest.mark.parametrize("extra", [0, 1], ids=["1024x2048", "1025x2049"])
def test_labels_agree_at_full_resolution(ways: list[Direct], cityscapes: Path, extra: int) -> None:
    path = sorted((cityscapes / "leftImg8bit" / "train" / "aachen").iterdir())[extra]
    frame = cv2.copyMakeBorder(cv2.imread(str(path)), 0, extra, 0, extra, cv2.BORDER_REPLICATE)
    assert frame.shape == (1024 + extra, 2048 + extra, 3)
    assert compare(*ways, [frame]).agreement >= 0.9999
