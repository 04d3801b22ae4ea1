"""One front graph of a frozen network's ONNX graph and of the branches that torch exports behind it."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import compose, helper, version_converter
from torch import Tensor, nn

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.networks.cascade import Cascade
from errseg_rt.networks.graphs import FrontGraph, Shapes
from errseg_rt.system.lines import one_line
from errseg_rt.taps.chosen import TAPS
from errseg_rt.taps.cut import TAP
from errseg_rt.taps.sizes import probe_sizes
from errseg_rt.training.frozen import FrozenNetwork

Maps = tuple[Tensor, ...]
_BRANCHES = "branches/"


class BranchesGraph(nn.Module):
    """The front graph without its network: from that one's own tensors, by tap, to the front graph's outputs."""

    def __init__(self, cascade: Cascade, network: FrozenNetwork) -> None:
        super().__init__()
        self.cascade, self.network = cascade, network
        self._shapes = FrontGraph(cascade).output_shapes()

    def forward(self, image: Tensor, low: Tensor, mid: Tensor, deep: Tensor, high: Tensor, logits: Tensor) -> Maps:
        """What a front graph gives, of an image and what the network gives of it."""
        raw = dict(zip(TAPS, (low, mid, deep, high, logits), strict=True))
        taps = self.network.arranged(raw, (image.shape[2], image.shape[3]))
        return self.cascade.handed_on(image, self.cascade.on_grid(taps))

    def input_shapes(self) -> Shapes:
        """Inputs by name, in order; those from the network are called as its outputs are."""
        own: Shapes = {TAP + name: (None, self.network.note.taps[name].channels, None, None) for name in TAPS}
        return {"image": (None, 3, None, None), **own}

    def output_shapes(self) -> Shapes:
        """Outputs by name, in order."""
        return self._shapes


def sample_of(network: FrozenNetwork, spec: InputSpec) -> tuple[Tensor, ...]:
    """Images, and what a network gives of them, at a size that it takes: one where it takes one size, else two."""
    height, width = probe_sizes(spec)[0]
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, height, width), np.float32))
    raw = network.raw(image)
    sample = (image, *(raw[name] for name in TAPS))
    return sample if spec.size else tuple(tensor.repeat(2, 1, 1, 1) for tensor in sample)


def join(network: FrozenNetwork, branches: onnx.ModelProto) -> onnx.ModelProto:
    """One graph of a network's and of what reads its taps.

    Args:
        network: The network.
        branches: The `BranchesGraph` behind it, as ONNX.

    Raises:
        DataError: Their operators have no version in common.
    """
    front, back = _same_opset(onnx.load_model_from_string(network.graph), branches, network.note.file)
    back = compose.add_prefix(back, _BRANCHES)
    pairs = [(TAP + name, _BRANCHES + TAP + name) for name in TAPS]
    outputs = [value.name for value in back.graph.output]
    joined = compose.merge_models(front, back, pairs, outputs=outputs)
    graph = joined.graph
    _rename(graph, {_BRANCHES + "image": "image", **{name: name.removeprefix(_BRANCHES) for name in outputs}})
    own = [value for value in graph.input if value.name == "image"][:1]
    image = onnx.ValueInfoProto()
    image.CopyFrom(own[0])
    del graph.input[:], graph.value_info[:]
    graph.input.append(image)
    graph.name = "front"
    # Both models list theirs; ai.onnx is the same as none.
    versions = {"" if each.domain == "ai.onnx" else each.domain: each.version for each in joined.opset_import}
    del joined.opset_import[:]
    joined.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())
    joined.ir_version = max(front.ir_version, back.ir_version)
    onnx.checker.check_model(joined)
    return joined


def _same_opset(front: onnx.ModelProto, back: onnx.ModelProto, file: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    wanted = max(_opset(front), _opset(back))
    models = []
    for model in (front, back):
        if _opset(model) < wanted:
            try:
                model = version_converter.convert_version(model, wanted)
            except Exception as error:
                raise DataError(
                    f"{file}: opset {_opset(model)} cannot be converted to {wanted} ({one_line(error)}); export it "
                    f"with opset {wanted}"
                ) from error
        models.append(model)
    for model in models:
        model.ir_version = max(each.ir_version for each in models)
    return models[0], models[1]


def _opset(model: onnx.ModelProto) -> int:
    return int(max(each.version for each in model.opset_import if each.domain in ("", "ai.onnx")))


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Give tensors of the outermost graph other names; those within nodes' graphs never read them."""
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
