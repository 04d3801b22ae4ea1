"""WebSockets: own frames and the service's source; the newest wins, and who misbehaves is told and sent away."""

from __future__ import annotations

import json
import struct
import time
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from errseg_rt.errors import SourceError
from errseg_rt.runtime import Runtime
from errseg_rt.scenes import StreetScene
from errseg_rt.video.given import IterableSource, SceneSource
from tests.service.serving import Serving, Slow, jpeg, png, serving, until


def parts_of(message: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """Head and pictures of a message."""
    (length,) = struct.unpack_from("<I", message)
    head, at, parts = json.loads(message[4 : 4 + length]), 4 + length, {}
    for name, form, size, height, width in head["parts"]:
        data = message[at : at + size]
        at += size
        if form == "jpeg":
            parts[name] = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        else:
            parts[name] = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, width)
        assert parts[name].shape[:2] == (height, width)
    assert at == len(message)
    return head, parts


def test_own_frames(served: Serving, runtime: Runtime, frame) -> None:
    want = runtime.segment(frame)
    with connect(served.stream("/v1/stream"), max_size=None) as socket:
        socket.send(png(frame))
        head, parts = parts_of(socket.recv(timeout=30))
        assert (head["index"], head["dropped"], head["size"]) == (1, 0, [96, 128])
        assert set(parts) == {"labels", "error"}
        np.testing.assert_array_equal(parts["labels"], want.labels)
        np.testing.assert_array_equal(parts["error"], np.rint(want.error_map() * 255))
        assert head["mean_error_probability"] == pytest.approx(want.mean_error_probability)
        socket.send(json.dumps({"threshold": 0.3, "parts": ["semantic"]}))
        socket.send(jpeg(frame))
        head, parts = parts_of(socket.recv(timeout=30))
        seen = runtime.segment(cv2.imdecode(np.frombuffer(jpeg(frame), np.uint8), 1), threshold=0.3, semantic=True)
        np.testing.assert_array_equal(parts["semantic"], seen.semantic_labels)
        assert head["flagged_share"] == pytest.approx(seen.flagged_share)
        socket.send(json.dumps({"threshold": None}))  # the bundle's again
        socket.send(b"no image")  # a fault of this frame
        told = json.loads(socket.recv(timeout=30))
        assert "no image of a kind that is known" in told["error"]
        assert told["index"] == 3
        socket.send(png(frame))
        head, _ = parts_of(socket.recv(timeout=30))
        assert head["flagged_share"] == pytest.approx(want.flagged_share)


def test_large_frames_are_shown_smaller(served: Serving, runtime: Runtime) -> None:
    frame = StreetScene(3, 1100, 1300).frame(0).frame
    with connect(served.stream("/v1/stream"), max_size=None) as socket:
        socket.send(jpeg(frame))
        head, parts = parts_of(socket.recv(timeout=60))
    assert head["size"] == [1100, 1300]
    assert parts["labels"].shape == (550, 650)
    assert parts["error"].shape == (275, 325)


def test_the_newest_wins(runtime: Runtime, frame) -> None:
    slow = Slow(runtime)
    with serving(slow, workers=1) as found, connect(found.stream("/v1/stream"), max_size=None) as socket:
        socket.send(png(frame))
        until(lambda: slow.begun == 1)
        for _ in range(5):
            socket.send(png(frame))
        socket.send(png(frame[:40, :50]))
        socket.ping().wait(10)
        slow.gate.set()
        first, _ = parts_of(socket.recv(timeout=30))
        second, _ = parts_of(socket.recv(timeout=30))
        assert (first["index"], first["dropped"]) == (1, 0)
        assert (second["index"], second["dropped"], second["size"]) == (7, 5, [40, 50])
        assert slow.begun == 2
        assert "errseg_client_dropped_frames_total 5.0" in found.service.metrics.text().decode()


@pytest.mark.parametrize(
    "text",
    ["hello", "[]", "{", '{"threshold": 2}', '{"budget": "much"}', '{"speed": 1}', '{"parts": ["x"]}', '{"shown": 0.5}',
     "[" * 3000, " " * 5000],
    ids=lambda text: text[:16],
)  # fmt: skip
def test_text_that_means_nothing(served: Serving, text) -> None:
    with connect(served.stream("/v1/stream")) as socket:
        socket.send(text)
        assert "a message in text is a JSON object of settings" in json.loads(socket.recv(timeout=30))["error"]
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)
        assert socket.protocol.close_code == 1008
    until(lambda: served.service.room.clients == 0)


