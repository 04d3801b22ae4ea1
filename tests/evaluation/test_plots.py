"""Plots: they are written, show what they say, and do without what is missing."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.errors import EngineError
from errseg_rt.evaluation import plots
from errseg_rt.evaluation.evaluation import Evaluation
from errseg_rt.runtime import Runtime

pytest.importorskip("matplotlib")


@pytest.fixture
def evaluation(sample) -> Evaluation:
    evaluation = Evaluation(4, 0.6, thresholds=(0.3, 0.6))
    for seed in range(3):
        evaluation.add(*sample(seed))
    return evaluation


def test_curves_are_pictures(evaluation, classes: ClassSet, tmp_path) -> None:
    paths = plots.plot_curves(
        tmp_path, evaluation.errors, {"p_ep": Calibration((0.0,), (0.2,))}, evaluation.to_dict(classes)
    )
    assert [path.name for path in paths] == ["risk_coverage.png", "reliability.png", "miou_over_t.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    for path in paths:
        picture = cv2.imread(str(path))
        assert min(picture.shape[:2]) > 300
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_curves_without_a_point_are_left_out(classes: ClassSet, tmp_path) -> None:
    empty = Evaluation(4, 0.6, thresholds=(0.5,))
    assert plots.plot_curves(tmp_path, empty.errors, {}, empty.to_dict(classes)) == []


def test_reliability_needs_a_calibration(evaluation, classes: ClassSet, tmp_path) -> None:
    paths = plots.plot_curves(tmp_path, evaluation.errors, {}, evaluation.to_dict(classes))
    assert [path.name for path in paths] == ["risk_coverage.png", "miou_over_t.png"]


def test_lines_are_the_scores(evaluation, classes: ClassSet) -> None:
    scores = evaluation.to_dict(classes)
    axes, cost = plots._miou_over_t(scores).axes
    lines = {line.get_label(): line.get_ydata() for figure in (axes, cost) for line in figure.get_lines()}
    np.testing.assert_allclose(lines["fused"], [100 * row["miou"] for row in scores["thresholds"]])
    np.testing.assert_allclose(lines["flagged"], [100 * row["flagged"] for row in scores["thresholds"]])
    np.testing.assert_allclose(lines["native"], 100 * scores["native"]["miou"])


def test_a_frame_beside_its_labels(runtime: Runtime, rendered, tmp_path) -> None:
    result = runtime.segment(rendered.frame, semantic=True)
    path = plots.plot_frame(tmp_path / "worst.png", rendered.frame, rendered.labels, result)
    picture = cv2.imread(str(path))
    assert picture.shape[1] > 3 * rendered.frame.shape[1]


def test_a_frame_needs_semantic_labels(runtime: Runtime, rendered, tmp_path) -> None:
    with pytest.raises(ValueError, match="holds no semantic labels"):
        plots.plot_frame(tmp_path / "x.png", rendered.frame, rendered.labels, runtime.segment(rendered.frame))
    assert not list(tmp_path.iterdir())


def test_colours_of_what_is_wrong() -> None:
    truth = np.array([[0, 0, 0, 0, IGNORE]], np.uint8)
    semantic, fused = np.array([[0, 1, 1, 0, 1]], np.uint8), np.array([[0, 1, 0, 1, 0]], np.uint8)
    black, red, green, blue, grey = plots._wrong(truth, semantic, fused)[0].tolist()
    assert (black, red, green, grey) == ([0, 0, 0], [0, 0, 255], [0, 255, 0], [96, 96, 96])
    assert blue[0] > max(blue[1:])


def test_matplotlib_that_is_missing(monkeypatch) -> None:
    plots.check_plots()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(EngineError, match=r"plots are not installed .*: pip install 'errseg-rt\[plots\]'"):
        plots.check_plots()
