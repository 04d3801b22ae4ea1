"""A graph made simpler by ONNX Runtime, so that int8 and half precision find plain convolutions.

Constants are folded, and so are norms into the convolutions before them. ONNX Runtime does as much whenever it loads a
graph; other engines, the quantiser, and `errseg_rt.export.engines.precision` see the graph as it stands in the bundle.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime

from errseg_rt.export.engines.nodes import every_node
from errseg_rt.export.wrap.graph import name_nodes

_SILENT = 4
_OWN = ("", "ai.onnx")


def tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A simpler model of the same function; the same one where ONNX Runtime made operators of its own."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with TemporaryDirectory() as folder:
        path = Path(folder) / "front.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        simpler = onnx.load_model_from_string(path.read_bytes())
    domains = {each.domain for each in model.opset_import}
    used = {node.domain for node in every_node(simpler.graph)}
    if not used <= domains | set(_OWN):
        return model
    opsets = [each for each in simpler.opset_import if each.domain in domains | {""}]
    opsets = [onnx.helper.make_opsetid(each.domain, each.version) for each in opsets]
    del simpler.opset_import[:]
    simpler.opset_import.extend(opsets)
    simpler.ir_version = model.ir_version
    name_nodes(simpler.graph)
    return simpler
