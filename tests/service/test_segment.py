"""`POST /v1/segment`: what comes of an image, and what of a body that is none."""

from __future__ import annotations

import io
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

from errseg_rt.errors import EngineError
from errseg_rt.runtime import Runtime
from errseg_rt.service.answers import wanted
from errseg_rt.service.refusal import RefusalError
from tests.service.serving import Serving, Slow, jpeg, png, serving, until


def refused(answer: httpx.Response, status: int, *words: str) -> None:
    """An answer is one line that says what is wrong, and shows nothing of what is inside."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    text = answer.json()["error"]
    assert "\n" not in text
    for secret in ("Traceback", "errseg_rt/", ".py", " at 0x"):
        assert secret not in text
    for word in words:
        assert word in text


def decoded(body: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("size", [(96, 128), (33, 57), (1, 1)], ids=str)
def test_labels_error_map_and_figures(client, runtime: Runtime, frame, size) -> None:
    frame = np.ascontiguousarray(frame[: size[0], : size[1]])
    result = runtime.segment(frame)
    labels = client.post("/v1/segment", content=png(frame), headers={"Content-Type": "image/png"})
    assert (labels.status_code, labels.headers["content-type"]) == (200, "image/png")
    np.testing.assert_array_equal(decoded(labels.content), result.labels)
    errors = client.post("/v1/segment", content=png(frame), headers={"Accept": "image/png;map=error"})
    np.testing.assert_array_equal(decoded(errors.content), np.rint(result.error_map() * 255))
    told = client.post("/v1/segment", content=png(frame), headers={"Accept": "application/json"}).json()
    assert told["size"] == list(size)
    assert told["mean_error_probability"] == pytest.approx(result.mean_error_probability)
    assert told["flagged_share"] == pytest.approx(result.flagged_share)
    assert told["shares"] == pytest.approx(result.shares)
    assert set(told["milliseconds"]) == set(result.timings)
    assert {"decode", "queue", "encode", "front"} <= {
        part.partition(";")[0] for part in labels.headers["server-timing"].split(", ")
    }


def test_limits_of_a_request_are_its_own(client, runtime: Runtime, image, frame) -> None:
    told = [
        client.post("/v1/segment", params=params, content=image, headers={"Accept": "application/json"}).json()
        for params in ({"threshold": 0.3}, {"budget": 0.01}, {})
    ]
    wants = [runtime.segment(frame, threshold=0.3), runtime.segment(frame, budget=0.01), runtime.segment(frame)]
    assert [each["flagged_share"] for each in told] == pytest.approx([each.flagged_share for each in wants])
    assert [each["left_out"] for each in told] == [each.left_out for each in wants]


def test_a_picture_is_turned_as_its_exif_says(client, runtime: Runtime, frame) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x112] = 6
    Image.fromarray(frame[..., ::-1]).save(file, "PNG", exif=exif)
    labels = client.post("/v1/segment", content=file.getvalue()).content
    turned = cv2.rotate(frame, cv2.ROTATE_90_CLOCKWISE)
    np.testing.assert_array_equal(decoded(labels), runtime.segment(turned).labels)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*;q=0.5, application/json", "application/json"),
        ("image/png; map=error", "image/png;map=error"),
        ("image/png;map=error;q=0.2, image/png", "image/png"),
        ("text/html, */*;q=0.1", "image/png"),
        ("application/json;q=0, */*", "image/png"),
        ("image/png;q=0, */*;q=0.3", "application/json"),
        ("IMAGE/PNG", "image/png"),
    ],
)
def test_accept(accept, form) -> None:
    assert wanted(accept) == form


@pytest.mark.parametrize(
    "accept", ["text/html", "image/webp", "image/png;q=0", "image/png;map=depth", ";;,", "a" * 999]
)
def test_what_there_is_none_of(accept) -> None:
    with pytest.raises(RefusalError, match="there is none of that kind") as error:
        wanted(accept)
    assert error.value.status == 406


def bomb_png(side: int) -> bytes:
    """A PNG of a few kilobytes with side x side pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pack = zlib.compressobj(9)
    data = b"".join(pack.compress(bytes(side + 1)) for _ in range(side)) + pack.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bomb(kind: str) -> bytes:
    """A picture of 9000x9000 pixels in little space."""
    if kind == "PNG":
        return bomb_png(9000)
    file = io.BytesIO()
    extra = {"WEBP": {"lossless": True, "method": 0}, "TIFF": {"compression": "tiff_adobe_deflate"}, "JPEG": {}}[kind]
    Image.new("L" if kind == "TIFF" else "RGB", (9000, 9000)).save(file, kind, **extra)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_bombs_are_refused_by_their_header(client, kind) -> None:
    data = bomb(kind)
    assert len(data) < 3 << 20
    refused(client.post("/v1/segment", content=data), 400, "9000x9000 pixels are over the limit of 16777216")


