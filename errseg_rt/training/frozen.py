"""A network's ONNX file as the frozen semantic branch: run by ONNX Runtime, its taps handed on to torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from errseg_rt.bundle.contract import on_stride
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.errors import DataError
from errseg_rt.networks.resized import coarser_logits, to_stride
from errseg_rt.networks.taps import Taps
from errseg_rt.system.atomic import write_atomically
from errseg_rt.taps.chosen import Tap
from errseg_rt.taps.cut import TAP, cut
from errseg_rt.taps.network_file import NetworkFile

NETWORK = "network.onnx"
"""The frozen network beside the checkpoints of its branches, cut down to its taps."""


@dataclass(frozen=True)
class FrozenNote:
    """What a checkpoint holds of a frozen network, beside which its graph lies.

    Attributes:
        file: What the user's file is called.
        sha256: Digest of that file.
        graph_sha256: Digest of the graph with the taps.
        classes: Number of classes.
        align_corners: How its maps lie on the input.
        grid_stride: Stride of the grid.
        size: The only height and width that it takes; None: any.
        taps: By name.
    """

    file: str
    sha256: str
    graph_sha256: str
    classes: int
    align_corners: bool
    grid_stride: int
    size: tuple[int, int] | None
    taps: Mapping[str, Tap]

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FrozenNote:
        """Read what `to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: It is something else.
        """
        table: dict[str, Any] = json.loads(text)
        taps = {name: Tap(**tap) for name, tap in table.pop("taps").items()}
        size = table.pop("size")
        return cls(**table, size=None if size is None else (int(size[0]), int(size[1])), taps=taps)


class FrozenNetwork(nn.Module):
    """A semantic network without weights of torch's; see `errseg_rt.networks.taps.SemanticNetwork`.

    Args:
        graph: An ONNX model whose outputs are the taps, as `errseg_rt.taps.cut` makes it.
        note: What is known of it.
    """

    def __init__(self, graph: bytes, note: FrozenNote) -> None:
        super().__init__()
        self.graph, self.note = graph, note
        self.classes, self.align_corners, self.grid_stride = note.classes, note.align_corners, note.grid_stride
        self.low_channels, self.mid_channels, self.deep_channels, self.high_channels = (
            note.taps[name].channels for name in ("low", "mid", "deep", "high")
        )
        self._engine: OnnxRuntimeEngine | None = None

    @classmethod
    def of(cls, network: NetworkFile, taps: Mapping[str, Tap], grid_stride: int) -> FrozenNetwork:
        """The network of a user's file, with its taps."""
        graph: onnx.ModelProto = cut(network.model, taps)
        data = bytes(graph.SerializeToString())
        note = FrozenNote(
            file=network.file,
            sha256=network.sha256,
            graph_sha256=hashlib.sha256(data).hexdigest(),
            classes=network.classes,
            align_corners=network.align_corners,
            grid_stride=grid_stride,
            size=network.input.size,
            taps=taps,
        )
        return cls(data, note)

    @classmethod
    def open(cls, path: Path, note: FrozenNote) -> FrozenNetwork:
        """The network that lies beside a checkpoint.

        Raises:
            DataError: It is missing, or another than the one that the branches were trained on.
        """
        try:
            graph = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path}: the frozen network ({note.file}) cannot be read ({error.strerror}); it lies beside the "
                "checkpoints of its branches: copy it there again"
            ) from error
        if hashlib.sha256(graph).hexdigest() != note.graph_sha256:
            raise DataError(
                f"{path}: not the frozen network that the branches beside it learned from ({note.file}): it has "
                "another SHA-256; put it back, or train anew"
            )
        return cls(graph, note)

    def save(self, path: Path) -> None:
        """Write its graph where `open` finds it, unless it lies there."""
        if path.is_file() and path.read_bytes() == self.graph:
            return
        with write_atomically(path) as temporary:
            temporary.write_bytes(self.graph)

    def forward(self, image: Tensor) -> Taps:
        """Taps of a normalised image `[B, 3, H, W]`, its frames one after the other.

        Of an image without values, which only tries sizes, they have none either.
        """
        size = image.shape[2], image.shape[3]
        if image.is_meta:
            return self.arranged(
                {
                    name: image.new_empty(image.shape[0], tap.channels, *on_stride(size, tap.stride))
                    for name, tap in self.note.taps.items()
                },
                size,
            )
        frames = image.detach().cpu().float().contiguous(memory_format=torch.contiguous_format).numpy()
        each = [self._run(np.ascontiguousarray(frame[None])) for frame in frames]
        raw = {name: torch.cat([found[name] for found in each]).to(image.device) for name in each[0]}
        return self.arranged(raw, size)

    def arranged(self, raw: Mapping[str, Tensor], size: tuple[int, int]) -> Taps:
        """The network's own tensors as taps.

        Args:
            raw: What its graph gives, by tap.
            size: Height and width of the image.
        """
        align = self.align_corners
        taps = {}
        for name, tap in self.note.taps.items():
            if name == "logits":
                taps[name] = coarser_logits(raw[name], tap.stride, self.grid_stride, align_corners=align)
                continue
            on_tap = on_stride(size, tap.wanted)
            fits = tap.is_exact
            taps[name] = to_stride(raw[name], tap.stride, tap.wanted, on_tap, fits=fits, align_corners=align)
        return Taps(**taps)

    def raw(self, image: Tensor) -> dict[str, Tensor]:
        """What its graph gives of one image `[1, 3, H, W]`, by tap."""
        return self._run(image.numpy())

    def _run(self, image: Any) -> dict[str, Tensor]:
        if self._engine is None:
            self._engine = OnnxRuntimeEngine(self.graph, self.note.file)
        found = self._engine.run({"image": image})
        return {name: torch.from_numpy(np.array(found[TAP + name])) for name in self.note.taps}

    def __getstate__(self) -> dict[str, Any]:
        """Without what another process cannot have."""
        return {**self.__dict__, "_engine": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenNetwork:
        """Itself: nothing in it changes."""
        return self
