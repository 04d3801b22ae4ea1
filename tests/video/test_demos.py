"""The scripts of `docs/video` do what they say; those of cameras in a network are run in `test_live.py`."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.runtime import Runtime
from errseg_rt.video import live
from tests.video.clips import read_clip, write_clip


def test_the_demo_of_a_file(demo, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [0.2 * index for index in range(6)])
    with Runtime() as runtime:
        results = [runtime.segment(frame) for frame in read_clip(clip)[1]]
    worst = int(np.argmax([result.mean_error_probability for result in results]))
    looked, said = demo("file.py", clip, tmp_path / "out")
    assert looked == "6 of 6 frames looked at"
    assert said.startswith(f"most in doubt at {0.2 * worst:.2f} s: expected error ")
    kept = cv2.imread(str(tmp_path / "out" / "worst_labels.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(kept, results[worst].labels)


def test_the_demo_of_a_webcam(demo, monkeypatch: pytest.MonkeyPatch, frame) -> None:
    class Camera:
        def __init__(self, index: int) -> None:
            assert index == 0

        def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
            return True

        def read(self) -> tuple[bool, np.ndarray]:
            time.sleep(0.01)
            return True, frame

        def release(self) -> None:
            pass

    monkeypatch.setattr(live.cv2, "VideoCapture", Camera)
    with Runtime() as runtime:
        result = runtime.segment(frame)
        share = (result.labels == result.classes.names.index("pedestrian")).mean()
    lines = demo("webcam.py", 0.5)
    assert lines
    assert all(f" s: people {share:.1%}, " in line and line.endswith(" dropped") for line in lines)