def test_a_jpeg_of_many_scans(client, frame) -> None:
    data = jpeg(frame)
    at = data.index(b"\xff\xda")
    refused(client.post("/v1/segment", content=data[:at] + data[at:] * 101), 400, "goes over its pixels more than 100")


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 400, "the image: the file is empty"),
        (b"no picture at all", 415, "is no image of a kind that is known; send JPEG, PNG"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 99, 400, "the image: damaged"),
        (b"P3 1 1 255 0 0 0", 415, "the body is PPM"),
        (b"GIF89a" + bytes(99), 415, "the body is GIF"),
        (b"\xff\xd8" + bytes(99), 400, "the image: damaged"),
        (b"%PDF-1.7", 415, "is no image"),
    ],
    ids=["empty", "text", "png", "ppm", "gif", "jpeg", "pdf"],
)
def test_bodies_that_are_no_image(client, data, status, words) -> None:
    refused(client.post("/v1/segment", content=data), status, words)


def test_a_picture_that_breaks_off(client, image, frame) -> None:
    refused(client.post("/v1/segment", content=image[: len(image) // 2]), 400, "the image: damaged", "send it again")
    refused(client.post("/v1/segment", content=jpeg(frame)[:-200]), 400, "the image: damaged")
    deep = cv2.imencode(".png", frame.astype(np.uint16))[1].tobytes()
    refused(client.post("/v1/segment", content=deep), 400, "16 bits a channel")
    sliver = png(np.zeros((1, 400_000, 3), np.uint8))
    refused(client.post("/v1/segment", content=sliver), 400, "a frame of 1x400000 pixels is too narrow")


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415, "Content-Type: image/png"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "Content-Type: image/png"),
        ({"Content-Type": "text/plain"}, 415, "not text/plain"),
        ({"Content-Encoding": "gzip"}, 415, "Content-Encoding"),
        ({"Accept": "text/html"}, 406, "image/png"),
    ],
    ids=["upload", "form", "text", "gzip", "html"],
)
def test_headers_that_do_not_fit(client, image, headers, status, words) -> None:
    refused(client.post("/v1/segment", content=image, headers=headers), status, words)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"threshold": 1}, "threshold: "),
        ({"threshold": "nan"}, "threshold: "),
        ({"budget": -0.1}, "budget: "),
        ({"deadline_ms": "inf"}, "deadline_ms: "),
        ({"threshold": "<script>"}, "threshold: "),
        ({"budget": 0.1, "deadline_ms": 5}, "give one of them"),
    ],
    ids=str,
)
def test_parameters_out_of_range(client, image, params, words) -> None:
    refused(client.post("/v1/segment", params=params, content=image), 422, words)


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/v1/segment", 405), ("POST", "/healthz", 405), ("GET", "/nothing", 404), ("GET", "/docs", 404),
    ("GET", "/page/../app.py", 404), ("GET", "/page/%2e%2e/app.py", 404), ("GET", "/page/..%2fapp.py", 404),
    ("GET", "/page//etc/passwd", 404), ("TRACE", "/", 405),
])  # fmt: skip
def test_what_there_is_not(served: Serving, method, path, status) -> None:
    with socket.create_connection(served.address) as raw:  # as it is: clients would tidy it up
        raw.sendall(f"{method} {path} HTTP/1.1\r\nHost: {served.host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode()
    assert body.startswith(b'{"error":')
    assert b"import" not in body


def test_a_body_that_is_too_long_is_refused_before_it_is_there(runtime: Runtime) -> None:
    with serving(runtime, max_bytes=100_000) as found, httpx.Client(base_url=found.url) as client:
        refused(client.post("/v1/segment", content=bytes(100_001)), 413, "the body is over the limit of 100000 bytes")
        sent = 0

        def endless():
            nonlocal sent
            while sent < 50_000_000:
                sent += 10_000
                yield bytes(10_000)

        refused(client.post("/v1/segment", content=endless()), 413, "the body is over the limit")
        with socket.create_connection(found.address) as raw:  # one that says so first is not read at all
            raw.sendall(
                f"POST /v1/segment HTTP/1.1\r\nHost: {found.host}\r\nContent-Length: 99999999999\r\n\r\n".encode()
            )
            assert raw.recv(65536).split()[1] == b"413"


def test_a_body_that_does_not_come(runtime: Runtime, image) -> None:
    with serving(runtime, body_seconds=0.3) as found, socket.create_connection(found.address) as raw:
        raw.sendall(f"POST /v1/segment HTTP/1.1\r\nHost: {found.host}\r\nContent-Length: 1000\r\n\r\nabc".encode())
        raw.settimeout(10)
        answer = raw.recv(65536)
        assert answer.split()[1] == b"408"
        assert httpx.post(f"{found.url}/v1/segment", content=image).status_code == 200


def test_overload_is_told_at_once(runtime: Runtime, image) -> None:
    slow = Slow(runtime)
    with serving(slow, workers=1, queue=2) as found, httpx.Client(base_url=found.url, timeout=30) as client:
        with ThreadPoolExecutor(3) as pool:
            answers = [pool.submit(client.post, "/v1/segment", content=image) for _ in range(3)]
            until(lambda: found.service.work.under_way == 3)
            begun = time.monotonic()
            busy = client.post("/v1/segment", content=image)
            assert time.monotonic() - begun < 5
            refused(busy, 503, "2 requests are waiting")
            assert busy.headers["retry-after"] == "1"
            assert client.get("/healthz").status_code == 200
            assert "errseg_queue_depth 2.0" in client.get("/metrics").text
            slow.gate.set()
            assert [answer.result().status_code for answer in answers] == [200] * 3
        assert client.post("/v1/segment", content=image).status_code == 200


def test_clients_are_limited_and_let_in_again(runtime: Runtime, image) -> None:
    with serving(runtime, max_clients=2) as found:
        with connect(found.stream("/v1/stream")), connect(found.stream("/v1/stream")):
            until(lambda: found.service.room.clients == 2)
            answer = httpx.post(f"{found.url}/v1/segment", content=image)
            refused(answer, 503, "2 clients are being served")
            assert answer.headers["retry-after"] == "1"
        until(lambda: found.service.room.clients == 0)
        assert httpx.post(f"{found.url}/v1/segment", content=image).status_code == 200


def test_clients_that_send_slowly_take_nobodys_place(runtime: Runtime, image) -> None:
    with serving(runtime, max_clients=2) as found:
        raws = [socket.create_connection(found.address) for _ in range(50)]
        for raw in raws:
            raw.sendall(f"POST /v1/segment HTTP/1.1\r\nHost: {found.host}\r\nContent-Length: 9\r\n\r\nslow".encode())
        until(lambda: found.service.room.bytes == 200)
        assert httpx.post(f"{found.url}/v1/segment", content=image, timeout=30).status_code == 200
        for raw in raws:
            raw.close()
        until(lambda: found.service.room.bytes == 0)


def test_bodies_together_are_limited(runtime: Runtime, image) -> None:
    with serving(runtime, max_bytes=50_000) as found:
        raws = [socket.create_connection(found.address) for _ in range(9)]
        head = f"POST /v1/segment HTTP/1.1\r\nHost: {found.host}\r\nContent-Length: 49999\r\n\r\n".encode()
        for raw in raws[:8]:
            raw.sendall(head + bytes(49_900))
        until(lambda: found.service.room.bytes == 8 * 49_900)
        raws[8].sendall(head + bytes(49_900))
        raws[8].settimeout(10)
        assert raws[8].recv(65536).split()[1] == b"503"
        for raw in raws:
            raw.close()
        until(lambda: found.service.room.bytes == 0)
        assert httpx.post(f"{found.url}/v1/segment", content=image).status_code == 200


def test_a_client_that_is_gone_is_not_computed_for(runtime: Runtime, image) -> None:
    slow = Slow(runtime)
    with serving(slow, workers=1, queue=9) as found:
        head = f"POST /v1/segment HTTP/1.1\r\nHost: {found.host}\r\nContent-Length: {len(image)}\r\n\r\n".encode()
        raws = [socket.create_connection(found.address) for _ in range(4)]
        for raw in raws:
            raw.sendall(head + image)
        until(lambda: found.service.work.under_way == 4 and slow.begun == 1)
        for raw in raws[1:]:
            raw.close()
        until(lambda: found.service.work.under_way == 1)
        slow.gate.set()
        assert raws[0].recv(65536).split()[1] == b"200"
        raws[0].close()
        assert slow.begun == 1
        until(lambda: 'status="499"' in httpx.get(f"{found.url}/metrics").text)
        assert found.service.room.clients == 0


def test_connections_that_do_nothing_disturb_nobody_and_are_closed(runtime: Runtime, image, monkeypatch) -> None:
    monkeypatch.setattr("errseg_rt.service.connection.HEAD_SECONDS", 1.0)
    with serving(runtime) as found:
        idle = [socket.create_connection(found.address) for _ in range(200)]
        half = idle[0]
        half.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: 127.0")
        drip = idle[1]
        drip.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert httpx.post(f"{found.url}/v1/segment", content=image, timeout=30).status_code == 200
        until(lambda: not found.server.server_state.connections)
        for each in idle:
            each.settimeout(10)
            with suppress(ConnectionResetError):
                assert each.recv(1) == b""
            each.close()


def test_a_head_without_end(served: Serving) -> None:
    with socket.create_connection(served.address) as raw:
        raw.settimeout(10)
        with suppress(OSError):  # it may be reset while we write
            raw.sendall(b"GET / HTTP/1.1\r\n" + b"X-Filler: " + b"x" * 300_000)
        with suppress(ConnectionResetError):
            assert raw.recv(65536).split()[1] == b"400"


def test_an_answer_that_nobody_reads_is_given_up(runtime: Runtime, monkeypatch) -> None:
    monkeypatch.setattr("errseg_rt.service.connection.STALL_SECONDS", 0.3)
    body = bytes(1200 * 1200 * 3)
    text = (
        b'{"inputs":[{"name":"frame","datatype":"UINT8","shape":[1200,1200,3],"parameters":{"binary_data_size":%d}}],'
    )
    text = text % len(body) + b'"parameters":{"binary_data_output":true}}'
    with serving(runtime) as found:
        raw = socket.create_connection(found.address)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(
            f"POST /v2/models/camvid/infer HTTP/1.1\r\nHost: {found.host}\r\nContent-Length: {len(text) + len(body)}"
            f"\r\nInference-Header-Content-Length: {len(text)}\r\n\r\n".encode()
            + text
            + body
        )
        until(lambda: found.service.metrics.drift.frames == 1)
        until(lambda: not found.server.server_state.connections)
        raw.close()


def test_short_memory_is_told_and_the_next_may_follow(runtime: Runtime, image) -> None:
    class Short(Slow):
        def segment(self, frame, **asked):
            self.begun += 1
            if self.begun == 1:
                raise MemoryError
            if self.begun == 2:
                raise EngineError("out of memory for a frame of 96x128")
            return runtime.segment(frame, **asked)

    with serving(Short(runtime)) as found:
        for words in ("out of memory for this frame", "out of memory for a frame of 96x128"):
            answer = httpx.post(f"{found.url}/v1/segment", content=image)
            refused(answer, 503, words)
            assert answer.headers["retry-after"] == "1"
        assert httpx.post(f"{found.url}/v1/segment", content=image).status_code == 200


def test_a_fault_of_ours_shows_nothing_of_the_inside(runtime: Runtime, image) -> None:
    class Broken(Slow):
        def segment(self, frame, **asked):
            raise RuntimeError("a secret in /home/me/errseg_rt/app.py")

    with serving(Broken(runtime)) as found:
        answer = httpx.post(f"{found.url}/v1/segment", content=image)
    refused(answer, 500, "a fault of the service; its log says more")
    assert "secret" not in answer.text
