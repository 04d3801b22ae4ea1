"""Small networks in ONNX files, in the forms that users have: random weights, and ends of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FLOATS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}
INTS = {"uint8": TensorProto.UINT8, "int32": TensorProto.INT32, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
SIZE = (96, 128)


class Net:
    """A network that is written node by node.

    Args:
        classes: Channels of its logits.
        stride: Of its grid, a power of two.
        size: Rows and columns of its input; None: any.
        batch: Frames; None: any number.
        channels: Of its input.
        dtype: What it computes in.
        takes: What its input is, where that differs.
        by_pixel: Whether its input has the channels last.
        opset: Its version of the operators.
        image: The input's name.
        shift: Added to the logits of all but the first class.
    """

    def __init__(
        self,
        classes: int = 5,
        stride: int = 1,
        *,
        size: tuple[int, int] | None = SIZE,
        batch: int | None = None,
        channels: int = 3,
        dtype: str = "float32",
        takes: str | None = None,
        by_pixel: bool = False,
        opset: int = 17,
        image: str = "input",
        seed: int = 0,
    ) -> None:
        self.opset, self.dtype, self.classes = opset, dtype, classes
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(seed)
        height, width = size or ("H", "W")
        sides = [batch or "N", height, width, channels] if by_pixel else [batch or "N", channels, height, width]
        kind = {**FLOATS, **INTS}[takes or dtype]
        self.inputs = [helper.make_tensor_value_info(image, kind, sides)]
        self.at = image
        if takes and takes != dtype:
            self.add("Cast", to=FLOATS[dtype])
        if takes in INTS:
            self.add("Mul", self.weight(1 / 64)).add("Sub", self.weight(2))
        if by_pixel:
            self.add("Transpose", perm=[0, 3, 1, 2])
        self._body(channels, stride)

    def _body(self, channels: int, stride: int) -> None:
        blur = np.zeros((6, channels, 5, 5))
        blur += self.rng.normal(size=(6, channels, 1, 1)) / 5
        self.add("Conv", self.weight(blur), pads=[2] * 4, kernel_shape=[5, 5])
        while stride > 1:
            self.add("Conv", self.weight(self.rng.normal(size=(6, 6, 3, 3)) / 3), pads=[1] * 4, strides=[2, 2])
            stride //= 2
        self.add("Sigmoid")
        last = self.rng.normal(size=(self.classes, 6, 1, 1)) * 6
        self.add("Conv", self.weight(last), self.weight(-last.sum(axis=(1, 2, 3)) / 2))  # even where all is even
        self.logits = self.at

    def weight(self, values: npt.ArrayLike, dtype: str | None = None) -> str:
        """A constant; its name."""
        array = np.asarray(values).astype(dtype or self.dtype)
        self.weights.append(numpy_helper.from_array(array, f"w/{len(self.weights)}:0"))
        return self.weights[-1].name

    def add(self, op: str, *inputs: str, of: str | None = None, to_name: str | None = None, **attributes: Any) -> Net:
        """A node behind the last one."""
        name = to_name or f"t/{len(self.nodes)}:0"
        self.nodes.append(helper.make_node(op, [of or self.at, *inputs], [name], "", **attributes))
        self.at = name
        return self

    def resize(self, factor: float, mode: str = "linear", way: str | None = "half_pixel", **attributes: Any) -> Net:
        """Enlarge rows and columns."""
        scales = self.weight([1, 1, factor, factor], "float32")
        if self.opset < 9:
            return self.add("Upsample", mode=mode, scales=[1.0, 1.0, factor, factor])
        if self.opset < 11:
            return self.add("Upsample" if self.opset < 10 else "Resize", scales, mode=mode)
        if way is not None:
            attributes["coordinate_transformation_mode"] = way
        return self.add("Resize", "", scales, mode=mode, **attributes)

    def to_size(self, size: tuple[int, int], channels: int, way: str, mode: str = "linear") -> Net:
        """Bring rows and columns to a size."""
        sizes = self.weight([1, channels, *size], "int64")
        return self.add("Resize", "", "", sizes, mode=mode, coordinate_transformation_mode=way)

    def cast(self, kind: str) -> Net:
        return self.add("Cast", to={**FLOATS, **INTS}[kind])

    def squeeze(self, axis: int, op: str = "Squeeze") -> Net:
        if self.opset < 13:
            return self.add(op, axes=[axis])
        return self.add(op, self.weight([axis], "int64"))

    def model(self, *outputs: str, name: str | None = None) -> onnx.ModelProto:
        """The model; its output is the last node's, or these."""
        if name:
            self.add("Identity", to_name=name)
        graph = helper.make_graph(self.nodes, "g", self.inputs, [], self.weights)
        graph.output.extend(onnx.ValueInfoProto(name=each) for each in outputs or (self.at,))
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=max(4, helper.find_min_ir_version_for(opsets))
        )
        inferred = onnx.shape_inference.infer_shapes(model)
        known = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
        for value in model.graph.output:
            value.CopyFrom(known[value.name])
        return model

    def save(self, path: Path, *outputs: str, name: str | None = None) -> Path:
        """Write it; its path."""
        path.write_bytes(self.model(*outputs, name=name).SerializeToString())
        return path


def run(path: Path, image: npt.NDArray[Any], output: int | str = 0) -> npt.NDArray[Any]:
    """An output of the untouched file, on `[1, 3, H, W]` in what it takes, whatever its axes and batch."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = next(each for each in session.get_inputs() if len(each.shape) == 4)
    if given.shape[-1] in (1, 3) and given.shape[1] not in (1, 3):
        image = image.transpose(0, 2, 3, 1)
    if isinstance(given.shape[0], int):
        image = np.repeat(image, given.shape[0], axis=0)
    name = output if isinstance(output, str) else session.get_outputs()[output].name
    return np.asarray(session.run([name], {given.name: image})[0])
