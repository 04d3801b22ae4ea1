"""One picture under the likely conventions, side by side: a person sees which of them is the network's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import ClassSet
from errseg_rt.bundle.contract import on_stride
from errseg_rt.export.wrap.network import Network
from errseg_rt.export.wrap.preprocessing import COLORS, PRESETS, Given, missing, normalisation_of
from errseg_rt.export.wrap.probe import Probe
from errseg_rt.export.wrap.wrap import spec_of
from errseg_rt.kernels.fuse_labels import fuse_labels
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.preprocess import preprocess

_MOST_PIXELS = 2**20  # of a picture: conventions can be told apart at that, and many runs take their time
_TILE = 480  # pixels of a tile's longer side
_CAPTION = 40  # of its caption's height
_OPACITY = 0.6
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Tile:
    """A picture under one convention.

    Attributes:
        options: What to type for it.
        overlay: The class colours over the picture, BGR `uint8 [H, W, 3]`.
        confidence: Mean probability of the winning classes; None where there is none.
        shares: Share of the picture by class, the largest first.
    """

    options: str
    overlay: npt.NDArray[np.uint8]
    confidence: float | None
    shares: dict[str, float]


def conventions(network: Network, given: Given) -> list[Given]:
    """What a user may mean, who has said as much as this."""
    takes = network.looks.input
    values = [given]
    if not given.has_values and takes.dtype.kind == "f":
        values = [replace(given, normalise=name) for name in PRESETS]
    colors = [given.color] if given.color or takes.channels == 1 else COLORS
    found = [replace(each, color=color) for each in values for color in colors]
    return [each for each in found if (each.normalise, each.color) != ("caffe", "rgb") and not missing(each, takes)]


def tiles(network: Network, given: Given, classes: ClassSet, frame: npt.NDArray[np.uint8]) -> Iterator[Tile]:
    """A frame, BGR `uint8 [H, W, 3]`, labelled under each of the `conventions`.

    Raises:
        DataError: What was given is no convention, or the network does not run on the frame.
    """
    graph = network.front(len(classes))
    probe = Probe(graph, ["logits"], str(network.path))
    align = bool(network.align_corners)
    if (pixels := frame.shape[0] * frame.shape[1]) > _MOST_PIXELS:
        factor = (_MOST_PIXELS / pixels) ** 0.5
        frame = np.asarray(cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
    for each in conventions(network, given):
        values = normalisation_of(each, network.looks.input)
        spec, size = spec_of(network, values, each), (frame.shape[0], frame.shape[1])
        content, padded = spec.sizes(size)
        image = preprocess(frame, content, padded, **spec.normalisation("bgr")._asdict())
        logits = probe.run({"image": np.asarray(image, np.float32)})["logits"][0]
        geometry = Geometry(on_stride(padded, network.stride), padded, content, size, align)
        fused = fuse_labels(logits, None, None, geometry, confidence=True)
        colors = classes.palette_bgr()[fused.labels]
        overlay = cv2.addWeighted(frame, 1 - _OPACITY, colors, _OPACITY, 0)
        counts = np.bincount(fused.labels.ravel(), minlength=len(classes)) / fused.labels.size
        order = np.argsort(-counts, kind="stable")
        shares = {classes.names[index]: float(counts[index]) for index in order if counts[index]}
        is_sure = network.meaning.kind != "labels" and fused.confidence is not None
        yield Tile(
            _options(each),
            np.asarray(overlay, np.uint8),
            float(fused.confidence.mean()) if is_sure else None,  # type: ignore[union-attr]
            shares,
        )


def picture(drawn: list[Tile]) -> npt.NDArray[np.uint8]:
    """All tiles in one picture, BGR, each under the options to type for it."""
    height, width = drawn[0].overlay.shape[:2]
    factor = _TILE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    columns = 2 if len(drawn) == 2 else min(3, len(drawn))
    wide = max(size[0], _TILE)
    cells = []
    for tile in drawn:
        cell = np.full((size[1] + _CAPTION, wide, 3), 255, np.uint8)
        cell[_CAPTION:, : size[0]] = cv2.resize(tile.overlay, size, interpolation=cv2.INTER_AREA)
        _write(cell, tile.options, 16)
        largest = ", ".join(f"{name} {share:.0%}" for name, share in list(tile.shares.items())[:3])
        sure = f"confidence {tile.confidence:.3f}; " if tile.confidence is not None else ""
        _write(cell, sure + largest, 33)
        cells.append(cell)
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    rows = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    return np.asarray(np.vstack(rows), np.uint8)


def _write(cell: npt.NDArray[np.uint8], text: str, baseline: int) -> None:
    """Write a line that fits."""
    (width, _), _ = cv2.getTextSize(text, _FONT, 0.45, 1)
    scale = min(0.45, 0.45 * (cell.shape[1] - 8) / max(width, 1))
    cv2.putText(cell, text, (4, baseline), _FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)


def _options(given: Given) -> str:
    """What to type."""
    said = {name: getattr(given, name) for name in ("normalise", "scale", "mean", "std", "color", "reduce")}
    return " ".join(f"--{name} {value}" for name, value in said.items() if value)
