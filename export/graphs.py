"""A cascade's two graphs as ONNX, with dynamic batch, height and width."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection
from dataclasses import replace

import onnx
import torch

from errseg_rt.bundle.input_spec import InputSpec, Size
from errseg_rt.errors import DataError
from errseg_rt.export.engines.groups import join_narrow_groups
from errseg_rt.export.engines.parts import part_concatenations
from errseg_rt.export.joined import BranchesGraph, join, sample_of
from errseg_rt.networks.cascade import Cascade
from errseg_rt.networks.graphs import GRAPHS, FrontGraph, RefineGraph
from errseg_rt.system.lines import one_line
from errseg_rt.training.frozen import FrozenNetwork

_OPSET = 18
_SAMPLE = (97, 129)  # sizes at which the exporter traces, or the next that fit; any that differ from each other and 1
_GRID = (25, 33)  # likewise


def export_graphs(
    cascade: Cascade, spec: InputSpec | None = None, names: Collection[str] = tuple(GRAPHS)
) -> dict[str, bytes]:
    """The front and the refine graph of a cascade, which hand on logits; in shapes that ONNX Runtime is fast at.

    Args:
        cascade: Moved to eval mode; its weights stay as they are.
        spec: How its network takes frames; None: as the network says, or in 16n + 1 pixels a side.
        names: Which of the graphs; each takes the exporter seconds to minutes.

    Returns:
        ONNX models by the names of the graphs.
    """
    cascade = cascade.eval()
    if spec is None:
        spec = getattr(cascade.semantic, "input", InputSpec(plus_one=True))
    if isinstance(cascade.semantic, FrozenNetwork):
        models = _around(cascade, cascade.semantic, spec, names)
    else:
        models = _whole(cascade, spec, names)
    for model in models.values():
        join_narrow_groups(model.graph)
    return {name: bytes(model.SerializeToString()) for name, model in models.items()}


def _whole(cascade: Cascade, spec: InputSpec, names: Collection[str]) -> dict[str, onnx.ModelProto]:
    """The graphs of a cascade that torch exports as a whole."""
    is_fixed = spec.size is not None
    image = torch.zeros(1 if is_fixed else 2, 3, *sample_size(spec))
    with torch.no_grad():
        front = cascade.front(image)
    samples = {"front": (image,), "refine": (front.logits, front.low, front.coarse, front.gate)}
    return {
        name: _export(graph(cascade), samples[name], name, is_fixed=is_fixed)
        for name, graph in GRAPHS.items()
        if name in names
    }


def sample_size(spec: InputSpec) -> Size:
    """Size of an image at which a network is traced: one that it takes."""
    return replace(spec, scale=1.0, enlarge_up_to=0, work_pixels=0).input_size(_SAMPLE)


def _around(
    cascade: Cascade, network: FrozenNetwork, spec: InputSpec, names: Collection[str]
) -> dict[str, onnx.ModelProto]:
    """The graphs around a frozen network's own."""
    graphs: dict[str, onnx.ModelProto] = {}
    if "front" in names:
        branches = BranchesGraph(cascade, network)
        behind = _export(branches, sample_of(network, spec), "front", is_fixed=spec.size is not None)
        graphs["front"] = join(network, behind)
    if "refine" in names:
        refine, coarse = RefineGraph(cascade), tuple(-(-side // 2) for side in _GRID)
        sizes = {"logits": _GRID, "low": _GRID, "coarse": coarse, "gate": (1, 1)}
        maps = tuple(torch.zeros(2, shape[1] or 0, *sizes[name]) for name, shape in refine.input_shapes().items())
        graphs["refine"] = _export(refine, maps, "refine")
    return graphs


def _export(
    graph: FrontGraph | RefineGraph | BranchesGraph,
    sample: tuple[torch.Tensor, ...],
    name: str,
    *,
    is_fixed: bool = False,
) -> onnx.ModelProto:
    inputs = graph.input_shapes()
    # The grid's sides are shared by logits and low, so dynamic sizes are inferred rather than named one by one.
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(shape) if size is None and not is_fixed}
        for shape in inputs.values()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
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
        except Exception as error:  # of whatever is written in a network of somebody's
            cause = error.__cause__ or error
            reason = f"{type(cause).__name__}: {one_line(str(cause))[:300]}"
            raise DataError(f"torch cannot export the {name} graph to ONNX for sizes that vary ({reason})") from error
    if program is None:
        raise RuntimeError(f"the exporter gave no program for the {name} graph")
    model = _without_traces(program.model_proto)
    part_concatenations(model)
    return model


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes on where each node came from, a sixth of a small model's bytes."""
    del model.graph.value_info[:]
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model
