"""Options that several sub-commands share, and how they show their answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from errseg_rt.batch.figures import frames_summary

if TYPE_CHECKING:
    from errseg_rt.runtime import Runtime

_UNBOUNDED = 100_000  # characters of a line in a file, where no terminal bounds it

# What `errseg_rt.options.Options` holds stands here by the name it has there, and is checked there alone.
BundleOption = Annotated[str, typer.Option("--bundle", "-b", help="Embedded bundle's name, or a bundle's folder.")]
EngineOption = Annotated[str, typer.Option(help="What executes the graphs: onnxruntime, tensorrt or torch.")]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        metavar="fp32|fp16|bf16|int8",
        help="What the graphs are computed in; default: fp16 on a GPU, else fp32. For tensorrt, and in int8 for "
        "onnxruntime, they are built ahead by build-engine.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        metavar="cpu|cuda|cuda:N",
        help="Where frames are segmented; tensorrt and torch know GPUs; default: cuda for tensorrt, else cpu.",
    ),
]
CompiledOption = Annotated[
    bool, typer.Option("--compiled", help="Fuse the graphs by torch.compile; for torch on a GPU.")
]
ProvidersOption = Annotated[
    str | None,
    typer.Option(metavar="NAME[,NAME]", help="ONNX Runtime's execution providers, best first; default: the CPU's."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="CPU threads of one frame; default: as many cores as this process may use, by its affinity and quota.",
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        metavar="T",
        help="Raw error probability, between 0 and 1, above which a pixel is labelled again; default: bundle's.",
    ),
]
DetailOption = Annotated[
    str | None,
    typer.Option(
        metavar="sparse|dense",
        help="Compute the last stage of the detail branch where pixels are flagged, or everywhere; default: sparse, "
        "where the bundle's norms are frozen.",
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Most work of refinement on a frame, as a share of the dense stage, 0..1: the most doubtful pixels first.",
    ),
]
DeadlineOption = Annotated[
    float | None,
    typer.Option("--deadline-ms", metavar="MS", help="Milliseconds within which a frame shall be done."),
]
MaxPixelsOption = Annotated[int, typer.Option(metavar="N", help="Largest frame, height times width.")]
AllowDamagedOption = Annotated[
    bool, typer.Option("--allow-damaged", help="Take what can be decoded of damaged image files; else they are errors.")
]
IgnoreOrientationOption = Annotated[
    bool,
    typer.Option(
        "--ignore-orientation", help="Take images as they are stored; else they are turned as their EXIF says."
    ),
]
WorkPixelsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Pixels above which a frame is reduced for the network; its labels still come at its own size; 0: never; "
        "default: the bundle's limit.",
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        metavar="local|auto|HOST:PORT",
        help="Run on Ray: on a cluster of this machine's own, which others do not get into; on the one that "
        "RAY_ADDRESS names or that runs here; or on that of an address.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


def print_json(answer: Any) -> None:
    """Print an answer for a program to read."""
    print(json.dumps(answer, indent=2, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for a person to read; numbers stand at the right. Nothing is cut: what is long is folded."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    is_seen = sys.stdout is not None and sys.stdout.isatty()
    Console(width=None if is_seen else _UNBOUNDED).print(table)


def run_summary(runtime: Runtime, frames: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How a runtime refined its frames, given their `frame_summary`: settings, median milliseconds, means, and sums."""
    return {
        "threshold": runtime.threshold,
        "detail": runtime.detail,
        "budget": runtime.limits.budget,
        "deadline_ms": runtime.limits.deadline_ms,
        **frames_summary(frames, runtime.limits.deadline_ms),
    }


def print_scores(summary: Mapping[str, Any]) -> None:
    """Print the `scores` of a summary, class by class; fused labels only where a detail branch made some."""
    from errseg_rt.datasets.scores import percent

    shown = ("semantic", "fused") if summary["detail"] else ("semantic",)
    ways = {name: scores for name, scores in summary["scores"].items() if name in shown}
    rows = [[name, *(way["iou"][name] for way in ways.values())] for name in ways["semantic"]["iou"]]
    rows += [[name, *(way[name] for way in ways.values())] for name in ("miou", "accuracy")]
    text = [[name, *(percent(value) for value in values)] for name, *values in rows]
    print_table("Scores (%)", ["IoU", *ways], text)


def print_run(summary: Mapping[str, Any]) -> None:
    """Print what `run_summary` gives of one frame or more."""
    from errseg_rt.datasets.scores import percent

    steps = summary["milliseconds"]
    rows = [[step, f"{value:.1f}"] for step, value in steps.items()]
    if rows:
        print_table("Median time per frame", ["stage", "ms"], [*rows, ["sum", f"{sum(steps.values()):.1f}"]])
    if summary["detail"]:
        rows = [["flagged", percent(summary["flagged_share"])], ["work of refinement", percent(summary["work"])]]
        print_table(f"Mean per frame ({summary['detail']})", ["share", "%"], rows)
    if summary["left_out_pixels"]:
        print(f"the budget left out {summary['left_out_pixels']} pixels of the grid")
    if summary["late_frames"]:
        print(f"{summary['late_frames']} frames took longer than {summary['deadline_ms']} ms")
