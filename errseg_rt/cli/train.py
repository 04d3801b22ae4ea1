"""`errseg-rt train`: a recipe and labelled frames to the weights of a cascade."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from errseg_rt.errors import EngineError


def train(
    recipe: Annotated[str, typer.Argument(help="Recipe's name in the package, or a TOML file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoints, logs and results.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with train/ and val/, each with images/ and labels/ [default: rendered scenes only]."
        ),
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Weights to start the semantic branch from (.pth).")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Takes the place of the recipe's seed.")] = None,
) -> None:
    """Train semantic, error-prediction and detail branch; called again after a kill, it goes on where it was."""
    try:
        from errseg_rt.training.loop import train as run
        from errseg_rt.training.recipe import load_recipe
    except ImportError as error:
        raise EngineError(f"training is not installed ({error}): pip install 'errseg-rt[train]'") from error
    # Absolute paths say more of a machine than of a training.
    command = " ".join(["errseg-rt", *(Path(part).name if Path(part).is_absolute() else part for part in sys.argv[1:])])
    path = run(load_recipe(recipe, seed), data, out, init, command)
    print(f"{path}: make a bundle of it with errseg-rt export {path} -o BUNDLE")
