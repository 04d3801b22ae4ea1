"""A network between the ends that a bundle's front graph has: `image` in, `logits` and `error_logit` out.

`errseg_rt.bundle.contract` says what these are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from errseg_rt.export.engines.nodes import every_node
from errseg_rt.export.wrap.convert import converted
from errseg_rt.export.wrap.ends import grid_of, stride_of_pixels
from errseg_rt.export.wrap.graph import Builder, free_name, prune, rename, tensor_names
from errseg_rt.export.wrap.looks import Input, Looks, resolved
from errseg_rt.export.wrap.meaning import Meaning
from errseg_rt.export.wrap.probe import with_outputs
from errseg_rt.export.wrap.reading import opset

_OURS = "errseg_rt/"
_NAMES = ("image", "logits", "error_logit")
_LUMA = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601, as OpenCV has them
_SURE = 20.0  # the logit of a label: the others have 2e-9 of it together
_LOWEST = -1e30
_LEAST = float(np.finfo(np.float32).tiny)  # of a probability, so that its logarithm is finite
_LEAST_OTHER = 2.0**-24  # likewise of 1 - p, which is no finer


def front_graph(
    model: onnx.ModelProto, path: Path, looks: Looks, meaning: Meaning, classes: int, stride: int
) -> onnx.ModelProto:
    """The front graph of a network.

    Args:
        model: As `load_model` gives it; stays as it is.
        path: Its file, for messages.
        looks: What was read of it.
        meaning: What its kept tensor means.
        classes: How many classes there are.
        stride: Of the grid.

    Returns:
        A model whose outputs are `logits`, `[1, classes, h, w]`, and, unless all there is are labels, `error_logit`,
        `[1, 1, h, w]`. Tensors of the network keep their names, but for those that are the front graph's.

    Raises:
        DataError: Its operators cannot be converted to ones of today.
    """
    model = with_outputs(model, [looks.ends.tensor])
    prune(model.graph)
    del model.graph.value_info[:]
    model = converted(model, path)
    graph = model.graph
    taken = tensor_names(graph) | set(_NAMES)
    names = {name: free_name(f"{name}_", taken) for name in _NAMES if name in tensor_names(graph)}
    rename(graph, names)
    kept = names.get(looks.ends.tensor, looks.ends.tensor)
    entry = names.get(looks.input.name, looks.input.name)

    taken |= {node.name for node in every_node(graph)}
    head = Builder(f"{_OURS}in/", taken, opset(model))
    _image_to(head, entry, looks.input)
    foot = Builder(f"{_OURS}out/", taken, opset(model))
    in_order = _on_grid(foot, _ordered(foot, kept, looks), looks, stride)
    _logits_of(foot, in_order, meaning, classes)
    outputs = ["logits"]
    if meaning.kind != "labels":
        _error_logit(foot, classes)
        outputs.append("error_logit")

    for part in (graph, foot.graph):
        head.graph.node.extend(part.node)
        head.graph.initializer.extend(part.initializer)
    del graph.node[:], graph.initializer[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(head.graph.node)
    graph.initializer.extend(head.graph.initializer)
    _declare(graph, looks, classes, stride, outputs)
    graph.name = "front"
    return model


def _image_to(head: Builder, entry: str, given: Input) -> None:
    """From `image`, float32 `[1, 3, H, W]`, to what the network takes."""
    name = "image"
    if given.channels == 1:
        name = head.node("Conv", [name, head.constant(np.reshape(_LUMA, (1, 3, 1, 1)), np.float32)])
    if given.dtype.kind in "iu":
        limits = np.iinfo(given.dtype)
        low, high = max(0, limits.min), min(255, limits.max)
        name = head.node("Round", [name])
        name = head.node("Clip", [name, head.constant(low, np.float32), head.constant(high, np.float32)])
    if given.dtype != np.float32:
        name = head.node("Cast", [name], to=onnx.helper.np_dtype_to_tensor_dtype(given.dtype))
    if given.batch and given.batch > 1:
        name = head.node("Concat", [name] * given.batch, axis=0)
    if given.layout.endswith("C"):
        name = head.node("Transpose", [name], perm=[0, 2, 3, 1])
    if "N" in given.layout:
        head.node("Identity", [name], entry)
    else:
        head.node("Squeeze", [name, head.constant([0], np.int64)], entry)


def _ordered(foot: Builder, name: str, looks: Looks) -> str:
    """The kept tensor as `[1, channels, h, w]`, or of as many frames as go in."""
    roles, given = looks.ends.roles, looks.input
    if "P" in roles:
        at = roles.index("P")
        pixels = looks.grid[0] * looks.grid[1]
        height, width = grid_of(looks.size, stride_of_pixels(pixels, looks.size) or 1)
        shape = [0] * at + [height, width] + [0] * (len(roles) - at - 1)
        shape = [
            looks.channels if role == "K" else side for role, side in zip(roles.replace("P", "HW"), shape, strict=True)
        ]
        name = foot.node("Reshape", [name, foot.constant(shape, np.int64)])
        roles = roles.replace("P", "HW")
    roles = resolved(roles)
    if "1" in roles:
        axes = [axis for axis, role in enumerate(roles) if role == "1"]
        name = foot.node("Squeeze", [name, foot.constant(axes, np.int64)])
        roles = roles.replace("1", "")
    order = [roles.index(role) for role in "NKHW" if role in roles]
    if order != sorted(order):
        name = foot.node("Transpose", [name], perm=order)
    missing = [axis for axis, role in enumerate("NKHW") if role not in roles]
    if missing:
        name = foot.node("Unsqueeze", [name, foot.constant(missing, np.int64)])
    if given.batch and given.batch > 1:
        ends = (foot.constant([value], np.int64) for value in (0, 1, 0))
        name = foot.node("Slice", [name, *ends])
    return name if looks.dtype == np.float32 else foot.node("Cast", [name], to=TensorProto.FLOAT)


def _on_grid(foot: Builder, name: str, looks: Looks, stride: int) -> str:
    """A map on the grid that the stride makes."""
    if looks.ends.nearest:
        scales = foot.constant([1, 1, *looks.ends.nearest], np.float32)
        ways = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        name = foot.node("Resize", [name, "", scales], **ways)
    if looks.stride != stride:
        sizes = foot.constant([1, looks.channels, *looks.size], np.int64)
        ways = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        name = foot.node("Resize", [name, "", "", sizes], **ways)
    return name


def _logits_of(foot: Builder, name: str, meaning: Meaning, classes: int) -> None:
    """Logits whose softmax are the class probabilities."""
    if meaning.kind == "labels":
        labels = foot.node("Cast", [foot.node("Round", [name])], to=TensorProto.INT64)
        is_class = foot.node("Equal", [labels, foot.constant(np.arange(classes).reshape(1, -1, 1, 1), np.int64)])
        foot.node("Where", [is_class, foot.constant(_SURE, np.float32), foot.constant(0, np.float32)], "logits")
        return
    if meaning.kind == "probabilities":
        taken = foot.node("Log", [foot.node("Max", [name, foot.constant(_LEAST, np.float32)])])
        if meaning.by == "sigmoid":
            rest = foot.node("Sub", [foot.constant(1, np.float32), name])
            rest = foot.node("Log", [foot.node("Max", [rest, foot.constant(_LEAST_OTHER, np.float32)])])
            taken = foot.node("Sub", [taken, rest])
        name = taken
    if meaning.level is None:
        foot.node("Identity", [name], "logits")
        return
    # What no channel exceeds is class 0; a pixel's first channel times 0 has the size that is wanted.
    one = foot.node("Slice", [name, *(foot.constant([value], np.int64) for value in (0, 1, 1))])
    background = foot.node("Mul", [one, foot.constant(0, np.float32)])
    shifted = foot.node("Sub", [name, foot.constant(meaning.level, np.float32)]) if meaning.level else name
    foot.node("Concat", [background, shifted], "logits", axis=1)


def _error_logit(foot: Builder, classes: int) -> None:
    """log((1 - max P) / max P): the others' logits together, less the largest, so that nothing saturates."""
    if classes == 2:
        foot.node("Sub", [foot.reduce("ReduceMin", "logits"), foot.reduce("ReduceMax", "logits")], "error_logit")
        return
    top = foot.node("ArgMax", ["logits"], axis=1, keepdims=1)
    is_top = foot.node("Equal", [top, foot.constant(np.arange(classes).reshape(1, -1, 1, 1), np.int64)])
    others = foot.node("Where", [is_top, foot.constant(_LOWEST, np.float32), "logits"])
    first, second = foot.reduce("ReduceMax", "logits"), foot.reduce("ReduceMax", others)
    powers = foot.node("Exp", [foot.node("Sub", [others, second])])
    rest = foot.node("Log", [foot.reduce("ReduceSum", powers)])
    foot.node("Add", [foot.node("Sub", [second, first]), rest], "error_logit")


def _declare(graph: onnx.GraphProto, looks: Looks, classes: int, stride: int, outputs: list[str]) -> None:
    """Inputs and outputs with their shapes: dynamic where the network's are."""
    given = looks.input
    batch: int | str = "batch" if "N" in given.layout and given.batch is None and looks.ends.roles.find("N") >= 0 else 1
    height, width = (side or name for side, name in zip(given.size, ("height", "width"), strict=True))
    rows, cols = grid_of(looks.size, stride) if given.fixed else ("grid_height", "grid_width")
    image = onnx.helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, height, width])
    graph.input.append(image)
    for name in outputs:
        shape = [batch, classes if name == "logits" else 1, rows, cols]
        graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
