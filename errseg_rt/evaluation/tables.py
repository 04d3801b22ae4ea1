"""An evaluation's figures as tables: for the screen, and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errseg_rt.system.atomic import write_atomically

_WAYS = ("native", "semantic", "fused", "semantic_ms", "fused_ms")
_RANKING = ("aupr", "auroc", "fpr95", "aurc", "ece", "brier")
_QUALITY = ("pq", "sq", "rq")
_INSTANCES = ("ap_r_0.5", "ap_r_0.7", "ap_r_vol", "ap", "ap50", "ap75", "ap_uncut", *_QUALITY)
_FRAMES = ("correlation", "slope")
_RIGHT = ("expected", "true", "ece", "worst_decile", "brier")
_SWEEP = ("error_iou", "error_miou", "recall", "precision", "hard_recall", "flagged", "work", "miou", "gain")


@dataclass(frozen=True)
class Figures:
    """One table of figures.

    Attributes:
        name: What a program calls it.
        title: What a person reads above it.
        columns: Names of the columns of figures.
        rows: Name of each row, and its figures, None where there is none.
        factor: What figures are multiplied with for a person.
        digits: How many decimals a person is shown.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[float | None]]
    factor: float = 100
    digits: int = 2

    def headings(self) -> list[str]:
        """The columns for a person, a word a line, that of the rows' names included."""
        return ["", *("\n".join(column.replace("_", " ").split()) for column in self.columns)]

    def text(self) -> list[list[str]]:
        """The rows for a person."""
        return [[name, *map(self._cell, figures)] for name, figures in self.rows.items()]

    def _cell(self, figure: float | None) -> str:
        return "-" if figure is None else f"{self.factor * figure:.{self.digits}f}"


def figures_of(scores: Mapping[str, Any]) -> list[Figures]:
    """The tables of an evaluation, from its `to_dict`."""
    tables = label_figures({name: scores[name] for name in _WAYS if name in scores})
    if scores["errors"]:
        tables.append(_errors(scores["errors"]))
    if "frame_errors" in scores:
        tables += _frames(scores["frame_errors"])
    if "label_errors" in scores:
        tables += _label_errors(scores["label_errors"])
    if scores["thresholds"]:
        tables.append(_thresholds(scores["thresholds"]))
    if "instances" in scores:
        tables += instance_figures(scores["instances"])
    return tables


def label_figures(ways: Mapping[str, Mapping[str, Any]]) -> list[Figures]:
    """The tables of some ways of labelling, from the `to_dict` of their `LabelScores`: classes, and outlines if scored.

    Args:
        ways: By name, at least one.
    """
    rows = _by_class(ways, "iou")
    rows["mean"] = [way["miou"] for way in ways.values()]
    rows["pixel accuracy"] = [way["accuracy"] for way in ways.values()]
    tables = [Figures("labels", "IoU (%)", [*ways], rows)]
    outlined = {name: way for name, way in ways.items() if "boundary_iou" in way}
    if outlined:
        rows = _by_class(outlined, "boundary_iou")
        rows["mean"] = [way["boundary_miou"] for way in outlined.values()]
        tables.append(Figures("boundary", "Boundary IoU (%)", [*outlined], rows))
    return tables


def instance_figures(scores: Mapping[str, Any]) -> list[Figures]:
    """The tables of instances, from the `to_dict` of `InstanceScores`: by class, and what tells true from false."""
    rows = {name: [found[key] for key in _INSTANCES] for name, found in scores["classes"].items()}
    quality = scores["panoptic"]["things"]
    rows["mean"] = [scores[f"m{key}"] if f"m{key}" in scores else quality[key] for key in _INSTANCES]
    counts = {name: [found["truths"], found["found"]] for name, found in scores["classes"].items()}
    trust = {name: [auroc] for name, auroc in scores["auroc"].items()}
    whole = {name: [each[key] for key in _QUALITY] for name, each in scores["panoptic"].items()}
    return [
        Figures("instances", "Instances (%)", _INSTANCES, rows),
        Figures("instance_counts", "Instances", ("truths", "found"), counts, factor=1, digits=0),
        Figures("panoptic", "Panoptic quality (%)", _QUALITY, whole),
        Figures("instance_trust", "True against false", ("auroc",), trust, factor=1, digits=4),
    ]


def write_csv(tables: Sequence[Figures], path: Path) -> None:
    """Write all tables as one of four columns: table, row, column, value (in 0..1, empty where there is none).

    Raises:
        OSError: The file cannot be written.
    """
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["table", "row", "column", "value"])
        for table in tables:
            for row, figures in table.rows.items():
                cells = zip(table.columns, figures, strict=True)
                writer.writerows([table.name, row, column, figure] for column, figure in cells)


def _by_class(ways: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, list[float | None]]:
    names = next(iter(ways.values()))[key]
    return {name: [way[key][name] for way in ways.values()] for name in names}


def _errors(errors: Mapping[str, Any]) -> Figures:
    scored = {"p_ep": errors, **errors["baselines"]}
    rows = {name: [scores[key] for key in _RANKING] for name, scores in scored.items()}
    return Figures("errors", "Errors of the semantic labels", _RANKING, rows, factor=1, digits=4)


def _label_errors(labels: Mapping[str, Any]) -> list[Figures]:
    regions = ("flagged", "elsewhere", "all")
    rows = {
        f"{label}, {region}": [of[region][key] for key in _RIGHT] for label, of in labels.items() for region in regions
    }
    columns = [f"{label}_{key}" for label in labels for key in ("expected", "true")]
    names = next(iter(labels.values()))["classes"]
    by_class = {
        name: [of["classes"][name][key] for of in labels.values() for key in ("expected", "true")] for name in names
    }
    return [
        Figures("label_errors", "Error probability, by the label it is of", _RIGHT, rows, factor=1, digits=4),
        Figures("class_errors", "Errors among the labels of a class (%)", columns, by_class),
    ]


def _frames(frames: Mapping[str, Any]) -> list[Figures]:
    scored = {"error_map": frames, **frames["baselines"]}
    told = {name: [scores[key] for key in ("correlation", "slope")] for name, scores in scored.items()}
    rates = {name: [scores["expected"], frames["true"], scores["difference"]] for name, scores in scored.items()}
    rates["a constant"] = [frames["true"], frames["true"], frames["constant"]]
    columns = ("expected", "true", "difference")
    precision = {name: [scores[key] for key in columns] for name, scores in frames["precision"].items()}
    return [
        Figures("frame_errors", "Error of a frame, foretold", _FRAMES, told, factor=1, digits=3),
        Figures("frame_rates", "Error of a frame (%)", columns, rates),
        Figures("precision", "Precision of a class in a frame, foretold (%)", columns, precision),
    ]


def _thresholds(thresholds: Sequence[Mapping[str, Any]]) -> Figures:
    rows = {str(row["t"]): [row[key] for key in _SWEEP] for row in thresholds}
    return Figures("thresholds", "Thresholds on P_ep (%)", _SWEEP, rows)
