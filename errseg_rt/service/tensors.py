"""Requests and answers of the Open Inference Protocol, with tensors as JSON numbers or as raw bytes behind the JSON.

https://github.com/kserve/open-inference-protocol, and Triton's extension `binary_tensor_data`.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.service.limits import check_aspect
from errseg_rt.service.refusal import RefusalError
from errseg_rt.system.json_text import parse_json

INPUT = "frame"
OUTPUTS: Mapping[str, str] = {
    "labels": "UINT8",
    "error_map": "FP32",
    "flagged": "BOOL",
    "semantic_labels": "UINT8",
    "semantic_error_map": "FP32",
    "confidence": "FP32",
}
"""Outputs, all `[H, W]`, and their types."""
ERROR_MAPS = ("error_map", "semantic_error_map")
"""Those of a bundle that has an error map."""
USUAL = ("labels", "error_map")
"""Outputs of a request that names none."""
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "UINT8": np.dtype(np.uint8),
    "FP32": np.dtype("<f4"),
    "BOOL": np.dtype(np.bool_),
}
_LIMITS = ("threshold", "budget", "deadline_ms")
_WINDOWS = {"gzip": 31, "deflate": 47}  # bits of zlib's window; with 32 more it tells zlib and gzip apart by itself
_JSON = 16 << 20  # bytes


@dataclass(frozen=True, eq=False)
class Inference:
    """A request.

    Attributes:
        frame: `uint8 [H, W, 3]`.
        color: Its channel order.
        asked: Names of the outputs, each with whether it comes as bytes.
        limits: Threshold, budget, deadline_ms, where they are given.
        id: What the client calls it.
    """

    frame: npt.NDArray[np.uint8]
    color: str = "bgr"
    asked: Mapping[str, bool] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    id: str | None = None


def inflated(body: bytes, encoding: str, most: int) -> bytes:
    """A body without its compression.

    Raises:
        RefusalError: The compression is unknown (415), damaged (400), or hides more than `most` bytes (413).
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOWS:
        raise RefusalError(415, f"Content-Encoding {name} is not known; send gzip, deflate or none")
    unpack = zlib.decompressobj(_WINDOWS[name])
    try:
        data = unpack.decompress(body, most + 1)
    except zlib.error as error:
        raise RefusalError(400, f"the body is no {name} ({error})") from None
    if len(data) > most:
        raise RefusalError(413, f"the body unpacks to more than the limit of {most} bytes")
    if not unpack.eof:
        raise RefusalError(400, f"the body is {name} that breaks off")
    return data


def parsed(body: bytes, header_length: str | None, max_pixels: int) -> Inference:
    """A request as its body says.

    Args:
        body: JSON, with tensors as bytes behind it.
        header_length: Bytes of the JSON, as the header Inference-Header-Content-Length says; None: all.
        max_pixels: Largest height times width of a frame.

    Raises:
        RefusalError: It is none (400), or too large (413).
    """
    length = len(body)
    if header_length is not None:
        if not header_length.isascii() or not header_length.isdigit() or int(header_length) > len(body):
            raise RefusalError(400, f"Inference-Header-Content-Length must be in 0..{len(body)}, the body's length")
        length = int(header_length)
    if length > _JSON:
        raise RefusalError(413, f"the JSON is over the limit of {_JSON} bytes; send tensors as bytes")
    try:
        request = parse_json(body[:length])
    except ValueError as error:
        raise RefusalError(400, f"the request is no JSON ({error})") from None
    if not isinstance(request, dict):
        raise RefusalError(400, "the request is a JSON object")
    parameters = _parameters(request, "the request")
    frame = _frame(request.get("inputs"), body[length:], max_pixels)
    color = parameters.get("color", "bgr")
    if color not in ("bgr", "rgb"):
        raise RefusalError(400, f"parameters.color is bgr or rgb, got {color!r}")
    limits = {name: parameters[name] for name in _LIMITS if name in parameters}
    identity = request.get("id")
    if not isinstance(identity, (str, type(None))):
        raise RefusalError(400, "id is a text")
    return Inference(frame, color, _asked(request.get("outputs"), parameters), limits, identity)


