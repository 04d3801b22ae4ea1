"""How likely the label you get is wrong: which map says it, where the detail branch has labelled again.

    python -m benchmarks.final_errors --data camvid

The error probability of the embedded bundle `camvid` is that of the final label: where a pixel was flagged, a map of
the detail branch's own doubt says it. This judges it beside P_ep's map, which speaks of the semantic label, read for
the final one, and beside other maps, each monotone and of what the frame's branches say anyway; where nothing was
flagged all of them are a map of P_ep. On the frames that training held out every block is judged by maps fitted on the
other four; on val by maps fitted on all that were held out, which is how the shipped one was made. Scores go to
`results/final_errors.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.bundle_scores import sets
from benchmarks.report import RESULTS
from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets import LabelledFrames
from errseg_rt.datasets.truth import truth_on_grid
from errseg_rt.evaluation.calibration import fit_calibration
from errseg_rt.evaluation.error_maps import baseline_logits
from errseg_rt.evaluation.histogram import ErrorHistogram
from errseg_rt.places.driver import gpu_name
from errseg_rt.runtime import Runtime
from errseg_rt.system.atomic import write_json
from errseg_rt.system.progress import track
from errseg_rt.system.stamp import machine_stamp

_BLOCKS, _FRAMES = 5, 7  # of the frames held out, in order
_DECILES, _GROUPS = 10, 15
_THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9)
Values = npt.NDArray[np.float64]
Map = Callable[["Pixels"], Values]


@dataclass(frozen=True)
class Pixels:
    """The N valid grid pixels of some frames, `[N]` each.

    Attributes:
        frame: Which frame they are of.
        flagged: Whether they were labelled again.
        changed: Whether that gave another label.
        p_ep: Error logit.
        doubts: Of the detail branch, by name: logits that grow with doubt.
        final: The label.
        wrong: Whether it is not the true one.
        semantic_wrong: Whether that of the semantic branch is not.
        detail_wrong: Whether that of the detail branch is not, or would not be.
    """

    frame: npt.NDArray[np.int64]
    flagged: npt.NDArray[np.bool_]
    changed: npt.NDArray[np.bool_]
    p_ep: Values
    doubts: Mapping[str, Values]
    final: npt.NDArray[np.int64]
    wrong: npt.NDArray[np.bool_]
    semantic_wrong: npt.NDArray[np.bool_]
    detail_wrong: npt.NDArray[np.bool_]

    def where(self, chosen: npt.NDArray[np.bool_]) -> Pixels:
        """Some of them."""
        doubts = {name: each[chosen] for name, each in self.doubts.items()}
        return Pixels(**{name: getattr(self, name)[chosen] for name in _ARRAYS}, doubts=doubts)


def main() -> None:
    """Study and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--json", type=Path, default=RESULTS / "final_errors.json")
    args = parser.parse_args()
    with Runtime("camvid") as runtime:
        frames, manifest = sets(args.data), runtime.manifest
        assert manifest.detail_calibration is not None
        held, val = (pixels_of(runtime, frames[name], name) for name in ("held_out", "val"))
        names = manifest.classes.names
        answer = {
            "command": f"python -m benchmarks.final_errors --data {args.data}",
            "bundle": runtime.bundle.stamp(),
            "machine": machine_stamp(gpu_name()),
            "threshold": runtime.threshold,
        }
    p_ep, of_detail = manifest.calibration, manifest.detail_calibration
    elsewhere: Map = lambda pixels: _by(p_ep, pixels.p_ep)  # noqa: E731
    ways = {
        READ: lambda _: elsewhere,
        SHIPPED: lambda pixels: both(elsewhere, FITS[DOUBT](pixels.where(pixels.flagged))),
        **{name: whole(fit) for name, fit in FITS.items()},
    }
    shipped = both(elsewhere, lambda pixels: _by(of_detail, pixels.doubts["max_softmax"]))
    tables: dict[str, dict[str, Any]] = {}
    tables["held_out"] = {name: judged(held, cross_validated(held, fit), names) for name, fit in ways.items()}
    tables["val"] = {
        name: judged(val, shipped(val) if name == SHIPPED else fit(held)(val), names) for name, fit in ways.items()
    }
    answer["other_t"] = {
        name: {str(t): at_threshold(of, t, shipped) for t in _THRESHOLDS}
        for name, of in (("held_out", held), ("val", val))
    }
    write_json(args.json, answer | tables)
    for name in ("held_out", "val"):
        print(f"\n{name}\n", *table(tables[name]), sep="\n")


