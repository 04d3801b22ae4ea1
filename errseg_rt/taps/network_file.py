"""A network of the user's in a file, with what has to be known to train branches behind it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from errseg_rt.bundle.bundle import MANIFEST, Bundle
from errseg_rt.bundle.classes import ClassSet
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.taps.chosen import TAPS, Tap, check_names, choose
from errseg_rt.taps.maps import Maps, grid_stride_of
from errseg_rt.taps.onnx_maps import onnx_maps
from errseg_rt.taps.proposal import Proposed, propose

_FRONT = "graphs/front.onnx"


@dataclass(frozen=True)
class NetworkFile:
    """A network from `image` to class logits, as ONNX.

    Attributes:
        where: What was given, for messages.
        file: What the user's file is called.
        sha256: Its digest.
        model: The graph.
        input: How frames become its input.
        classes: Number of classes.
        class_set: Their names and colours, where somebody has said them.
        align_corners: How its grid lies on the input.
        logits: The tensor that holds them.
    """

    where: str
    file: str
    sha256: str
    model: onnx.ModelProto
    input: InputSpec
    classes: int
    align_corners: bool
    class_set: ClassSet | None = None
    logits: str = "logits"

    @classmethod
    def of_bundle(cls, folder: Path) -> NetworkFile:
        """The network of a bundle that `errseg-rt wrap` made.

        Raises:
            BundleError: It is damaged.
            DataError: It is a trained cascade.
        """
        bundle = Bundle.open(folder)
        manifest = bundle.manifest
        if manifest.has_detail or manifest.cascade.get("semantic") != "onnx":
            raise DataError(
                f"{folder}: is a trained cascade, not a network alone; give the network's .onnx file, or a bundle that "
                "errseg-rt wrap made of it"
            )
        source = manifest.provenance
        return cls(
            where=os.fspath(folder),
            file=str(source.get("file", _FRONT)),
            sha256=str(source.get("sha256", manifest.files[_FRONT].sha256)),
            model=onnx.load_model_from_string(bundle.read(_FRONT)),
            input=manifest.input,
            classes=len(manifest.classes),
            align_corners=manifest.align_corners,
            class_set=manifest.classes,
        )

    def maps(self) -> Maps:
        """Its feature maps.

        Raises:
            DataError: It does not run.
        """
        return onnx_maps(self.model, self.input)

    def grid_stride(self, maps: Maps, logits: str | None = None) -> int:
        """As `grid_stride_of`."""
        return grid_stride_of(maps, logits or self.logits)

    def proposed(self, maps: Maps, grid_stride: int, logits: str | None = None) -> dict[str, Proposed]:
        """Taps by `propose`."""
        return propose(maps, logits or self.logits, grid_stride)

    def chosen(self, maps: Maps, names: Mapping[str, str], grid_stride: int) -> dict[str, Tap]:
        """Taps by their names, those of the logits as they are unless they are named.

        Raises:
            DataError: A name is missing or cannot be a tap.
        """
        check_names(names, f"{self.where}: taps")
        every = {"logits": self.logits, **names}
        return choose(maps, {tap: every[tap] for tap in TAPS}, self.classes, grid_stride, self.where)


def is_bundle(path: Path) -> bool:
    """Whether a path is that of a bundle."""
    return (path / MANIFEST).is_file() or path.name == MANIFEST


def with_spec(network: NetworkFile, spec: InputSpec) -> NetworkFile:
    """The same network on another input."""
    return replace(network, input=spec)
