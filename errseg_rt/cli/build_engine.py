"""`errseg-rt build-engine`: what an engine runs fastest on this machine, built from a bundle's graphs and checked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from errseg_rt.bundle.bundle import Bundle, write_bundle
from errseg_rt.cli.options import JsonOption, print_json, print_table
from errseg_rt.cli.outputs import check_file, check_folder
from errseg_rt.datasets.scores import percent
from errseg_rt.errors import BundleError, EngineError
from errseg_rt.system.progress import phases


def _share(value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:
        raise typer.BadParameter(f"{value} is no share in 0..1.")
    return value


def build_engine(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or an embedded bundle's name.")],
    engine: Annotated[str, typer.Option(metavar="tensorrt|onnxruntime", help="What shall run it.")] = "tensorrt",
    precision: Annotated[
        str | None,
        typer.Option(metavar="fp32|fp16|bf16|int8", help="What it computes in; default: fp16, int8 for onnxruntime."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HxW",
            help="Size of frames, or a range of them, HxW..HxW; may be given again, and each is an engine. "
            "For TensorRT; default: 1024x2048.",
        ),
    ] = None,
    report: Annotated[
        bool | None,
        typer.Option(help="Compare it with the fp32 graphs in onnxruntime; default: below fp32."),
    ] = None,
    bar: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            callback=_share,
            help="Least share of equal labels of every branch; default: 0.999 for fp16, 0.995 for bf16, 0.99 for int8.",
        ),
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images to calibrate and compare on, like those of evaluate where it holds labels; default: rendered "
            "streets.",
        ),
    ] = None,
    workspace: Annotated[
        float | None, typer.Option(metavar="GIB", min=0.0, help="Most scratch memory of a layer; for TensorRT.")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where TensorRT keeps its timings, for faster builds.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="Copy the bundle there first, and build in it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build engines into a bundle; those that are there already are left as they are.

    Run it on the machine that shall run them: TensorRT builds for the GPU that it finds, onnxruntime for the processor.
    """
    try:
        from errseg_rt.export.engines.builds import BARS, DEFAULT_SHAPE, BuildOptions, Built, check_target
        from errseg_rt.export.engines.builds import build_engine as build
        from errseg_rt.export.engines.profiles import Profile
    except ModuleNotFoundError as error:
        raise EngineError(f"building is not installed ({error}): pip install 'errseg-rt[build]'") from error

    if shape and engine != "tensorrt":
        raise typer.BadParameter("is for TensorRT: onnxruntime takes any size.", param_hint="'--shape'")
    precision = precision or ("int8" if engine == "onnxruntime" else "fp16")
    if precision not in BARS:
        raise typer.BadParameter(f"{precision!r} is none of {', '.join(BARS)}.", param_hint="'--precision'")
    try:
        shapes = [Profile.parse(text) for text in shape or [DEFAULT_SHAPE]] if engine == "tensorrt" else [None]
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="'--shape'") from error
    wants_report = (precision != "fp32" or bar is not None) if report is None else report
    least = (bar or BARS[precision]) if wants_report else None
    check_file(timing_cache)
    check_folder(out)
    check_target(bundle, BuildOptions(engine, precision), shape or [DEFAULT_SHAPE], out)
    opened = _copied(bundle, out) if out else Bundle.open(bundle)
    done: list[Built] = []
    with phases() as progress:
        for each in shapes:
            options = BuildOptions(engine, precision, each, least, frames, workspace, timing_cache)
            done.append(build(opened, options, progress))
    if as_json:
        print_json([{"folder": str(b.engine.folder), "is_new": b.is_new, "report": b.report} for b in done])
        return
    for built in done:
        print(f"{built.engine.folder}: {'built' if built.is_new else 'already there'}")
        if built.report:
            _print_report(built.report)


def _copied(bundle: str, out: Path) -> Bundle:
    """A copy of the bundle with its built engines; where it has been copied before, that copy."""
    source = Bundle.open(bundle)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        there = Bundle.open(os.path.join(out, ""))
        if there.manifest != source.manifest:
            raise BundleError(f"{out}: holds another bundle; give another folder")
        return there
    copy = write_bundle(out, source.manifest, {name: source.read(name) for name in source.manifest.files})
    for engine in source.engines.all():
        shutil.copytree(engine.folder, copy.engines.folder / engine.folder.name)
    return copy


def _print_report(report: Mapping[str, Any]) -> None:
    rows = [
        [
            name,
            f"{100 * row['agreement']:.3f}",
            *("-" if row[key] is None else f"{row[key]:.5f}" for key in ("largest", "mean")),
            percent(row["reference_miou"]),
            percent(row["miou"]),
        ]
        for name, row in report["branches"].items()
    ]
    columns = ["branch", "labels equal, %", "largest dP", "mean dP", "mIoU fp32, %", "mIoU, %"]
    print_table(f"Against fp32 ({report['frames']} frames, bar {100 * report['bar']:.2f} %)", columns, rows)
    ours, reference = report["milliseconds"], report["reference_milliseconds"]
    print(f"median time of a frame: {reference:.1f} ms in fp32 with onnxruntime on the CPU, {ours:.1f} ms")
