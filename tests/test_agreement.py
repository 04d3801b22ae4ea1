"""Torch, ONNX Runtime and the saved bundle say the same of real frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from errseg_rt import Runtime

pytest.importorskip("torch")
from errseg_rt.export.engines.parity import compare


@pytest.fixture(scope="module")
def runtimes() -> Iterator[tuple[Runtime, Runtime]]:
    with Runtime(engine="torch") as reference, Runtime(engine="onnxruntime") as runtime:
        yield reference, runtime


def test_labels_agree_at_480x360(runtimes: tuple[Runtime, Runtime], camvid_val: Path) -> None:
    paths = sorted((camvid_val / "images").iterdir())[::25]
    parity = compare(*runtimes, (cv2.imread(str(path)) for path in paths))
    assert parity.agreement >= 0.9999
    assert parity.pixels == len(paths) * 360 * 480


@pytest.mark.parametrize("extra", [0, 1], ids=["1024x2048", "1025x2049"])
def test_labels_agree_at_full_resolution(runtimes: tuple[Runtime, Runtime], cityscapes: Path, extra: int) -> None:
    path = sorted((cityscapes / "leftImg8bit" / "train" / "aachen").iterdir())[extra]
    frame = cv2.copyMakeBorder(cv2.imread(str(path)), 0, extra, 0, extra, cv2.BORDER_REPLICATE)
    assert frame.shape == (1024 + extra, 2048 + extra, 3)
    assert compare(*runtimes, [frame]).agreement >= 0.9999
