"""Options that several sub-commands share, and how they show their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from errseg_rt.scores import percent

BundleOption = Annotated[str, typer.Option("--bundle", "-b", help="Embedded bundle's name, or a bundle's folder.")]
EngineOption = Annotated[str, typer.Option(help="What executes the graphs: onnxruntime or torch.")]


def _between_zero_and_one(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} does not lie between 0 and 1.")
    return value


ThresholdOption = Annotated[
    float | None,
    typer.Option(
        callback=_between_zero_and_one,
        help="Raw error probability, between 0 and 1, above which a pixel is labelled again [default: bundle's].",
    ),
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads of one frame [default: all cores].")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


def print_json(answer: Any) -> None:
    """Print an answer for a program to read."""
    print(json.dumps(answer, indent=2, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for a person to read; numbers stand at the right."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)


def stage_summary(timings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median milliseconds per stage over frames."""
    return {stage: float(np.median([lap[stage] for lap in timings])) for stage in timings[0]} if timings else {}


def print_scores(scores: Mapping[str, Any]) -> None:
    """Print semantic against fused labels, class by class."""
    semantic, fused = scores["semantic"], scores["fused"]
    rows = [[name, semantic["iou"][name], fused["iou"][name]] for name in semantic["iou"]]
    rows += [[name, semantic[name], fused[name]] for name in ("miou", "accuracy")]
    text = [[name, *(percent(value) for value in values)] for name, *values in rows]
    print_table("Scores (%)", ["IoU", "semantic", "fused"], text)


def print_stages(stages: Mapping[str, float]) -> None:
    """Print median milliseconds per stage."""
    rows = [[stage, f"{value:.1f}"] for stage, value in stages.items()]
    print_table("Median time per frame", ["stage", "ms"], [*rows, ["sum", f"{sum(stages.values()):.1f}"]])
