"""The Open Inference Protocol, as it is written and as Triton's own client speaks it."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest

from errseg_rt.runtime import Runtime
from errseg_rt.service import tensors
from tests.service.serving import Serving
from tests.service.test_segment import refused

INFER = "/v2/models/camvid/infer"
LENGTH = "Inference-Header-Content-Length"


def body_of(frame: np.ndarray, request: dict | None = None, **tensor) -> tuple[bytes, dict[str, str]]:
    """A request with its frame as bytes, and its headers."""
    given = {"name": "frame", "datatype": "UINT8", "shape": list(frame.shape)}
    given |= {"parameters": {"binary_data_size": frame.nbytes}, **tensor}
    text = json.dumps({"inputs": [given], **(request or {})}).encode()
    return text + frame.tobytes(), {LENGTH: str(len(text))}


def read(answer) -> dict[str, np.ndarray]:
    """Outputs of an answer."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(LENGTH, len(answer.content)))
    told, behind = json.loads(answer.content[:length]), answer.content[length:]
    found = {}
    for each in told["outputs"]:
        dtype = {"UINT8": np.uint8, "FP32": np.float32, "BOOL": bool}[each["datatype"]]
        if "data" in each:
            values = np.array(each["data"], dtype)
        else:
            size = each["parameters"]["binary_data_size"]
            values, behind = np.frombuffer(behind[:size], dtype), behind[size:]
        found[each["name"]] = values.reshape(each["shape"])
    assert not behind
    return found


def test_what_there_is(client) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data", "model_configuration"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/camvid", "/v2/models/camvid/versions/1"):
        told = client.get(path).json()
        assert told["inputs"] == [{"name": "frame", "datatype": "UINT8", "shape": [-1, -1, 3]}]
        assert {each["name"] for each in told["outputs"]} == set(tensors.OUTPUTS)
        assert client.get(f"{path}/ready").json()["ready"] is True
        assert client.get(f"{path}/config").json()["max_batch_size"] == 0
    for path in ("/v2/models/other", "/v2/models/camvid/versions/2", "/v2/models/other/config", "/v2/nothing"):
        refused(client.get(path), 404)


@pytest.mark.parametrize("is_binary", [True, False], ids=["bytes", "numbers"])
def test_every_output(client, runtime: Runtime, frame, is_binary) -> None:
    frame = frame[:33, :57]
    want = runtime.segment(frame, confidence=True, semantic=True, threshold=0.4)
    request = {"id": "one", "parameters": {"threshold": 0.4, "binary_data_output": is_binary}}
    request["outputs"] = [{"name": name} for name in tensors.OUTPUTS]
    body, headers = body_of(frame, request)
    answer = client.post(INFER, content=body, headers=headers)
    found = read(answer)
    np.testing.assert_array_equal(found["labels"], want.labels)
    np.testing.assert_array_equal(found["semantic_labels"], want.semantic_labels)
    np.testing.assert_array_equal(found["flagged"], want.flagged_map())
    np.testing.assert_allclose(found["error_map"], want.error_map(), rtol=1e-6)
    np.testing.assert_allclose(found["semantic_error_map"], want.semantic_error_map(), rtol=1e-6)
    np.testing.assert_allclose(found["confidence"], want.confidence, rtol=1e-6)
    assert (LENGTH in answer.headers) == is_binary
    told = json.loads(answer.content[: int(answer.headers.get(LENGTH, len(answer.content)))])
    assert (told["id"], told["model_name"]) == ("one", "camvid")
    assert told["parameters"]["flagged_share"] == pytest.approx(want.flagged_share)


@pytest.mark.parametrize("shape", ["flat", "nested"])
def test_numbers_and_the_usual_outputs(client, runtime: Runtime, frame, shape) -> None:
    frame = np.ascontiguousarray(frame[:20, :30])
    data = frame.ravel().tolist() if shape == "flat" else frame.tolist()
    given = {"name": "frame", "datatype": "UINT8", "shape": [20, 30, 3], "data": data}
    found = read(client.post(INFER, json={"inputs": [given], "parameters": {"color": "rgb"}}))
    assert set(found) == set(tensors.USUAL)
    np.testing.assert_array_equal(found["labels"], runtime.segment(frame, color="rgb").labels)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_requests_that_are_packed(client, runtime: Runtime, frame, encoding, pack) -> None:
    body, headers = body_of(frame, {"outputs": [{"name": "labels", "parameters": {"binary_data": True}}]})
    found = read(client.post(INFER, content=pack(body), headers={**headers, "Content-Encoding": encoding}))
    np.testing.assert_array_equal(found["labels"], runtime.segment(frame).labels)


