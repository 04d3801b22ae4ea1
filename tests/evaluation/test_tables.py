"""Figures as tables and as CSV: nothing is lost, and what is missing shows."""

from __future__ import annotations

import csv

import pytest

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.evaluation.evaluation import Evaluation
from errseg_rt.evaluation.labels import View
from errseg_rt.evaluation.tables import Figures, figures_of, write_csv


@pytest.fixture
def scores(sample, classes: ClassSet):
    evaluation = Evaluation(4, 0.6, thresholds=(0.3, 0.6), boundary=True)
    for seed in range(2):
        truth, branches = sample(seed)
        evaluation.add(truth, branches, views=[View(branches)])
    return evaluation.to_dict(classes)


def test_errors_of_frames_have_tables(sample, classes: ClassSet) -> None:
    evaluation = Evaluation(4, 0.6, calibrations={})
    for seed in range(3):
        evaluation.add(*sample(seed))
    scores = evaluation.to_dict(classes)
    told, rates, precision = figures_of(scores)[-3:]
    found = scores["frame_errors"]
    assert list(told.rows) == ["error_map", "max_softmax", "entropy", "margin"]
    assert cells(told)["entropy", "slope"] == found["baselines"]["entropy"]["slope"]
    assert cells(told)["error_map", "correlation"] == found["correlation"]
    assert rates.rows["error_map"] == [found["expected"], found["true"], found["difference"]]
    assert rates.rows["a constant"] == [found["true"], found["true"], found["constant"]]
    assert precision.rows["b"] == [found["precision"]["b"][key] for key in ("expected", "true", "difference")]


def cells(table: Figures) -> dict:
    return {
        (row, column): figure
        for row, figures in table.rows.items()
        for column, figure in zip(table.columns, figures, strict=True)
    }


def test_tables_hold_the_scores(scores, classes: ClassSet) -> None:
    labels, outlines, errors, thresholds = figures_of(scores)
    assert list(labels.columns) == ["native", "semantic", "fused", "semantic_ms", "fused_ms"]
    assert list(outlines.columns) == ["semantic", "fused"]
    assert list(labels.rows) == [*classes.names, "mean", "pixel accuracy"]
    figures = cells(labels)
    for way in ("native", "semantic", "fused", "semantic_ms", "fused_ms"):
        assert figures["b", way] == scores[way]["iou"]["b"]
        assert figures["mean", way] == scores[way]["miou"]
        assert figures["pixel accuracy", way] == scores[way]["accuracy"]
    assert cells(outlines)["c", "fused"] == scores["fused"]["boundary_iou"]["c"]
    assert cells(outlines)["mean", "semantic"] == scores["semantic"]["boundary_miou"]
    assert cells(errors)["p_ep", "aupr"] == scores["errors"]["aupr"]
    assert cells(errors)["margin", "auroc"] == scores["errors"]["baselines"]["margin"]["auroc"]
    assert cells(errors)["entropy", "ece"] is None
    assert list(thresholds.rows) == ["0.3", "0.6"]
    assert cells(thresholds)["0.6", "hard_recall"] == scores["thresholds"][1]["hard_recall"]


def test_without_thresholds_there_is_no_table_of_them(sample, classes: ClassSet) -> None:
    evaluation = Evaluation(4, 0.6)
    evaluation.add(*sample(0))
    assert [table.name for table in figures_of(evaluation.to_dict(classes))] == ["labels", "errors"]


def test_text_is_for_a_person() -> None:
    table = Figures("x", "X", ["error_iou", "b"], {"row": [0.12345, None]})
    assert table.headings() == ["", "error\niou", "b"]
    assert table.text() == [["row", "12.35", "-"]]
    assert Figures("x", "X", ["a"], {"row": [0.12345]}, factor=1, digits=4).text() == [["row", "0.1235"]]


def test_csv_holds_every_figure_whole(scores, tmp_path) -> None:
    tables, path = figures_of(scores), tmp_path / "deep" / "scores.csv"
    write_csv(tables, path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = {(table.name, *key): figure for table in tables for key, figure in cells(table).items()}
    found = {(row["table"], row["row"], row["column"]): float(row["value"]) if row["value"] else None for row in rows}
    assert found == wanted
    assert [item.name for item in path.parent.iterdir()] == ["scores.csv"]
