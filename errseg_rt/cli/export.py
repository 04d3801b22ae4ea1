"""`errseg-rt export`: the weights of a cascade to a bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from errseg_rt.bundle.bundle import Bundle, check_replaceable
from errseg_rt.cli.options import JsonOption, print_json
from errseg_rt.cli.outputs import check_folder
from errseg_rt.datasets.inputs import find_images
from errseg_rt.errors import EngineError
from errseg_rt.frames.reading import read_frame
from errseg_rt.system.progress import track

_CHECK_FRAMES = 4
_LEAST_AGREEMENT = 0.9999


def export(
    checkpoint: Annotated[Path, typer.Argument(help="cascade.safetensors of a training.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle's folder.")],
    name: Annotated[str | None, typer.Option(help="The bundle's name; default: that of its folder.")] = None,
    license_file: Annotated[Path | None, typer.Option("--license", help="Terms of the weights (Markdown).")] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--import",
            metavar="PACKAGE.MODULE:FACTORY",
            help="What makes a semantic network of yours, as the recipe named it: a file's word alone imports nothing.",
        ),
    ] = None,
    frames: Annotated[
        list[str] | None, typer.Option(help="Image files, folders or globs to check on; default: rendered scenes.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Export the graphs to ONNX, write the bundle, and check it against torch."""
    try:
        from errseg_rt.export.bundle import export_bundle
        from errseg_rt.export.engines.parity import Parity, compare
    except ModuleNotFoundError as error:
        raise EngineError(f"export is not installed ({error}): pip install 'errseg-rt[train]'") from error
    from errseg_rt.export.reference import torch_way
    from errseg_rt.networks.registry import import_network
    from errseg_rt.options import Options
    from errseg_rt.pipeline.open import open_way
    from errseg_rt.scenes import StreetScene

    if network is not None:
        import_network(network)
    check_folder(out)
    check_replaceable(out)
    pictures = [read_frame(item.path) for item in find_images(frames).items] if frames else []
    if not pictures:
        scene = StreetScene(0)
        pictures = [scene.frame(10 * index).frame for index in range(_CHECK_FRAMES)]
    parities: list[Parity] = []

    def check(bundle: Bundle, cascade: Any) -> None:
        opened = Bundle.open(bundle.folder)
        parity = compare(
            torch_way(opened, cascade),
            open_way(opened, Options()),
            track(pictures, "check against torch", len(pictures)),
        )
        parities.append(parity)
        if parity.agreement < _LEAST_AGREEMENT:
            raise EngineError(
                f"{checkpoint}: only {parity.agreement:.4%} of the labels equal torch's, less than "
                f"{_LEAST_AGREEMENT:.2%}; report this with the versions that errseg-rt doctor prints"
            )

    bundle = export_bundle(checkpoint, out, name or out.resolve().name, license_file, check)
    (parity,) = parities
    size = sum(record.size for record in bundle.manifest.files.values())
    if as_json:
        print_json({"bundle": str(out), "bytes": size, "agreement": parity.agreement, **asdict(parity)})
    else:
        print(f"{out}: {size:,} bytes; {parity.agreement:.4%} of {parity.pixels:,} labels equal torch's")
