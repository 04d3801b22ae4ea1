"""Which ONNX operators TensorRT's parser takes, from the public list of its repository (docs/operators.md, 10.15).

Without TensorRT's libraries nothing else can be asked; with them the parser itself has the last word.
"""

from __future__ import annotations

import onnx

from errseg_rt.export.engines.nodes import attributes

OPSETS = range(9, 25)
SUPPORTED = {
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "Attention",
    "AveragePool", "BatchNormalization", "BlackmanWindow", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Concat",
    "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "Cosh", "CumSum", "DeformConv", "DepthToSpace",
    "DequantizeLinear", "Div", "Dropout", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten",
    "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization", "GRU", "HammingWindow",
    "HannWindow", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "If", "InstanceNormalization", "IsInf", "IsNaN",
    "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop", "LRN", "LSTM",
    "LpNormalization", "LpPool", "MatMul", "Max", "MaxPool", "Mean", "MeanVarianceNormalization", "Min", "Mish", "Mod",
    "Mul", "Neg", "NonMaxSuppression", "NonZero", "Not", "OneHot", "Or", "Pad", "ParametricSoftplus", "Pow", "PRelu",
    "QuantizeLinear", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "Reciprocal",
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence", "RMSNormalization", "RNN",
    "RoiAlign", "RotaryEmbedding", "Round", "ScaledTanh", "Scan", "Scatter", "ScatterElements", "ScatterND", "Selu",
    "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus", "Softsign",
    "SpaceToDepth", "Split", "Sqrt", "Squeeze", "STFT", "Sub", "Sum", "Tan", "Tanh", "TensorScatter", "ThresholdedRelu",
    "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where", "Xor",
}  # fmt: skip
_RESIZE: dict[str, set[object]] = {
    "mode": {"nearest", "linear"},
    "coordinate_transformation_mode": {
        "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"
    },
    "keep_aspect_ratio_policy": {"stretch"},
    "antialias": {0},
}  # fmt: skip


def refused(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, str]]:
    """The nodes that the parser does not take, each with the reason."""
    opset = next(each.version for each in model.opset_import if not each.domain)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        reason = _reason(node, constants) if opset in OPSETS else f"opset {opset} is not one of 9 to 24"
        if reason:
            found.append((node, reason))
    return found


def _reason(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> str:
    says = attributes(node)
    if node.domain or node.op_type not in SUPPORTED:
        return f"the operator {node.domain or 'ai.onnx'}.{node.op_type} is not supported"
    if node.op_type == "Resize":
        for name, allowed in _RESIZE.items():
            value = says.get(name)
            if value is not None and value not in allowed:
                return f"{name} {value!r} is not supported"
    if node.op_type.startswith("Reduce") and len(node.input) > 1 and node.input[1] and node.input[1] not in constants:
        return "its axes are not a constant"
    if node.op_type.endswith("Pool") and any(each != 1 for each in says.get("dilations", ())):
        return "dilated pooling is not supported"
    if node.op_type in ("MaxPool", "LayerNormalization") and len([name for name in node.output if name]) > 1:
        return "it has more than one output"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
        zero = constants.get(node.input[2])
        if zero is None or zero.data_type != onnx.TensorProto.INT8 or onnx.numpy_helper.to_array(zero).any():
            return "its zero point is not an int8 zero"
    return ""