FRAME = np.zeros((4, 5, 3), np.uint8)
GOOD = {"name": "frame", "datatype": "UINT8", "shape": [4, 5, 3], "data": [0] * 60}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"{", "the request is no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "the request is a JSON object"),
        (b"{}", "inputs are a list of one tensor"),
        (b'{"inputs": [1]}', "inputs are a list of one tensor"),
        ({"inputs": [GOOD, GOOD]}, "inputs are a list of one tensor"),
        ({"inputs": [{**GOOD, "name": "x"}]}, "the input is frame of UINT8"),
        ({"inputs": [{**GOOD, "datatype": "FP32"}]}, "the input is frame of UINT8"),
        ({"inputs": [{**GOOD, "shape": [4, 5]}]}, "the shape of frame is [height, width, 3]"),
        ({"inputs": [{**GOOD, "shape": [4, -5, 3]}]}, "the shape of frame"),
        ({"inputs": [{**GOOD, "shape": [4, True, 3]}]}, "the shape of frame"),
        ({"inputs": [{**GOOD, "shape": [4, 5, 4]}]}, "frame has 3 channels, got 4"),
        ({"inputs": [{**GOOD, "data": [0] * 59}]}, "60 whole numbers"),
        ({"inputs": [{**GOOD, "data": [[0], [0, 0]]}]}, "frame are"),
        ({"inputs": [{**GOOD, "data": [0.5] * 60}]}, "whole numbers"),
        ({"inputs": [{**GOOD, "data": [256] * 60}]}, "in 0..255"),
        ({"inputs": [{**GOOD, "data": [10**30] * 60}]}, "frame are"),
        ({"inputs": [{**GOOD, "data": None}]}, "whole numbers"),
        ({"inputs": [{**GOOD, "parameters": 3}]}, "parameters of frame"),
        ({"inputs": [GOOD], "parameters": []}, "parameters of the request"),
        ({"inputs": [GOOD], "parameters": {"color": "hsv"}}, "bgr or rgb"),
        ({"inputs": [GOOD], "parameters": {"threshold": 7}}, "threshold must lie between 0 and 1"),
        ({"inputs": [GOOD], "parameters": {"threshold": "high"}}, "threshold must be a number"),
        ({"inputs": [GOOD], "parameters": {"budget": 0.1, "deadline_ms": 5}}, "give one of them"),
        ({"inputs": [GOOD], "outputs": [{"name": "depth"}]}, "there is no output 'depth'; there are labels"),
        ({"inputs": [GOOD], "outputs": "labels"}, "outputs are a list"),
        ({"inputs": [GOOD], "id": 5}, "id is a text"),
        ({"inputs": [{**GOOD, "data": None, "parameters": {"binary_data_size": 60}}]}, "0 follow the JSON"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_requests_that_are_none(client, request_, words) -> None:
    body = request_ if isinstance(request_, bytes) else json.dumps(request_).encode()
    refused(client.post(INFER, content=body), 400, words)


def test_bytes_that_do_not_fit(client) -> None:
    body, headers = body_of(FRAME)
    refused(client.post(INFER, content=body[:-1], headers=headers), 400, "59 follow the JSON")
    refused(client.post(INFER, content=body + b"x", headers=headers), 400, "61 follow the JSON")
    body, headers = body_of(FRAME, parameters={"binary_data_size": -1})
    refused(client.post(INFER, content=body, headers=headers), 400, "binary_data_size is -1")
    for length in ("-1", "x", "1e9", "99999999", "²"):
        headers = {LENGTH: length.encode("latin-1")}
        refused(client.post(INFER, content=body, headers=headers), 400, "Inference-Header-Content-Length must be in")


def test_a_frame_that_is_too_large(client) -> None:
    for shape, status in (([5000, 5000, 3], 413), ([2**40, 2**40, 3], 413), ([1, 10_000_000, 3], 400)):
        refused(client.post(INFER, json={"inputs": [{**GOOD, "shape": shape}]}), status)


def test_packed_bombs_and_damaged_ones(client) -> None:
    body, headers = body_of(FRAME)
    for encoding, data, status in (
        ("gzip", gzip.compress(bytes(100 << 20)), 413),
        ("gzip", gzip.compress(body)[:-9], 400),
        ("gzip", b"not gzip", 400),
        ("deflate", b"\xff\xff\xff", 400),
        ("br", body, 415),
    ):
        refused(client.post(INFER, content=data, headers={**headers, "Content-Encoding": encoding}), status)


def test_tritons_own_client(served: Serving, runtime: Runtime, frame) -> None:
    http = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    want = runtime.segment(frame)
    with http.InferenceServerClient(served.host) as triton:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready("camvid")
        assert triton.get_server_metadata()["name"] == "errseg-rt"
        assert triton.get_model_metadata("camvid")["inputs"][0]["datatype"] == "UINT8"
        assert triton.get_model_config("camvid")["max_batch_size"] == 0
        given = http.InferInput("frame", list(frame.shape), "UINT8")
        outputs = [http.InferRequestedOutput(name) for name in ("labels", "error_map")]
        for is_binary, packing in ((True, None), (True, "gzip"), (True, "deflate"), (False, None)):
            given.set_data_from_numpy(frame, binary_data=is_binary)
            result = triton.infer("camvid", [given], outputs=outputs, request_compression_algorithm=packing)
            np.testing.assert_array_equal(result.as_numpy("labels"), want.labels)
            np.testing.assert_allclose(result.as_numpy("error_map"), want.error_map(), rtol=1e-6)
        result = triton.infer("camvid", [given], request_id="seven", parameters={"threshold": 0.3})
        assert result.get_response()["id"] == "seven"
        with pytest.raises(Exception, match="there is no model other"):
            triton.infer("other", [given])
