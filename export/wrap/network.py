"""A user's network, read as far as its file goes; what it does not say is listed by the options that say it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from errseg_rt.errors import DataError
from errseg_rt.export.wrap.convert import OPSET
from errseg_rt.export.wrap.ends import grid_of
from errseg_rt.export.wrap.facts import FILE, GIVEN, RUN, Fact, facts_of
from errseg_rt.export.wrap.float32 import to_float32
from errseg_rt.export.wrap.front import front_graph
from errseg_rt.export.wrap.looks import Looks, Size, alone, frames_apart, look, takes
from errseg_rt.export.wrap.meaning import Meaning, meaning_of
from errseg_rt.export.wrap.probe import Probe
from errseg_rt.export.wrap.reading import load_model, opset
from errseg_rt.export.wrap.tidy import tidied
from errseg_rt.system.lines import one_line

_AGREEMENT = 0.999  # of the labels on a made-up input: converted graphs round otherwise
_ROUNDING = 1e-3  # of the largest logit, likewise


@dataclass(frozen=True)
class Options:
    """What a user may say of a network; None: nothing.

    Attributes:
        output: The output, or any tensor, that holds the classes.
        size: Height and width at which it is run, where it takes any.
        multiple: A number of which both sides of its input are multiples.
        align_corners: Whether the first and last pixels of its grid lie on those of its input.
        activation: One of `errseg_rt.export.wrap.meaning.ACTIVATIONS`.
        threshold: Probability above which a sigmoid channel is its class.
        keep_resize: Whether a Resize at its end stays in it, so that labels are those of interpolated logits.
    """

    output: str | None = None
    size: Size | None = None
    multiple: int | None = None
    align_corners: bool | None = None
    activation: str | None = None
    threshold: float | None = None
    keep_resize: bool = False


@dataclass(frozen=True)
class Network:
    """A network that was read.

    Attributes:
        path: Its file.
        model: Its graph.
        looks: What was read of it.
        meaning: What its values mean.
        stride: Input pixels from one grid pixel to the next.
        align_corners: How the grid lies on the input; None: nobody says.
        multiple: Of which the sides of its input are multiples, where it takes any size.
        size: The only height and width that it is run at; None: any.
        facts: All that for a user to read.
        provenance: Where it comes from.
    """

    path: Path
    model: onnx.ModelProto
    looks: Looks
    meaning: Meaning
    stride: int
    align_corners: bool | None
    multiple: int
    size: Size | None
    facts: tuple[Fact, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """Options that must be given for want of anything that says so."""
        return [] if self.align_corners is not None else ["--align-corners or --no-align-corners"]

    def front(self, classes: int) -> onnx.ModelProto:
        """Its front graph, in which tensors have the names that they have in the file.

        Args:
            classes: How many there are.

        Raises:
            DataError: It cannot be converted, or computes something else then.
        """
        graph = self._front(classes)
        self._check(graph, classes)
        return graph

    def tidy_front(self, classes: int) -> onnx.ModelProto:
        """The same with constants and norms folded, as it lies in a bundle.

        Raises:
            DataError: As `front`.
        """
        graph = tidied(self._front(classes))
        onnx.checker.check_model(graph)
        self._check(graph, classes)
        return graph

    def _front(self, classes: int) -> onnx.ModelProto:
        return front_graph(self.model, self.path, self.looks, self.meaning, classes, self.stride)

    def _check(self, front: onnx.ModelProto, classes: int) -> None:
        """Hold a front graph to what the file gave for the same frame."""
        looks, meaning = self.looks, self.meaning
        probe = Probe(front, [value.name for value in front.graph.output], str(self.path))
        found = probe.run({"image": _image(looks)})
        logits, values = found["logits"][0].astype(np.float64), looks.values
        rows, cols = looks.ends.nearest or (1, 1)
        values = values.repeat(rows, axis=1).repeat(cols, axis=2)
        if logits.shape != (classes, *grid_of(looks.size, self.stride)):
            raise DataError(
                f"{self.path}: its front graph gives {logits.shape} for an input of {looks.size}; report this"
            )
        if values.shape[1:] != logits.shape[1:]:
            return  # brought to the input's size
        if meaning.kind == "labels":
            right = np.where(values[0] < classes, np.rint(values[0]), 0)
        elif meaning.threshold is None:
            right = values.argmax(axis=0)
        else:
            level = meaning.threshold if meaning.kind == "probabilities" else meaning.level
            right = np.where(values.max(axis=0) > level, values.argmax(axis=0) + 1, 0)
        agreement = float((logits.argmax(axis=0) == right).mean())
        differs = meaning.kind == "logits" and meaning.level is None
        differs = differs and float(np.abs(logits - values).max()) > _ROUNDING * float(np.abs(values).max())
        if agreement < _AGREEMENT or differs:
            raise DataError(
                f"{self.path}: converted from opset {opset(self.model)}, the network gives other values "
                f"({agreement:.1%} of the labels agree); export it with opset 18 or newer"
            )


def read_network(path: Path, options: Options) -> Network:
    """Read a network's file.

    Raises:
        DataError: It is no network that can be run here, or the options do not fit it.
    """
    model = load_model(path)
    is_changed = to_float32(model)
    looks = look(model, path, options.output, options.size, options.keep_resize)
    model, looks, is_alone = alone(model, path, looks)
    looks = frames_apart(model, path, looks)
    meaning = meaning_of(looks, path, options.activation, options.threshold)
    size = looks.input.fixed or options.size
    if "P" in looks.ends.roles and not size:
        raise DataError(f"{path}: gives the pixels of a map in one row, whatever its size; give --size HxW")
    stride = looks.stride or _whole_input(path, looks)
    align, align_source = _alignment(path, looks, stride, options.align_corners)
    multiple, multiple_source = 1, RUN
    if not size:
        least = takes(model, path, looks)
        multiple, multiple_source = (options.multiple, GIVEN) if options.multiple else (least, RUN)
        if multiple % least:
            raise DataError(f"{path}: --multiple {multiple}: it takes multiples of {least} alone")
    elif options.multiple and any(side % options.multiple for side in size):
        raise DataError(f"{path}: --multiple {options.multiple}: its input is {size[0]}x{size[1]}; leave it out")
    output, threshold = options.output, options.threshold
    said = facts_of(looks, meaning, output=output, threshold=threshold, is_changed=is_changed, is_alone=is_alone)
    facts = list(said)
    before = opset(model)
    facts.append(Fact("opset", f"{before}, converted to {OPSET}" if before < OPSET else str(before), FILE))
    if size:
        facts.append(
            Fact("size", f"{size[0]}x{size[1]}, to which frames are stretched", FILE if looks.input.fixed else GIVEN)
        )
    else:
        facts.append(Fact("size", f"any; frames are padded to multiples of {multiple}", multiple_source))
    facts.append(Fact("grid", f"stride {stride}", RUN))
    if align is not None:
        facts.append(Fact("align corners", "yes" if align else "no", align_source))
    data = path.read_bytes()
    provenance = {
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "made_by": one_line(f"{model.producer_name} {model.producer_version}".strip() or "unknown"),
        "opset": before,
    }
    return Network(path, model, looks, meaning, stride, align, multiple, size, tuple(facts), provenance)


def _whole_input(path: Path, looks: Looks) -> int:
    """Stride 1, to which a map is brought whose pixels are no whole number of the input's apart.

    Raises:
        DataError: The map shows less than the input.
    """
    (height, width), (rows, cols) = looks.size, looks.full_grid
    step = max(1, height // rows)
    if height - rows * step >= step or width - cols * step >= step or rows > height or cols > width:
        raise DataError(
            f"{path}: gives a map of {rows}x{cols} for an input of {height}x{width}, which is no grid over it; "
            "networks that give less than they see cannot be wrapped"
        )
    return 1


def _alignment(path: Path, looks: Looks, stride: int, given: bool | None) -> tuple[bool | None, str]:
    """How the grid lies on the input, and who says so."""
    cut = looks.ends.align_corners
    if cut is not None:
        if given is not None and given != cut:
            raise DataError(
                f"{path}: its last Resize says {'' if cut else 'no '}aligned corners; leave out --align-corners and "
                "--no-align-corners"
            )
        return cut, f"{FILE}, by the Resize that was cut"
    if given is not None:
        return given, GIVEN
    if stride == 1 and looks.full_grid == looks.size:
        return False, f"{RUN}: every pixel has its own"
    return looks.resizes, f"{FILE}, by its other Resizes"


def _image(looks: Looks) -> npt.NDArray[np.float32]:
    """The made-up frame that the network was looked at with, as the front graph takes it."""
    given = looks.input
    values = given.noise(looks.size)
    values = values[0] if "N" in given.layout else values
    planes = values.transpose(2, 0, 1) if given.layout.endswith("C") else values
    return np.ascontiguousarray(np.broadcast_to(planes, (3, *looks.size))[None], np.float32)