def pixels_of(runtime: Runtime, frames: LabelledFrames, title: str) -> Pixels:
    """All valid grid pixels of some frames."""
    parts = []
    for index in track(range(len(frames)), title, len(frames)):
        frame, truth = frames[index]
        branches = runtime.branches(frame)
        assert branches.error_logit is not None
        assert branches.detail_logits is not None
        on_grid = truth_on_grid(truth, branches.geometry)
        valid, flagged = on_grid != IGNORE, branches.flagged(runtime.threshold)
        semantic, detail = branches.logits.argmax(axis=0), branches.detail_logits.argmax(axis=0)
        final = np.where(flagged, detail, semantic)
        doubts = {name: each[valid] for name, each in baseline_logits(branches.detail_logits).items()}
        changed, wrong = (
            (flagged & (detail != semantic))[valid],
            [(labels != on_grid)[valid] for labels in (final, semantic, detail)],
        )
        of_frame, p_ep = np.full(valid.sum(), index), branches.error_logit[valid].astype(np.float64)
        parts.append(Pixels(of_frame, flagged[valid], changed, p_ep, doubts, final[valid], *wrong))
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    doubts = {name: np.concatenate([part.doubts[name] for part in parts]) for name in parts[0].doubts}
    return Pixels(**joined, doubts=doubts)


_ARRAYS = ("frame", "flagged", "changed", "p_ep", "final", "wrong", "semantic_wrong", "detail_wrong")


def of_score(score: Callable[[Pixels], Values]) -> Callable[[Pixels], Map]:
    """Fits the bundle's kind of map, isotonic and piecewise linear, of one score."""

    def fit(pixels: Pixels) -> Map:
        fitted = _fit(score(pixels), pixels.wrong)
        return lambda others: _by(fitted, score(others))

    return fit


def of_both(pixels: Pixels) -> Map:
    """The same of the sum of P_ep's and the detail branch's logit that foretells errors best (logistic regression)."""
    from sklearn.linear_model import LogisticRegression

    def features(of: Pixels) -> Values:
        return np.clip(np.stack([of.p_ep, of.doubts["max_softmax"]], axis=1), -15, 15)

    weights = LogisticRegression(C=1e6, max_iter=200).fit(features(pixels), pixels.wrong).coef_[0]
    fitted = _fit(features(pixels) @ weights, pixels.wrong)
    return lambda others: _by(fitted, features(others) @ weights)


def of_changed(pixels: Pixels) -> Map:
    """Two maps of the detail branch's doubt: where it changed the label, and where it did not."""
    doubt = of_score(lambda of: of.doubts["max_softmax"])
    same, other = doubt(pixels.where(~pixels.changed)), doubt(pixels.where(pixels.changed))
    return lambda others: np.where(others.changed, other(others), same(others))


def of_classes(shrinkage: int) -> Callable[[Pixels], Map]:
    """The map of the detail branch's doubt times a factor for each label, shrunk to 1 by so many expected errors."""

    def fit(pixels: Pixels) -> Map:
        common = of_score(lambda of: of.doubts["max_softmax"])(pixels)
        expected, wrong = (
            np.bincount(pixels.final, each, 256) for each in (common(pixels), pixels.wrong.astype(float))
        )
        factor = (wrong + shrinkage) / (expected + shrinkage)
        return lambda others: np.minimum(common(others) * factor[others.final], 1)

    return fit


READ, SHIPPED, DOUBT = "P_ep's map, read for the final label", "as shipped", "1 - max P_db"
FITS: dict[str, Callable[[Pixels], Map]] = {
    "P_ep": of_score(lambda pixels: pixels.p_ep),
    DOUBT: of_score(lambda pixels: pixels.doubts["max_softmax"]),
    "entropy of P_db": of_score(lambda pixels: pixels.doubts["entropy"]),
    "1 - margin of P_db": of_score(lambda pixels: pixels.doubts["margin"]),
    "P_ep and 1 - max P_db": of_both,
    "1 - max P_db, by whether the label changed": of_changed,
    "1 - max P_db, by class": of_classes(1),
    "1 - max P_db, by class, shrunk by 1,000": of_classes(1_000),
    "1 - max P_db, by class, shrunk by 10,000": of_classes(10_000),
}
"""Fits of flagged pixels, by what they are made of."""


def whole(fit: Callable[[Pixels], Map]) -> Callable[[Pixels], Map]:
    """A fit of all pixels: of flagged ones as given, of the others by P_ep."""
    return lambda pixels: both(FITS["P_ep"](pixels.where(~pixels.flagged)), fit(pixels.where(pixels.flagged)))


def both(elsewhere: Map, flagged: Map) -> Map:
    """One map where pixels were flagged, and another elsewhere."""

    def say(pixels: Pixels) -> Values:
        probability = np.empty(len(pixels.wrong))
        for chosen, one in ((pixels.flagged, flagged), (~pixels.flagged, elsewhere)):
            probability[chosen] = one(pixels.where(chosen))
        return probability

    return say


