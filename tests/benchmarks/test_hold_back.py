"""What refinement changes, expected and true, against sums over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.hold_back import changes, in_rows
from errseg_rt import Runtime
from errseg_rt.bundle.classes import IGNORE
from errseg_rt.scenes import StreetScene


def test_changes_are_means_over_pixels_that_have_a_class():
    scene = StreetScene(20_003, 97, 129).frame(20)
    truth = scene.labels.copy()
    truth[:40] = IGNORE
    with Runtime("camvid", threshold=0.3) as runtime:
        ((expected, true, by_pixel),) = changes(runtime, [(scene.frame, truth)])
        result = runtime.segment(scene.frame, semantic=True)
    assert result.refined
    pixels = list(zip(*np.nonzero(truth != IGNORE), strict=True))
    maps = result.error_map(), result.semantic_error_map()
    means = [sum(float(each[pixel]) for pixel in pixels) / len(pixels) for each in maps]
    assert expected == pytest.approx(100 * (means[0] - means[1]), abs=1e-3)
    labels = [result.labels, result.semantic_labels]
    labels.append(np.where(maps[0] < maps[1], *labels))
    wrong = [sum(int(each[pixel] != truth[pixel]) for pixel in pixels) for each in labels]
    assert true == pytest.approx(100 * (wrong[0] - wrong[1]) / len(pixels), abs=1e-9)
    assert by_pixel == pytest.approx(100 * (wrong[2] - wrong[1]) / len(pixels), abs=1e-9)


def test_frames_that_are_made_worse_and_held_back_are_counted():
    rows = {
        row.name: row.value for row in in_rows("here", np.array([[-1, 2, 5], [0.5, 1, 0], [3, -1, 1], [-2.0, -2, 0]]))
    }
    assert rows["hold_back/expected_change@here"] == pytest.approx(-0.25)
    assert rows["hold_back/true_change@here"] == 0
    assert rows["hold_back/true_change_by_pixel@here"] == 0.5
    assert rows["hold_back/made_worse@here"] == 2
    assert rows["hold_back/would_hold_back@here"] == 2
    assert rows["hold_back/would_hold_back_rightly@here"] == 1
