"""An evaluation as pictures; needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import IGNORE
from errseg_rt.errors import EngineError
from errseg_rt.evaluation.error_maps import ErrorMaps
from errseg_rt.evaluation.error_scores import reliability_curve, risk_coverage
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.system.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = {"p_ep": "P_ep", "max_softmax": "max softmax", "entropy": "entropy", "margin": "margin"}
_DPI = 120
_WIDEST = 960  # pixels of a panel


def check_plots() -> None:
    """Raise EngineError where matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise EngineError(f"plots are not installed ({error}): pip install 'errseg-rt[plots]'") from error


def plot_curves(
    folder: Path, errors: ErrorMaps, calibrations: Mapping[str, Calibration], scores: Mapping[str, Any]
) -> list[Path]:
    """Draw risk over coverage, reliability, and mIoU over t.

    Args:
        folder: Where the PNG files go.
        errors: Counted error maps.
        calibrations: Of the scores that have one, by name.
        scores: What the evaluation's `to_dict` gave.

    Returns:
        What was written; a curve without a point is left out.
    """
    paths = []
    if any(errors.pixels):
        paths.append(_save(folder / "risk_coverage.png", _risk_coverage(errors)))
        if calibrations:
            paths.append(_save(folder / "reliability.png", _reliability(errors, calibrations)))
    if scores["thresholds"] and scores["fused"]["miou"] is not None:
        paths.append(_save(folder / "miou_over_t.png", _miou_over_t(scores)))
    return paths


def plot_frame(path: Path, frame: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], result: Segmentation) -> Path:
    """Draw a frame, its truth, its semantic and fused labels, its error map, and where labels are wrong.

    Args:
        path: The PNG file.
        frame: BGR, `uint8 [H, W, 3]`.
        truth: True class ids, `uint8 [H, W]`.
        result: What the runtime says, with semantic labels.

    Raises:
        ValueError: The result holds no semantic labels.
    """
    if result.semantic_labels is None:
        raise ValueError("the result holds no semantic labels; ask segment for them")
    palette = result.classes.palette_bgr()
    wrong = _wrong(truth, result.semantic_labels, result.labels)
    panels = {
        "frame": frame,
        "truth": palette[truth],
        "wrong (grey: void)": wrong,
        "semantic": palette[result.semantic_labels],
        "fused": result.colors(),
    }
    if result.error_probability is not None:
        panels["error probability"] = result.heat()
    figure = _figure(15, 2 * 5 * frame.shape[0] / frame.shape[1] + 0.6)
    figure.suptitle("wrong: red in both, green mended, blue spoilt", fontsize="small")
    step = -(-frame.shape[1] // _WIDEST)
    places = list(figure.subplots(2, 3).flat)
    for axes, (title, picture) in zip(places, panels.items(), strict=False):
        axes.imshow(picture[::step, ::step, ::-1], interpolation="nearest")
        axes.set_title(title, fontsize="small")
    for axes in places:
        axes.set_axis_off()
    return _save(path, figure)


def _wrong(
    truth: npt.NDArray[np.uint8], semantic: npt.NDArray[np.uint8], fused: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    before, after, valid = semantic != truth, fused != truth, truth != IGNORE
    picture = np.zeros((*truth.shape, 3), np.uint8)
    picture[~valid] = 96
    for where, color in (
        (before & after, (0, 0, 255)),
        (before & ~after, (0, 255, 0)),
        (~before & after, (255, 96, 0)),
    ):
        picture[where & valid] = color
    return picture


def _risk_coverage(errors: ErrorMaps) -> Figure:
    figure = _figure(6, 4.5)
    axes = figure.subplots()
    for name, histogram in errors.histograms.items():
        axes.plot(*risk_coverage(histogram), label=_NAMES[name])
    correct, wrong = errors.pixels
    kept = np.linspace(1e-3, 1, 1000)
    axes.plot(kept, np.maximum(0, 1 - correct / (correct + wrong) / kept), "k:", label="best possible")
    _name(axes, "share of pixels kept", "error rate among them")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _reliability(errors: ErrorMaps, calibrations: Mapping[str, Calibration]) -> Figure:
    figure = _figure(6, 5)
    axes = figure.subplots()
    for name, histogram in errors.histograms.items():
        if name in calibrations:
            values, counts = histogram.filled()
            predicted, observed, _ = reliability_curve(calibrations[name](values).astype(np.float64), counts, 100)
            axes.plot(predicted, observed, ".-", label=_NAMES[name], linewidth=1)
    axes.plot([0, 1], [0, 1], "k:")
    _name(axes, "error probability", "error rate")
    axes.legend()
    return figure


def _miou_over_t(scores: Mapping[str, Any]) -> Figure:
    figure = _figure(6, 4.5)
    axes = figure.subplots()
    rows = scores["thresholds"]
    t = [row["t"] for row in rows]
    axes.plot(t, [100 * row["miou"] for row in rows], "o-", label="fused")
    for name, style in (("semantic", "--"), ("native", ":")):
        axes.axhline(100 * scores[name]["miou"], color="grey", linestyle=style, label=name)
    _name(axes, "t", "mIoU (%)")
    cost = axes.twinx()
    cost.plot(t, [100 * row["flagged"] for row in rows], "s-", color="tab:orange", markersize=3, label="flagged")
    cost.set_ylabel("flagged (%)")
    cost.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _name(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)


def _save(path: Path, figure: Figure) -> Path:
    with write_atomically(path) as temporary:
        figure.savefig(temporary)
    return path
