"""A bundle of a semantic network alone, as wrapping a file gives one: a small graph, written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from errseg_rt.bundle.bundle import Bundle, write_bundle
from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import CAMVID
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.bundle.manifest import Manifest

STRIDE = 8
KNOTS = np.linspace(-8, 8, 33)


def front_graph(classes: int = 11, *, errors: bool = True, size: tuple[int, int] | None = None) -> bytes:
    """Logits by a strided convolution, and the error logit of their largest softmax."""
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(classes, 3, STRIDE, STRIDE)).astype(np.float32)
    sides = size or ("H", "W")
    grid = tuple(side // STRIDE for side in size) if size else ("h", "w")
    nodes = [helper.make_node("Conv", ["image", "weight"], ["logits"], "conv", strides=[STRIDE, STRIDE])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes, *grid])]
    weights = [numpy_helper.from_array(weight, "weight")]
    if errors:
        weights.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
        weights.append(numpy_helper.from_array(np.array(1e-30, np.float32), "least"))
        weights.append(numpy_helper.from_array(np.array(1, np.float32), "one"))
        nodes += [
            helper.make_node("ReduceMax", ["logits", "axis"], ["top"], "max"),
            helper.make_node("Sub", ["logits", "top"], ["shifted"], "shift"),
            helper.make_node("Exp", ["shifted"], ["powers"], "exp"),
            helper.make_node("ReduceSum", ["powers", "axis"], ["total"], "sum"),
            helper.make_node("Sub", ["total", "one"], ["others"], "others"),
            helper.make_node("Clip", ["others", "least"], ["clipped"], "clip"),
            helper.make_node("Log", ["clipped"], ["error_logit"], "log"),
        ]
        outputs.append(helper.make_tensor_value_info("error_logit", TensorProto.FLOAT, ["N", 1, *grid]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, *sides])
    graph = helper.make_graph(nodes, "front", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def wrapped_bundle(folder: Path, *, errors: bool = True, spec: InputSpec | None = None, **changes: Any) -> Bundle:
    """A bundle of it in a folder."""
    probabilities = 1 / (1 + np.exp(-KNOTS))
    spec = spec or InputSpec(multiple=STRIDE)
    settings: dict[str, Any] = {
        "name": folder.name,
        "classes": CAMVID,
        "input": spec,
        "align_corners": False,
        "threshold": 0.5,
        "lowest_threshold": 0.5,
        "calibration": Calibration(tuple(KNOTS.tolist()), tuple(probabilities.tolist())),
        "cascade": {"semantic": "onnx"},
        "grid_stride": STRIDE,
        "error": "max_softmax" if errors else "none",
        "is_calibrated": False,
        "has_detail": False,
        **changes,
    }
    graph = front_graph(len(settings["classes"]), errors=errors, size=spec.size)
    return write_bundle(folder, Manifest(**settings), {"graphs/front.onnx": graph})
