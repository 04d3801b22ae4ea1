"""`errseg-rt inspect`: what a bundle is."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.cli.options import JsonOption, print_table


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
    work = f"at most {spec.work_pixels} pixels; larger frames are reduced" if spec.work_pixels else "frames of any size"
    facts = [
        ["folder", str(opened.folder)],
        ["classes", f"{len(manifest.classes)}: {', '.join(manifest.classes.names)}"],
        ["input scale", f"{spec.scale}{limit}"],
        ["network sees", work],
        ["padded to", padding],
        ["grid", f"stride {manifest.grid_stride}, align_corners {str(manifest.align_corners).lower()}"],
        ["threshold t", f"{manifest.threshold} (lowest evaluated {manifest.lowest_threshold})"],
    ]
    print_table(f"Bundle {manifest.name}", ["", "value"], facts)
    files = [[name, f"{record.size:,}", record.sha256[:16]] for name, record in sorted(manifest.files.items())]
    print_table("Files (checked)", ["file", "bytes", "SHA-256"], files)
    for document in ("MODEL_CARD.md", "LICENSE.md"):
        if document in manifest.files:
            Console().print(Markdown(opened.read(document).decode("utf-8")))
