"""The command `errseg-rt`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from errseg_rt.cli import build_engine, calibrate, demo, doctor, evaluate, export, inspect, segment, train
from errseg_rt.errors import ErrsegError

app = typer.Typer(
    name="errseg-rt",
    help="Segment frames, know where the labels are wrong, and label those pixels again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from errseg_rt import __version__

        print(f"errseg-rt {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print name and version.")
    ] = False,
) -> None:
    """Options that stand before a sub-command."""


for command in (
    segment.segment,
    demo.demo,
    evaluate.evaluate,
    calibrate.calibrate,
    doctor.doctor,
    inspect.inspect,
    train.train,
    export.export,
    build_engine.build_engine,
):
    app.command()(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a fault in what the user gave is one line and exit code 2."""
    try:
        app(arguments)
    except (ErrsegError, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
