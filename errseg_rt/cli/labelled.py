"""What the sub-commands over labelled frames share: their options, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="Embedded bundle's name, or a bundle's folder.")]
DataOption = Annotated[Path, typer.Option(help="Folder with images/ and labels/, or the root of Cityscapes or ADE20K.")]
SplitOption = Annotated[str | None, typer.Option(help="Part of the data set, where it has several.")]
VoidOption = Annotated[
    list[int] | None,
    typer.Option(
        metavar="ID",
        min=0,
        max=255,
        help="Label id that means no class, beside 255; may be given again; default: the one after the last class.",
    ),
]
JsonFileOption = Annotated[Path | None, typer.Option("--json", help="File for all figures, as JSON.")]


def report_failures(failed: Mapping[str, str]) -> None:
    """Name the frames that were not scored, on stderr; exit code 2 where there are any."""
    for name, reason in failed.items():
        print(f"error: frame {name} was not scored: {reason}", file=sys.stderr)
    if failed:
        raise typer.Exit(2)
