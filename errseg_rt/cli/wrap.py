"""`errseg-rt wrap`: an ONNX file of any network to a bundle."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import cv2
import typer

from errseg_rt.bundle.bundle import check_replaceable
from errseg_rt.cli.options import JsonOption, print_json, print_table
from errseg_rt.cli.outputs import check_file, check_folder
from errseg_rt.errors import DataError, EngineError
from errseg_rt.frames.reading import read_frame
from errseg_rt.system.atomic import write_atomically
from errseg_rt.system.progress import track


def wrap(
    model: Annotated[Path, typer.Argument(help="The network, an .onnx file.", metavar="MODEL.onnx")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle's folder.")],
    name: Annotated[str | None, typer.Option(help="The bundle's name; default: that of its folder.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="N|NAMES|FILE|SET",
            help="Classes: their number, their names with commas, a file (TOML, or a name a line), or one of camvid, "
            "cityscapes, ade20k; default: made-up names, as many as the network has.",
        ),
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            "--normalise",
            "--normalize",
            metavar="NAME",
            help="What becomes of pixels: imagenet, 0..1, -1..1 or 0..255, in RGB unless --color says bgr, or caffe, "
            "in BGR.",
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(metavar="M[,M,M]", help="Or (pixel * scale - mean) / std, in the order of --color: the mean."),
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="S[,S,S]", help="The standard deviation; default: 1.")] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="1/255|1|NUMBER", help="The scale; default: 1 for a mean in 0..255, 1/255 for one in 0..1."
        ),
    ] = None,
    color: Annotated[
        str | None, typer.Option(metavar="rgb|bgr", help="Order of the channels that the network takes.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Height and width to which frames are stretched, for a network that takes any size."
        ),
    ] = None,
    reduce: Annotated[
        str | None,
        typer.Option(
            metavar="bilinear|area",
            help="How larger frames are made smaller for a network of one size; default: bilinear, as most are used.",
        ),
    ] = None,
    multiple: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Pad frames to multiples of N; default: the least that the network takes.",
        ),
    ] = None,
    align_corners: Annotated[
        bool | None,
        typer.Option(
            "--align-corners/--no-align-corners",
            help="Whether the corner pixels of the network's grid lie on those of its input; asked for where its "
            "Resizes do not say.",
        ),
    ] = None,
    keep_resize: Annotated[
        bool,
        typer.Option(
            "--keep-resize",
            help="Leave the Resize at its end in the network: labels are then those of interpolated logits, to the "
            "pixel, at many times the memory and time.",
        ),
    ] = False,
    output: Annotated[
        str | None, typer.Option(metavar="NAME", help="The output to take, where there are several; any tensor does.")
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            metavar="logits|softmax|sigmoid|labels", help="What the output holds, where that cannot be read off it."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            help="Probability above which a sigmoid channel is its class; default: the file's, or 0.5. With several "
            "channels, class 0 is then where none exceeds it.",
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE",
            help="Draw this image's labels under the likely normalisations side by side, to OUT_check.png; a bundle is "
            "written too, if all is given.",
        ),
    ] = None,
    license_file: Annotated[Path | None, typer.Option("--license", help="Terms of the weights (Markdown).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Wrap an ONNX file of any network as a bundle: labels, error map and overlays, without training."""
    try:
        from errseg_rt.export.wrap.meaning import ACTIVATIONS
        from errseg_rt.export.wrap.network import Options, read_network
        from errseg_rt.export.wrap.preprocessing import Given, missing
        from errseg_rt.export.wrap.wrap import complete, write
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "onnx":
            raise
        raise EngineError(f"wrap wants the package onnx ({error}): pip install 'errseg-rt[build]'") from error

    if activation not in (None, *ACTIVATIONS):
        raise DataError(f"--activation {activation}: there are {', '.join(ACTIVATIONS)}")
    if threshold is not None and not 0 < threshold < 1:
        raise DataError(f"--threshold {threshold}: wanted a probability between 0 and 1")
    given = Given(normalise, mean, std, scale, color, reduce)
    check_folder(out)
    check_replaceable(out)
    options = Options(output, _size(size), multiple, align_corners, activation, threshold, keep_resize)
    drawn = out.with_name(f"{out.resolve().name}_check.png") if check else None
    check_file(drawn)
    network = read_network(model, options)
    looked: list[dict[str, Any]] = []
    if check and drawn:
        looked = _check(network, given, classes, check, drawn)
        if missing(given, network.looks.input):
            _say(as_json, drawn, looked, {"bundle": None, "check": str(drawn)})
            if not as_json:
                print(f"{drawn}: look which of these is right, and run the command again with what stands above it")
            return
    wrapped = complete(network, given, classes)
    bundle = write(wrapped, out, name or out.resolve().name, license_file)
    manifest = bundle.manifest
    facts = [asdict(fact) for fact in wrapped.facts]
    answer = {
        "bundle": str(out),
        "bytes": sum(record.size for record in manifest.files.values()),
        "facts": facts,
        "error": manifest.error,
        "check": str(drawn) if drawn else None,
    }
    _say(as_json, drawn, looked, answer)
    if as_json:
        return
    print_table(
        f"Network {model.name}", ["", "value", "known from"], [[f["name"], f["value"], f["source"]] for f in facts]
    )
    where = shlex.quote(str(out))
    print(f"{out}: {answer['bytes']:,} bytes")
    if manifest.has_errors:
        print(
            "The error map is what the network itself thinks, not calibrated: errseg-rt calibrate "
            f"{where} --data DIR -o {shlex.quote(f'{out}_calibrated')} fits it to labelled frames of yours."
        )
    else:
        print("The network gives labels alone, so that there is no error map.")
    print(f"Try it: errseg-rt segment {shlex.quote(str(check)) if check else 'frame.png'} -o out --bundle {where}")


def _check(network: Any, given: Any, classes: str | None, image: Path, drawn: Path) -> list[dict[str, Any]]:
    """Draw an image under all conventions."""
    from errseg_rt.export.wrap.check import conventions, picture, tiles
    from errseg_rt.export.wrap.wrap import classes_of

    if network.meaning.classes is None and classes is None:
        raise DataError(f"{network.path}: gives labels, without their number; give --classes N|FILE|NAME")
    found, _ = classes_of(network, classes)
    frame = read_frame(image)
    steps = tiles(network, given, found, frame)
    laid = list(track(steps, "conventions", len(conventions(network, given))))
    with write_atomically(drawn) as temporary:
        temporary.write_bytes(cv2.imencode(".png", picture(laid))[1].tobytes())
    return [{"options": tile.options, "confidence": tile.confidence, "shares": tile.shares} for tile in laid]


def _say(as_json: bool, drawn: Path | None, looked: list[dict[str, Any]], answer: dict[str, Any]) -> None:
    if as_json:
        print_json({**answer, "conventions": looked})
        return
    if drawn:
        rows = [
            [
                each["options"] or "as given",
                "" if each["confidence"] is None else f"{each['confidence']:.3f}",
                ", ".join(f"{name} {share:.0%}" for name, share in list(each["shares"].items())[:3]),
            ]
            for each in looked
        ]
        print_table(f"Likely conventions ({drawn})", ["options", "confidence", "classes"], rows)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise DataError(f"--size {text}: wanted HEIGHTxWIDTH, as 512x1024")
    return int(found[1]), int(found[2])
