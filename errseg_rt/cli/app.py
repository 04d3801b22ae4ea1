"""The command `errseg-rt`."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from errseg_rt.cli.faults import said, say  # ahead: where memory has run out, nothing more can be loaded
from errseg_rt.errors import DataError

COMMANDS = {
    "segment": "Segment image files: class ids, colours, error heat map and overlay of each, and one summary.json.",
    "batch": "Segment many images and videos side by side, on this machine's cores or on a Ray cluster.",
    "video": "Segment a video, a camera or a stream, and write what is seen as a clip that browsers play.",
    "serve": "Serve frames over HTTP and WebSockets, with the Open Inference Protocol, metrics, and a page at /.",
    "demo": "Render a street, or cells, segment it, and show frame, labels and error map side by side.",
    "evaluate": "Score a bundle on labelled frames: labels, outlines, error map, calibration, and every threshold.",
    "calibrate": "Fit the maps to error probability on labelled frames, and propose t and a budget.",
    "doctor": "Say what is installed, which engines work here, and why others do not.",
    "inspect": "Show a bundle, after checking every one of its files: manifest, model card, licence.",
    "wrap": "Wrap an ONNX file of any network as a bundle: labels, error map and overlays, without training.",
    "taps": "List the tensors of a network that the branches can work on, and propose taps to train them with.",
    "train": "Train semantic, error-prediction and detail branch; called again after a kill, it goes on where it was.",
    "export": "Export the graphs to ONNX, write the bundle, and check it against torch.",
    "build-engine": "Build engines into a bundle; those that are there already are left as they are.",
}
"""Sub-commands, each a function in a file of its name, and what its docstring begins with."""


class _Lazily(TyperGroup):
    """Sub-commands that are imported when they are called: what one of them needs may be missing for the others."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and _loaded(name), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EOFError as error:  # taken for Ctrl-D outside
            raise DataError(f"a file ended too early ({error}); copy or make it again") from error


def _loaded(name: str) -> Any:
    """A sub-command, with its options."""
    file = name.replace("-", "_")
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(getattr(import_module(f"errseg_rt.cli.{file}"), file))
    return get_command(alone)


app = typer.Typer(
    name="errseg-rt",
    cls=_Lazily,
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


for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)  # its name and help alone: `_Lazily` has the rest


def _check_words(words: list[str]) -> None:
    """Raise DataError for an empty argument, which as a path would be the working folder."""
    for before, word in zip(["", *words], words, strict=False):
        option, is_given, value = word.partition("=")
        if not word or (option.startswith("--") and is_given and not value):
            after = option or before
            where = f"an empty argument for {after}" if after.startswith("-") else "an empty argument"
            raise DataError(f"{where}; if it comes from a variable, that is not set")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a fault in what the user gave, or in what is installed, is one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # None, another's, or closed
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        _check_words(sys.argv[1:] if arguments is None else arguments)
        app(arguments)
    except Exception as error:
        line = said(error)
        if line is None:
            raise
        say("error", line)
        sys.exit(2)
