"""The file of a network of the user's, opened as `errseg-rt wrap` opens it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.export.wrap.network import Options, read_network
from errseg_rt.taps.network_file import NetworkFile, is_bundle


def open_network(
    path: Path, spec: InputSpec | None = None, classes: int | None = None, logits: str | None = None
) -> NetworkFile:
    """The network of an .onnx file, or of a bundle that was made of one.

    Args:
        path: The file, or the bundle's folder.
        spec: How frames become its input, where a file does not say so; None: it is only looked at. A bundle says it
            itself, and a file says whether it takes one size only.
        classes: How many classes a file gives labels of, where these alone do not say so.
        logits: The output, or any tensor, that holds the classes; None: the only output.

    Raises:
        DataError: It cannot be used: what it is instead, which node is at fault, or what has to be said.
        BundleError: The bundle is damaged.
    """
    if is_bundle(path) or path.is_dir():
        return NetworkFile.of_bundle(path)
    asked = spec or InputSpec(multiple=1)
    multiple = asked.multiple if spec and not (spec.plus_one or spec.size) else None
    network = read_network(path, Options(output=logits, size=asked.size, multiple=multiple))
    if spec is None:
        asked = replace(asked, multiple=network.multiple)
    align = network.align_corners
    count = network.meaning.classes or classes or 2
    return NetworkFile(
        where=str(path),
        file=path.name,
        sha256=str(network.provenance["sha256"]),
        model=network.front(count),
        input=replace(asked, size=network.size),
        classes=count,
        align_corners=asked.plus_one if align is None else align,
    )