def at_threshold(pixels: Pixels, threshold: float, shipped: Map) -> dict[str, float]:
    """What the shipped maps say of what another t than the bundle's flags: that of P_ep below the bundle's."""
    flagged = pixels.p_ep > np.log(threshold / (1 - threshold))
    mapped = replace(pixels, flagged=flagged & pixels.flagged)
    return _worth(shipped(mapped)[flagged], pixels.detail_wrong[flagged])


def cross_validated(held: Pixels, fit: Callable[[Pixels], Map]) -> Values:
    """Every block of frames by a map that was fitted on the others."""
    block, probability = held.frame // _FRAMES, np.empty(len(held.wrong))
    for index in range(_BLOCKS):
        probability[block == index] = fit(held.where(block != index))(held.where(block == index))
    return probability


def judged(pixels: Pixels, probability: Values, names: tuple[str, ...]) -> dict[str, Any]:
    """How far a probability is from what happens, by region, by predicted class, and frame by frame."""
    regions = {"flagged": pixels.flagged, "elsewhere": ~pixels.flagged, "all": np.ones_like(pixels.flagged)}
    answer: dict[str, Any] = {name: _worth(probability[at], pixels.wrong[at]) for name, at in regions.items()}
    count, expected, wrong = (
        np.bincount(pixels.final, each, len(names)) for each in (None, probability, pixels.wrong.astype(float))
    )
    answer["class_error"] = float(np.abs(expected - wrong).sum() / count.sum())
    answer["classes"] = {
        name: {"expected": float(expected[index] / count[index]), "true": float(wrong[index] / count[index])}
        for index, name in enumerate(names)
        if count[index]
    }
    of_frame = np.bincount(pixels.frame)
    x, y = (np.bincount(pixels.frame, each) / of_frame for each in (probability, pixels.wrong.astype(float)))
    answer["frames"] = {
        "correlation": float(np.corrcoef(x, y)[0, 1]),
        "slope": float(np.polyfit(x, y, 1)[0]),
        "difference": float(np.abs(x - y).mean()),
    }
    return answer


def _worth(probability: Values, wrong: npt.NDArray[np.bool_]) -> dict[str, float]:
    order = np.argsort(probability, kind="stable")
    gaps = {
        groups: [abs(float(probability[part].mean() - wrong[part].mean())) for part in np.array_split(order, groups)]
        for groups in (_DECILES, _GROUPS)
    }
    return {
        "pixels": int(wrong.size),
        "expected": float(probability.mean()),
        "true": float(wrong.mean()),
        "ece": float(np.mean(gaps[_GROUPS])),
        "worst_decile": max(gaps[_DECILES]),
        "brier": float(np.mean((probability - wrong) ** 2)),
    }


def table(ways: Mapping[str, Any]) -> list[str]:
    """Markdown, in points but for the Brier score."""
    head = [
        "error probability by",
        "flagged: off by",
        "ece",
        "worst decile",
        "Brier",
        "elsewhere: ece",
        "by class",
        "frames",
    ]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for name, found in ways.items():
        flagged, frames = found["flagged"], found["frames"]
        cells = [
            name,
            f"{100 * (flagged['expected'] - flagged['true']):+.1f}",
            f"{100 * flagged['ece']:.1f}",
            f"{100 * flagged['worst_decile']:.1f}",
            f"{flagged['brier']:.4f}",
            f"{100 * found['elsewhere']['ece']:.2f}",
            f"{100 * found['class_error']:.2f}",
            f"{frames['correlation']:.2f}, {100 * frames['difference']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def classes_table(ways: Mapping[str, Any], shown: tuple[str, ...] = (READ, SHIPPED)) -> list[str]:
    """Markdown: what share of the pixels of a label is expected to be wrong, by some of the ways, and is."""
    by_way = {name: ways[name]["classes"] for name in shown}
    names = [*by_way[shown[0]]]
    lines = [f"| errors, % | {' | '.join(names)} |", f"| {' | '.join(['---'] * (1 + len(names)))} |"]
    rows = {f"expected, {name}": [found[each]["expected"] for each in names] for name, found in by_way.items()}
    rows["true"] = [by_way[shown[0]][each]["true"] for each in names]
    return [
        *lines,
        *(f"| {title} | {' | '.join(f'{100 * each:.1f}' for each in cells)} |" for title, cells in rows.items()),
    ]


def _fit(score: Values, wrong: npt.NDArray[np.bool_]) -> Calibration:
    histogram = ErrorHistogram()
    histogram.add(score, wrong)
    return fit_calibration(histogram)


def _by(calibration: Calibration, score: Values) -> Values:
    return calibration(score).astype(np.float64)


if __name__ == "__main__":
    main()