def test_a_message_that_is_too_long(runtime: Runtime) -> None:
    with serving(runtime, max_bytes=100_000) as found, connect(found.stream("/v1/stream")) as socket:
        with suppress(ConnectionClosed):  # while it is being sent
            socket.send(bytes(100 << 20))
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)
        assert socket.protocol.close_code in (1009, 1006)  # 1006: it was cut off while we sent
        until(lambda: found.service.room.clients == 0)


def test_clients_that_say_nothing_go(runtime: Runtime) -> None:
    with serving(runtime, idle_seconds=0.3) as found, connect(found.stream("/v1/stream")) as socket:
        assert json.loads(socket.recv(timeout=30)) == {"error": "nothing came for 0.3 seconds"}
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)


def test_streams_are_limited(runtime: Runtime) -> None:
    with serving(runtime, max_clients=1) as found, connect(found.stream("/v1/stream")):
        until(lambda: found.service.room.clients == 1)
        with pytest.raises(InvalidStatus) as error:
            connect(found.stream("/v1/stream"))
        assert error.value.response.status_code == 503
        assert error.value.response.headers["Retry-After"] == "1"


def test_no_source(served: Serving) -> None:
    with connect(served.stream("/v1/source")) as socket:
        assert "the service has no source" in json.loads(socket.recv(timeout=30))["error"]


def test_the_source_is_shown_as_fast_as_it_is_looked_at(runtime: Runtime) -> None:
    with serving(runtime, source=SceneSource(3, 96, 128, 25)) as found:
        with connect(found.stream("/v1/source"), max_size=None) as socket:
            head, parts = parts_of(socket.recv(timeout=30))
            assert set(parts) == {"frame", "labels", "semantic", "error"}
            frame = StreetScene(3, 96, 128, 25).frame(head["index"]).frame
            np.testing.assert_array_equal(parts["labels"], runtime.segment(frame).labels)
            assert np.abs(parts["frame"].astype(int) - frame).mean() < 8
            seen = found.service.live.stream.stats.segmented
            until(lambda: found.service.live.stream.stats.segmented > seen + 3)
            with pytest.raises(TimeoutError):
                socket.recv(timeout=0.2)  # not before the first one was shown
            socket.send(json.dumps({"shown": head["index"]}))
            newer, _ = parts_of(socket.recv(timeout=30))
            assert newer["index"] > head["index"] + 1
            socket.send(json.dumps({"threshold": 0.25, "shown": newer["index"]}))
            until(lambda: found.service.live.stream._asked.get("threshold") == 0.25)
        text = found.service.metrics.text().decode()
        assert 'errseg_source_state{state="connected"} 1.0' in text
        assert "errseg_source_frames_total" in text


def test_a_viewer_cannot_end_the_source(kernels_are_compiled) -> None:
    with Runtime(threads=1, detail="dense") as dense, serving(dense, source=SceneSource(3, 96, 128, 25)) as found:
        with connect(found.stream("/v1/source"), max_size=None) as socket:
            parts_of(socket.recv(timeout=30))
            socket.send(json.dumps({"budget": 0.1}))
            assert "a budget needs sparse refinement" in json.loads(socket.recv(timeout=30))["error"]
        seen = found.service.live.stream.stats.segmented
        until(lambda: found.service.live.stream.stats.segmented > seen + 1)


def test_a_viewer_that_never_says_what_it_shows(runtime: Runtime) -> None:
    with serving(runtime, source=SceneSource(3, 96, 128, 25), idle_seconds=0.4) as found:
        with connect(found.stream("/v1/source"), max_size=None) as socket:
            parts_of(socket.recv(timeout=30))
            assert "nothing came" in json.loads(socket.recv(timeout=30))["error"]
        until(lambda: found.service.room.clients == 0)


def test_a_source_that_ends_or_fails_later_leaves_the_service(runtime: Runtime, frame) -> None:
    def broken():
        yield frame
        time.sleep(0.2)
        raise SourceError("the camera is gone")

    with serving(runtime, source=IterableSource(broken())) as found:
        until(lambda: found.service.live.state == "ended")
        assert found.service.live.fault == "the camera is gone"
        with connect(found.stream("/v1/source"), max_size=None) as socket:
            parts_of(socket.recv(timeout=30))  # the last one stays to be seen


def test_a_source_that_cannot_be_opened_is_an_error_at_once(runtime: Runtime) -> None:
    def none():
        raise SourceError("there is no such camera")
        yield

    with pytest.raises(SourceError, match="no such camera"), serving(runtime, source=IterableSource(none())):
        pass
