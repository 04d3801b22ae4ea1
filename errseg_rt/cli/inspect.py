"""`errseg-rt inspect`: what a bundle is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.cli.options import JsonOption, print_table

_OF_FINAL = "of the label you get"
_OF_SEMANTIC = "of the semantic label, also where another is given: errseg-rt calibrate fits a map of that"
_SOURCES = {
    "branch": "of the error-prediction branch",
    "max_softmax": "1 minus the largest class probability of the network itself",
    "none": "none: the network gives labels alone",
}


def inspect(
    bundle: Annotated[str, typer.Argument(help="Embedded bundle's name, or a bundle's folder.")] = "camvid",
    as_json: JsonOption = False,
) -> None:
    """Show a bundle, after checking every one of its files: manifest, model card, licence."""
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    if as_json:
        print(json.dumps({"folder": str(opened.folder), **json.loads(manifest.to_json())}, indent=2))
        return
    spec = manifest.input
    padding = f"multiples of {spec.multiple}" + (" plus one" if spec.plus_one else "")
    limit = f", enlarging up to {spec.enlarge_up_to} pixels" if spec.scale > 1 and spec.enlarge_up_to else ""
    if spec.size:
        padding = f"nothing: the frame is stretched to {spec.size[0]}x{spec.size[1]}, the only size that it takes"
    work = f"at most {spec.work_pixels} pixels; larger frames are reduced" if spec.work_pixels else "frames of any size"
    facts = [
        ["folder", str(opened.folder)],
        ["classes", f"{len(manifest.classes)}: {', '.join(manifest.classes.names)}"],
        ["input scale", f"{spec.scale}{limit}"],
        ["network sees", work],
        ["padded to", padding],
        ["grid", f"stride {manifest.grid_stride}, align_corners {str(manifest.align_corners).lower()}"],
        ["planes", f"{spec.color}, mean {_listed(spec.mean)}, std {_listed(spec.std)}"],
        ["error map", _SOURCES[manifest.error] + ("" if manifest.is_calibrated else ", not calibrated")],
    ]
    if manifest.has_detail:
        facts.append(["threshold t", f"{manifest.threshold} (lowest evaluated {manifest.lowest_threshold})"])
        facts.append(["error probability", _OF_SEMANTIC if manifest.detail_calibration is None else _OF_FINAL])
    else:
        facts.append(["detail branch", "none: no pixel is labelled again"])
    if network := manifest.cascade.get("network"):
        facts.append(["network", f"{network['file']}, frozen, SHA-256 {network['sha256']}"])
        facts += [[f"tap {tap}", said] for tap, said in network["taps"].items()]
    print_table(f"Bundle {manifest.name}", ["", "value"], facts)
    files = [[name, f"{record.size:,}", record.sha256[:16]] for name, record in sorted(manifest.files.items())]
    print_table("Files (checked)", ["file", "bytes", "SHA-256"], files)
    for document in ("MODEL_CARD.md", "LICENSE.md"):
        if document in manifest.files:
            Console().print(Markdown(opened.read(document).decode("utf-8")))


def _listed(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)
