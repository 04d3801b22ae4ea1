"""The tables of docs/accuracy.md, as Markdown: from what `benchmarks.accuracy` and `bundle_scores` have scored.

    python -m benchmarks.accuracy_tables

They are of `results/accuracy.json`, `bundle_scores.json`, `final_errors.json` and `hold_back.json`; a test holds the
document against them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import final_errors
from benchmarks.accuracy import SHIPPED
from benchmarks.report import RESULTS

Score = Mapping[str, Any]
THIN = ("pole", "sign", "fence")  # classes that stand first
# Gong et al. 2021, tables 1 to 3, on Cityscapes val, in percent.
PAPER_ERROR_IOU = (14.80, 17.19, 19.13, 20.98, 22.89, 24.97, 27.34, 29.92, 30.20)
PAPER_HARD_RECALL = (79.16, 70.21, 61.72, 52.70, 42.67, 31.41, 19.78, 9.09, 3.32)
PAPER_SEMANTIC = 78.79
_NAMED = {"max_softmax": "1 - max softmax", "margin": "1 - margin"}
PAPER_MIOU = {
    "ours": 79.90,
    "GAU decoder": 78.89,
    "DUpsampling": 79.06,
    "layer cascading": 79.73,
    "loss-rank mining": 79.37,
    "bagging": 79.38,
}


def main() -> None:
    """Print."""
    for title, lines in tables():
        print(f"{title}\n", *lines, "", sep="\n")


def tables() -> Iterator[tuple[str, list[str]]]:
    """Title and lines of each."""
    bundle: Mapping[str, Score] = _sets("bundle_scores")
    yield "The embedded bundle", gains(bundle)
    for name in ("held_out", "val"):
        for made in (classes, thresholds, errors, frames, precision, labels):
            yield f"{name}: {made.__name__}", made(bundle[name])
    found = json.loads((RESULTS / "final_errors.json").read_text(encoding="utf-8"))
    for name in ("held_out", "val"):
        yield f"{name}: the label you get", final_errors.table(found[name])
        yield f"{name}: the label you get, by class", final_errors.classes_table(found[name])
    rows = json.loads((RESULTS / "hold_back.json").read_text(encoding="utf-8"))["rows"]
    yield "streets that it does not know", unknown_streets({row["name"].partition("/")[2]: row for row in rows})
    trained: Mapping[str, Sequence[Score]] = _sets("accuracy")
    for name, scores in trained.items():
        (shipped,) = (score for score in scores if score["method"] == SHIPPED.title)
        yield f"{name}: norms", norms(shipped)
        yield f"{name}: methods", methods(scores)


def _sets(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["sets"]


def gains(sets: Mapping[str, Score]) -> list[str]:
    """What the cascade gains on each set, and for how much work."""
    named = {"held_out": "held out", "val": "val", "rendered": "rendered streets that training did not draw"}
    rows = []
    for name, title in named.items():
        score = sets[name]
        (row,) = (row for row in score["thresholds"] if row["t"] == score["threshold"])
        gain = score["gain"]
        low, high = (100 * end for end in gain["interval"])
        rows.append(
            [
                title,
                str(score["frames"]),
                f"{100 * score[gain['over']]['miou']:.2f}",
                f"{100 * score['fused']['miou']:.2f}",
                f"{100 * gain['miou']:+.2f} [{low:+.2f}, {high:+.2f}]",
                f"{100 * score['flagged']:.1f} %",
                f"{100 * row['work']:.1f} % of the dense stage",
            ]
        )
    columns = ["mIoU, %", "frames", "semantic", "fused", "gain over semantic", "flagged", "work of refinement"]
    return _table(columns, rows)


def methods(scores: Sequence[Score]) -> list[str]:
    """Every method: mean over its seeds with the spread, and how ours of the same seeds compares."""
    head = ["method", "seeds", "mIoU", "gain", "paper's gain", "ours minus this [95 %]", *THIN, "flagged"]
    rows = []
    for title in dict.fromkeys(score["method"] for score in scores):
        same = [score for score in scores if score["method"] == title]
        gains = _values(same, lambda score: score["gain"]["miou"])
        spread = f" ± {gains.std(ddof=1):.2f}" if len(gains) > 1 else ""
        paper = f"{PAPER_MIOU[title] - PAPER_SEMANTIC:+.2f}" if title in PAPER_MIOU else ""
        pairs = [score["ours_minus_this"] for score in same if score["ours_minus_this"]]
        thin = [f"{_values(same, lambda score, name=name: score['fused']['iou'][name]).mean():.1f}" for name in THIN]  # type: ignore[misc]
        rows.append(
            [
                title,
                str(len(same)),
                f"{_values(same, lambda score: score['fused']['miou']).mean():.2f}",
                f"{gains.mean():+.2f}{spread}",
                paper,
                "; ".join(map(_interval, pairs)),
                *thin,
                f"{_values(same, lambda score: score['flagged']).mean():.1f} %",
            ]
        )
    return _table(head, rows)


def classes(score: Score) -> list[str]:
    """IoU of each class, thin things first."""
    names = [*THIN, *(name for name in score["fused"]["iou"] if name not in THIN)]
    rows = [
        [way, *(f"{100 * score[way]['iou'][name]:.1f}" for name in names), f"{100 * score[way]['miou']:.2f}"]
        for way in ("semantic", "fused")
    ]
    return _table(["IoU, %", *names, "mIoU"], rows)


def thresholds(score: Score) -> list[str]:
    """Table 1 of the paper, and what each t gains and costs."""
    by_t = score["thresholds"]
    rows = [
        ["IoU of the error class, %", *(f"{100 * row['error_iou']:.1f}" for row in by_t)],
        ["the paper's", *(f"{value:.1f}" for value in PAPER_ERROR_IOU)],
        ["hard recall, %", *(f"{100 * row['hard_recall']:.1f}" for row in by_t)],
        ["the paper's", *(f"{value:.1f}" for value in PAPER_HARD_RECALL)],
        ["flagged, %", *(f"{100 * row['flagged']:.1f}" for row in by_t)],
        ["gain", *(f"{100 * row['gain']:+.2f}" for row in by_t)],
    ]
    return _table(["t", *(str(row["t"]) for row in by_t)], rows)


def errors(score: Score) -> list[str]:
    """The error map beside the free baselines, all calibrated in the same way."""
    columns = {
        "AUPR": "aupr",
        "AUROC": "auroc",
        "FPR at 95 % recall": "fpr95",
        "risk-coverage area": "aurc",
        "calibration error": "ece",
        "Brier": "brier",
    }
    maps = {"P_ep": score["errors"], **score["errors"]["baselines"]}
    rows = [
        [_NAMED.get(name, name), *(f"{figures[key]:.4f}" for key in columns.values())] for name, figures in maps.items()
    ]
    return _table(["errors", *columns], rows)


def frames(score: Score) -> list[str]:
    """How well the error of a frame is foretold, by the error map and by what is there for free."""
    told = score["frame_errors"]
    rows = [["a constant", f"{100 * told['true']:.2f}", "", "", f"{100 * told['constant']:.2f}"]]
    for name, figures in {"the error map": told, **told["baselines"]}.items():
        rates = [f"{100 * figures[key]:.2f}" for key in ("expected", "difference")]
        rows.append(
            [_NAMED.get(name, name), rates[0], f"{figures['correlation']:.2f}", f"{figures['slope']:.2f}", rates[1]]
        )
    return _table(
        [f"mean of; truly {100 * told['true']:.2f} %", "expected, %", "correlation", "slope", "off by, points"], rows
    )


def precision(score: Score) -> list[str]:
    """What share of the pixels of a label is expected to be right, and is."""
    by_class = score["frame_errors"]["precision"]
    names = [*THIN, *(name for name in by_class if name not in THIN)]
    rows = [
        [title, *(f"{100 * by_class[name][key]:.1f}" for name in names)]
        for key, title in (("expected", "expected"), ("true", "true"), ("difference", "off by in a frame, points"))
    ]
    return _table(["precision, %", *names], rows)


def labels(score: Score) -> list[str]:
    """How right the error probability of either label is, by region."""
    rows = []
    for label, of in score["label_errors"].items():
        for region in ("flagged", "elsewhere", "all"):
            found = of[region]
            shares = [f"{100 * found[key]:.2f}" for key in ("expected", "true", "ece", "worst_decile")]
            rows.append([f"{label}, {region}", *shares, f"{found['brier']:.4f}", ""])
        rows[-1][-1] = f"{100 * of['class_error']:.2f}"
    return _table(["errors of the label, %", "expected", "true", "ece", "worst decile", "Brier", "by class"], rows)


def unknown_streets(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What refinement changes of a frame's errors, and whether that is expected."""
    named = {"streets": "rendered streets", "val": "of val", "cityscapes": "of Cityscapes, in classes of CamVid"}
    changes = ("expected_change", "true_change", "true_change_by_pixel")
    counts = ("made_worse", "would_hold_back_rightly")
    lines = []
    for where, title in named.items():
        _, frames, _ = rows[f"made_worse@{where}"]["note"].split()
        figures = [f"{rows[f'{name}@{where}']['value']:+.2f}" for name in changes]
        lines.append([f"{frames} {title}", *figures, *(f"{rows[f'{name}@{where}']['value']:.0f}" for name in counts)])
    return _table(
        ["frames", "expected", "true", "by pixel", "made worse", "of which the expected error says so"], lines
    )


def norms(score: Score) -> list[str]:
    """The fused labels before stage 3's norms are frozen, after it, and fine-tuned."""
    return _table(["norms of the detail branch", "mIoU"], [[k, f"{100 * v:.2f}"] for k, v in score["norms"].items()])


def _interval(pair: Sequence[float]) -> str:
    difference, low, high = (100 * value for value in pair)
    return f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]{', a tie' * (low <= 0 <= high)}"


def _values(scores: Sequence[Score], value: Callable[[Score], float]) -> Any:
    return 100 * np.array([value(score) for score in scores])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    main()
