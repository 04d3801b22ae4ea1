"""An ONNX file as it is found, old or new, to a model whose inputs are inputs and whose constants are constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from errseg_rt.errors import DataError
from errseg_rt.export.engines.nodes import attributes, every_node
from errseg_rt.export.wrap.graph import constant, name_nodes, sort_nodes
from errseg_rt.system.lines import one_line

_LFS = b"version https://git-lfs"
_OLDEST_OPSET = 7
_MOST_SAID = 200  # characters of what a library says of a file
_LARGEST = 2**31 - 1  # bytes of a message of protobuf
_OTHERS = (
    (0, b"PK\x03\x04", "a zip, as torch.save writes them: weights or modules, no graph; export it by torch.onnx"),
    (0, b"\x80", "a pickle, as torch.save writes them: weights or modules, no graph; export it by torch.onnx"),
    (0, b"\x89HDF", "HDF5, as Keras writes it; convert it by tf2onnx"),
    (0, b"<", "a web page or XML; download the file itself"),
    (0, b"\x1f\x8b", "gzip; unpack it first"),
    (4, b"TFL3", "TensorFlow Lite; convert it by tf2onnx"),
    (4, b"ORTM", "ONNX Runtime's own format; give the .onnx that it was made from"),
)  # fmt: skip
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


def load_model(path: Path) -> onnx.ModelProto:
    """Read a network that somebody exported.

    Its weights are in it, whether they lay beside it or not; what was also listed as an input but is a constant is one;
    functions are inlined, and every node has a name of its own.

    Raises:
        DataError: There is no such file, or it is no ONNX model that can be run here: what it is instead, which file of
            weights is missing, or which node was exported in training mode.
    """
    model = _parse(path)
    try:
        _load_external(model, path)
        model = _flat(model)
        _check_versions(model, path)
        _check_mode(model.graph, path)
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:  # what a damaged file makes of onnx
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: is damaged ({_short(error)}); copy or export it again") from error
    return model


def _flat(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model without functions, whose constants are neither nodes nor inputs, and whose nodes are in order."""
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    graph = model.graph
    sort_nodes(graph)
    _lift_constants(graph)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [
        onnx.ValueInfoProto.FromString(each.SerializeToString()) for each in graph.input if each.name not in constants
    ]
    del graph.input[:]
    graph.input.extend(inputs)
    name_nodes(graph)
    return model


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses."""
    return max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)


def _parse(path: Path) -> onnx.ModelProto:
    try:
        data = path.read_bytes()
    except OSError as error:
        what = "is a folder" if path.is_dir() else f"cannot be read ({error.strerror})"
        raise DataError(f"{path}: {what}; give an .onnx file") from error
    if not data:
        raise DataError(f"{path}: is empty; copy or export it again")
    if data.startswith(_LFS):
        raise DataError(f"{path}: is a Git LFS pointer, not the file itself; run git lfs pull where it comes from")
    for start, mark, what in _OTHERS:
        if data[start : start + len(mark)] == mark:
            raise DataError(f"{path}: is no ONNX file but {what}")
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise DataError(f"{path}: is no ONNX file, or one that is cut short; copy or export it again") from error
    if not model.graph.node or not model.graph.output or not model.opset_import:
        raise DataError(f"{path}: holds no ONNX graph (no nodes, outputs or opset); copy or export it again")
    return model


def _load_external(model: onnx.ModelProto, path: Path) -> None:
    """Take weights that lie in files beside the model into it."""
    tensors = [each for each in model.graph.initializer if each.data_location == onnx.TensorProto.EXTERNAL]
    tensors += [
        each.t
        for node in every_node(model.graph)
        for each in node.attribute
        if each.type == onnx.AttributeProto.TENSOR and each.t.data_location == onnx.TensorProto.EXTERNAL
    ]
    size = 0
    for tensor in tensors:
        entries = {each.key: each.value for each in tensor.external_data}
        file = path.parent / entries.get("location", "")
        if Path(entries.get("location", "")).is_absolute() or ".." in Path(entries.get("location", "")).parts:
            raise DataError(f"{path}: its weights are to lie outside its folder ({file}), which is not read")
        if not file.is_file():
            raise DataError(f"{path}: its weights lie in {file.name}, which is not beside it; copy both files")
        end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        if file.stat().st_size < end:
            with file.open("rb") as start:
                is_pointer = start.read(len(_LFS)) == _LFS
            what = "is a Git LFS pointer; run git lfs pull" if is_pointer else "is cut short; copy it again"
            raise DataError(f"{file}: the weights of {path.name}: the file {what}")
        size += end - int(entries.get("offset", 0))
    if size > _LARGEST:
        raise DataError(f"{path}: has {size:,} bytes of weights, more than the 2 GiB that one ONNX file may hold")
    if tensors:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Nodes that make a constant become constants of the graph."""
    nodes = []
    for node in graph.node:
        value = _constant_of(node) if node.op_type == "Constant" else None
        if value is None:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
        else:
            value.name = node.output[0]
            graph.initializer.append(value)
    del graph.node[:]
    graph.node.extend(nodes)


def _constant_of(node: onnx.NodeProto) -> Any:
    """The tensor that a node makes of nothing; None where it is no tensor of numbers."""
    (attribute,) = node.attribute
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return onnx.TensorProto.FromString(value.SerializeToString())
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return numpy_helper.from_array(np.asarray(value, kinds[attribute.name])) if attribute.name in kinds else None


def _check_versions(model: onnx.ModelProto, path: Path) -> None:
    newest, version = onnx.defs.onnx_opset_version(), opset(model)
    if version > newest or model.ir_version > onnx.IR_VERSION:
        raise DataError(
            f"{path}: opset {version}, IR version {model.ir_version}: the installed onnx {onnx.__version__} knows them "
            f"up to {newest} and {onnx.IR_VERSION}; upgrade onnx and onnxruntime, or export with an older opset"
        )
    if version < _OLDEST_OPSET:
        raise DataError(f"{path}: opset {version}, older than {_OLDEST_OPSET}; export it with a newer one")
    known = {each.domain for each in model.opset_import}
    for node in every_node(model.graph):
        where = f"{path}: node {one_line(node.name)} ({one_line(node.op_type)})"
        if node.domain in ("", "ai.onnx"):
            try:
                is_there = not onnx.defs.get_schema(node.op_type, version).deprecated or version < newest
            except onnx.defs.SchemaError:
                is_there = False
            if not is_there:
                raise DataError(f"{where} is no operator of opset {version}; export the network without it")
        elif node.domain not in known:
            raise DataError(f"{where} is of the domain {one_line(node.domain)}, which the file does not declare")


def _check_mode(graph: onnx.GraphProto, path: Path) -> None:
    """Raise DataError where a node computes as in training: by the batch's statistics, or at random."""
    for node in every_node(graph):
        says = attributes(node)
        trains = node.op_type in _RANDOM
        if node.op_type == "BatchNormalization":
            trains = bool(says.get("training_mode", 0)) or len([name for name in node.output if name]) > 1
        elif node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            mode = constant(graph, node.input[2])
            trains = mode is None or bool(mode)
        if trains:
            raise DataError(
                f"{path}: the network is in training mode (node {one_line(node.name)}, {node.op_type}); "
                "call eval() on it before it is exported"
            )


def _short(error: Exception) -> str:
    text = one_line(error)
    return text if len(text) < _MOST_SAID else f"{text[:_MOST_SAID]}..."
