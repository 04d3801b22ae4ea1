"""The plot beside the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Row


def plot(rows: Sequence[Row], title: str, path: Path) -> None:
    """Left: times better than the baseline. Middle: milliseconds of a frame. Right: shares of a ceiling."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ratios = {row.name: row.ratio for row in rows if row.ratio and not row.name.startswith(("frame/", "variants/"))}
    frames = {row.name.removeprefix("frame/"): row.value for row in rows if row.name.startswith("frame/")}
    shares = {row.name.removeprefix("roofline/"): row.value for row in rows if row.name.startswith("roofline/")}
    panels = [
        (ratios, "times faster than the baseline"),
        (frames, "ms a frame, on the GPU"),
        (shares, "% of a ceiling"),
    ]
    figure, axes = plt.subplots(1, 3, figsize=(18, 6), layout="constrained")
    for axis, (values, label) in zip(axes, panels, strict=True):
        axis.barh(list(values), list(values.values()), color="tab:blue")
        axis.invert_yaxis()
        axis.set_xlabel(label)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    plt.close(figure)
