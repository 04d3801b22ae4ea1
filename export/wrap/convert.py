"""Old operators to ones of today, by ONNX's own converter."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
from onnx import version_converter

from errseg_rt.errors import DataError
from errseg_rt.export.engines.nodes import every_node
from errseg_rt.export.wrap.reading import opset
from errseg_rt.system.lines import one_line

OPSET = 18
"""What older graphs are converted to."""
_ENOUGH = 13  # opset from which on a graph can stay as it is, where the converter gives up
_FIRST_WITH_COORDINATES = 11


def converted(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """A model of `OPSET` or newer, if need be of `_ENOUGH`.

    Raises:
        DataError: It cannot be converted; the message names the node.
    """
    before = opset(model)
    if before >= OPSET:
        return model
    model.ir_version = max(model.ir_version, onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", OPSET)]))
    try:
        model = version_converter.convert_version(model, OPSET)
    except Exception as error:
        if before >= _ENOUGH:
            return model
        raise DataError(
            f"{path}: opset {before} cannot be converted to {OPSET}: {_at_fault(model)} ({_short(error)}); export the "
            f"network with opset {_ENOUGH} or newer"
        ) from error
    if before < _FIRST_WITH_COORDINATES:
        # The converter leaves Resize its default, half pixels; until then it counted from the first pixel's corner.
        for node in every_node(model.graph):
            if node.op_type == "Resize":
                kept = [each for each in node.attribute if each.name == "mode"]
                del node.attribute[:]
                node.attribute.extend(kept)
                for name, value in (("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")):
                    node.attribute.append(onnx.helper.make_attribute(name, value))
    return model


def _at_fault(model: onnx.ModelProto) -> str:
    """The first node that the converter does not take by itself."""
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except Exception:
        inferred = model.graph
    values = {value.name: value for value in (*inferred.value_info, *inferred.input, *inferred.output)}
    for node in model.graph.node:
        inputs = [
            values.get(name) or onnx.ValueInfoProto(name=name) for name in node.input if name and name not in known
        ]
        outputs = [values.get(name) or onnx.ValueInfoProto(name=name) for name in node.output if name]
        weights = [known[name] for name in node.input if name in known]
        alone = onnx.helper.make_graph([node], "alone", inputs, outputs, weights)
        trial = onnx.helper.make_model(alone, opset_imports=model.opset_import, ir_version=model.ir_version)
        try:
            version_converter.convert_version(trial, OPSET)
        except Exception:
            return f"node {one_line(node.name)} ({one_line(node.op_type)})"
    return "its nodes together"


def _short(error: Exception) -> str:
    text = re.sub(r"^(.*? failed: |.*?\] )", "", one_line(error))  # without places in the converter's sources
    return text[:200]
