"""A cascade's two graphs as ONNX, with dynamic batch, height and width."""

from __future__ import annotations

import logging
import warnings

import onnx
import torch

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.export.joined import BranchesGraph, join, sample_of
from errseg_rt.networks.cascade import Cascade
from errseg_rt.networks.graphs import GRAPHS, FrontGraph, RefineGraph
from errseg_rt.training.frozen import FrozenNetwork

_OPSET = 18
_SAMPLE = (2, 3, 97, 129)  # sizes at which the exporter traces; any that differ from each other and from 1
_GRID = (25, 33)  # likewise


def export_graphs(cascade: Cascade, spec: InputSpec) -> dict[str, bytes]:
    """The front and the refine graph of a cascade, which hand on logits, not probabilities.

    Args:
        cascade: Moved to eval mode; its weights stay as they are.
        spec: How its network takes frames.

    Returns:
        ONNX models by the names of the graphs.
    """
    cascade = cascade.eval()
    if isinstance(cascade.semantic, FrozenNetwork):
        return _around(cascade, cascade.semantic, spec)
    image = torch.zeros(_SAMPLE)
    with torch.no_grad():
        front = cascade.front(image)
    samples = {"front": (image,), "refine": (front.logits, front.low, front.coarse, front.gate)}
    return {name: _export(graph(cascade), samples[name], name) for name, graph in GRAPHS.items()}


def _around(cascade: Cascade, network: FrozenNetwork, spec: InputSpec) -> dict[str, bytes]:
    """The graphs around a frozen network's own."""
    branches, refine = BranchesGraph(cascade, network), RefineGraph(cascade)
    coarse = tuple(-(-side // 2) for side in _GRID)
    sizes = {"logits": _GRID, "low": _GRID, "coarse": coarse, "gate": (1, 1)}
    maps = tuple(torch.zeros(2, shape[1] or 0, *sizes[name]) for name, shape in refine.input_shapes().items())
    behind = _export(branches, sample_of(network, spec), "front", is_fixed=spec.size is not None)
    return {"front": join(network, behind), "refine": _export(refine, maps, "refine")}


def _export(
    graph: FrontGraph | RefineGraph | BranchesGraph,
    sample: tuple[torch.Tensor, ...],
    name: str,
    *,
    is_fixed: bool = False,
) -> bytes:
    inputs = graph.input_shapes()
    # The grid's sides are shared by logits and low, so dynamic sizes are inferred rather than named one by one.
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(shape) if size is None and not is_fixed}
        for shape in inputs.values()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph,
            sample,
            input_names=list(inputs),
            output_names=list(graph.output_shapes()),
            dynamic_shapes=dynamic,
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"the exporter gave no program for the {name} graph")
    return _without_traces(program.model_proto)


def _without_traces(model: onnx.ModelProto) -> bytes:
    """The model without the exporter's notes on where each node came from, a sixth of a small model's bytes."""
    del model.graph.value_info[:]
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return bytes(model.SerializeToString())
