"""The benchmarks of video count what they say."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks import video_kills, video_loss


def test_what_kills_cost() -> None:
    missing, play = video_kills.rows([(0.5, 0.0), (3.0, 2.0), (5.0, 3.5), (4.0, 4.0)])
    assert (missing.value, play.value) == (1.5, 0.75)
    assert "4 kills, after 0.5 to 5.0 s" in missing.note
    assert play.note == "nothing plays of: 1, of which 0.50 s at most had been written"


def test_wrong_frames_and_gaps_of_a_lossy_network() -> None:
    told = {"numbers": [5, 6, 9, 10, 14], "far": [1.0, 99.0, 1.0, 1.0, 1.0], "corrupt": [0, 0, 2, 2, 2]}
    wrong, gaps = video_loss.rows_of("udp_1%", told | {"packets": 7, "reopened": 0})
    assert wrong.value == 20
    assert (gaps.value, gaps.note) == (1, "of 2, in which 5 frames are missing; bar: 0")
    assert "7 packets dropped" in wrong.note
    assert wrong.note.endswith("bar: 2 %")


@pytest.mark.parametrize("number", [0, 1, 700])
def test_a_texture_that_is_not_its_numbers_is_wrong(number) -> None:
    rows = video_loss.texture()
    gray = np.roll(rows, -video_loss.STEP * number, axis=1)
    shown = np.clip((gray.astype(float) - 16) * 255 / 219, 0, 255).round().astype(np.uint8)
    frame = np.zeros((video_loss.HEIGHT, video_loss.WIDTH, 3), np.uint8)
    frame[-len(rows) :] = cv2.cvtColor(shown, cv2.COLOR_GRAY2BGR)
    assert video_loss.off(frame, number, rows) <= 1
    assert video_loss.off(frame, number + 1, rows) > video_loss.FAR
    frame[-32:-16, 320:336] = 0
    assert video_loss.off(frame, number, rows) > video_loss.FAR