def composed(request: Inference, result: Segmentation, model: str) -> tuple[bytes, int | None]:
    """The answer to a request: its body, and how many bytes of that are JSON, where others follow.

    Raises:
        RefusalError: An output that the bundle has not is asked for (400).
    """
    outputs, parts = [], []
    for name, is_binary in request.asked.items():
        tensor = _output(name, result)
        shown: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": list(tensor.shape)}
        if is_binary:
            data = np.ascontiguousarray(tensor, _DTYPES[OUTPUTS[name]]).tobytes()
            shown["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            shown["data"] = tensor.ravel().tolist()
        outputs.append(shown)
    answer: dict[str, Any] = {"model_name": model, "model_version": "1", "outputs": outputs}
    if request.id is not None:
        answer["id"] = request.id
    answer["parameters"] = {"flagged_share": result.flagged_share, "left_out": result.left_out, "work": result.work}
    if result.expected_error is not None:
        answer["parameters"]["mean_error_probability"] = result.expected_error
    text = json.dumps(answer, allow_nan=False).encode()
    return b"".join([text, *parts]), len(text) if parts else None


def _parameters(holder: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RefusalError(400, f"parameters of {where} are a JSON object")
    return parameters


def _frame(inputs: Any, behind: bytes, max_pixels: int) -> npt.NDArray[np.uint8]:
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RefusalError(400, f"inputs are a list of one tensor, {INPUT}")
    given = inputs[0]
    if (given.get("name"), given.get("datatype")) != (INPUT, "UINT8"):
        raise RefusalError(
            400, f"the input is {INPUT} of UINT8, got {given.get('name')!r} of {given.get('datatype')!r}"
        )
    shape = given.get("shape")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
        raise RefusalError(400, f"the shape of {INPUT} is [height, width, 3], got {shape!r}")
    if shape[2] != 3:
        raise RefusalError(400, f"{INPUT} has 3 channels, got {shape[2]}")
    if shape[0] * shape[1] > max_pixels:
        raise RefusalError(413, f"{INPUT} has {shape[0]}x{shape[1]} pixels, over the limit of {max_pixels}; shrink it")
    check_aspect(*shape[:2])
    size = math.prod(shape)
    count = _parameters(given, INPUT).get("binary_data_size")
    if count is None:
        return _numbers(given.get("data"), size).reshape(shape)
    if count != size or len(behind) != size:
        raise RefusalError(
            400,
            f"{INPUT} of {shape} has {size} bytes; binary_data_size is {count!r}, and {len(behind)} follow the JSON",
        )
    return np.frombuffer(behind, np.uint8).reshape(shape)


def _numbers(data: Any, size: int) -> npt.NDArray[np.uint8]:
    """A tensor of JSON numbers, flat or nested."""
    try:
        numbers = np.asarray(data)
    except ValueError:
        raise RefusalError(400, f"the data of {INPUT} are lists of unequal length") from None
    if numbers.size != size or numbers.dtype.kind not in "iu":
        raise RefusalError(400, f"the data of {INPUT} are {size} whole numbers, as its shape says")
    if numbers.min() < 0 or numbers.max() > 255:
        raise RefusalError(400, f"the data of {INPUT} are in 0..255")
    return numbers.astype(np.uint8)


def _asked(outputs: Any, parameters: Mapping[str, Any]) -> dict[str, bool]:
    usual = parameters.get("binary_data_output", False) is True
    if outputs is None:
        return dict.fromkeys(USUAL, usual)
    if not isinstance(outputs, list) or not all(isinstance(each, dict) for each in outputs):
        raise RefusalError(400, "outputs are a list of JSON objects")
    asked = {}
    for each in outputs:
        name = each.get("name")
        if not isinstance(name, str) or name not in OUTPUTS:
            raise RefusalError(400, f"there is no output {name!r}; there are {', '.join(OUTPUTS)}")
        asked[name] = _parameters(each, name).get("binary_data", usual) is True
    return asked


def _output(name: str, result: Segmentation) -> npt.NDArray[Any]:
    if name == "labels":
        return result.labels
    if name == "flagged":
        return result.flagged_map()
    if name in ERROR_MAPS:
        if result.error_probability is None:
            raise RefusalError(400, f"there is no output {name}: the bundle's network gives labels alone")
        return result.error_map() if name == "error_map" else result.semantic_error_map()
    tensor = result.semantic_labels if name == "semantic_labels" else result.confidence
    assert tensor is not None
    return tensor


def metadata(model: str, outputs: Sequence[str]) -> dict[str, Any]:
    """What `/v2/models/M` says."""
    return {
        "name": model,
        "versions": ["1"],
        "platform": "errseg-rt",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, 3]}],
        "outputs": [{"name": name, "datatype": OUTPUTS[name], "shape": [-1, -1]} for name in outputs],
    }


def config(model: str, outputs: Sequence[str]) -> dict[str, Any]:
    """What `/v2/models/M/config` says, in the form of Triton."""
    return {
        "name": model,
        "platform": "errseg-rt",
        "backend": "errseg-rt",
        "max_batch_size": 0,
        "input": [{"name": INPUT, "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]}],
        "output": [{"name": name, "data_type": f"TYPE_{OUTPUTS[name]}", "dims": [-1, -1]} for name in outputs],
    }
