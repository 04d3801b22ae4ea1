"""Networks that others published, as files from before this format: their own labels, from one command."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.scenes import StreetScene
from tests.export.wrap.networks import run
from tests.export.wrap.pipeline import labels_of, normalised, segmented, softmax

pytest.importorskip("onnx")
WEIGHTS = Path(os.environ.get("ERRSEG_WEIGHTS", ""))
DATA = Path(os.environ.get("ERRSEG_DATA", ""))
MEAN, STD = (102.890434, 111.25247, 126.91212), (62.93292, 62.82138, 66.355705)  # of SINet: blue, green, red
SINET = [
    "--color", "bgr", "--scale", "1/255", "--mean", ",".join(f"{value}/255" for value in MEAN),
    "--std", ",".join(map(str, STD)),
]  # fmt: skip
FILES = {
    "sinet_portrait/SINet.onnx": (SINET, (320, 320), {"color": "bgr", "mean": np.divide(MEAN, 255), "std": STD}),
    "sinet_portrait/SINet_Softmax.onnx": (
        SINET,
        (320, 320),
        {"color": "bgr", "mean": np.divide(MEAN, 255), "std": STD},
    ),
    "deeplab_dm05_person_onnx/deeplab_nchw.onnx": (["--normalise", "-1..1"], (513, 513), {}),
}


@pytest.fixture
def frames() -> list[np.ndarray]:
    """A rendered street, and photographs where there are any."""
    import cv2

    found = sorted((DATA / "penn_fudan" / "images").glob("*.jpg"))[::60] if os.environ.get("ERRSEG_DATA") else []
    return [StreetScene(3, 360, 481).frame(0).frame, *(cv2.imread(str(path)) for path in found)]


@pytest.mark.parametrize("name", FILES)
def test_a_published_file(name: str, frames, cli, tmp_path: Path) -> None:
    path = WEIGHTS / name
    if not os.environ.get("ERRSEG_WEIGHTS") or not path.is_file():
        pytest.skip(f"ERRSEG_WEIGHTS has no {name}")
    options, size, way = FILES[name]
    done = cli("wrap", path, "-o", tmp_path / "bundle", "--classes", "2", *options)
    assert (done.code, done.err) == (0, "")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert (manifest.input.size, manifest.grid_stride, manifest.error) == (size, 1, "max_softmax")
    for frame in frames:
        found = run(path, normalised(frame, size=size, **way))[0]
        probabilities = found if "Softmax" in name else softmax(found)
        right = labels_of(probabilities, (frame.shape[0], frame.shape[1]))
        result = segmented(tmp_path / "bundle", frame)
        assert (result.labels == right).mean() >= 0.999
        assert result.error_probability is not None
        assert 0 <= result.error_probability.min() < 0.1 < 0.4 < result.error_probability.max() <= 0.5
