"""What `/metrics` and `/v1/status` tell, held against what the frames are."""

from __future__ import annotations

import re
import shutil
import subprocess

import httpx
import numpy as np
import pytest

from errseg_rt.runtime import Runtime
from errseg_rt.scenes import StreetScene
from errseg_rt.service.drift import DOUBTFUL, Drift
from errseg_rt.video.given import SceneSource
from tests.service.serving import png, serving, until
from tests.video.services import lacking


@pytest.fixture(scope="module")
def results(runtime: Runtime) -> list:
    scene = StreetScene(4, 96, 128)
    return [runtime.segment(scene.frame(40 * index).frame) for index in range(3)]


def test_expected_errors_by_their_definition(results) -> None:
    drift = Drift(results[0].classes)
    assert (drift.frames, drift.expected_error, drift.flagged_share) == (0, None, None)
    assert set(drift.doubtful.values()) == {None}
    for result in results:
        drift.add(result)
    means = [result.error_map().mean(dtype=np.float64) for result in results]
    assert drift.expected_error == pytest.approx(np.mean(means), rel=1e-5)
    assert drift.flagged_share == pytest.approx(np.mean([result.flagged_share for result in results]))
    for index, name in enumerate(results[0].classes.names):
        whole = part = 0
        for result in results:
            rows, cols = result.geometry.seen()
            height, width = result.labels.shape
            for row in range(rows):
                for col in range(cols):
                    if result.labels[row * height // rows, col * width // cols] == index:
                        whole += 1
                        part += bool(result.error_probability[row, col] >= DOUBTFUL)
        assert drift.doubtful[name] == (pytest.approx(part / whole) if whole else None)


def test_recent_frames_alone_count(results) -> None:
    drift, last = Drift(results[0].classes, recent=1), Drift(results[0].classes)
    for result in results:
        drift.add(result)
    last.add(results[-1])
    assert (drift.frames, drift.expected_error, drift.doubtful) == (1, last.expected_error, last.doubtful)


def values(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(errseg_\S+) (\S+)$", text, re.MULTILINE)}


def test_what_is_counted(runtime: Runtime, frame) -> None:
    with serving(runtime) as found, httpx.Client(base_url=found.url) as client:
        before = client.get("/v1/status").json()
        assert before["recent"] == {
            "frames": 0, "expected_error": None, "flagged_share": None,
            "doubtful": dict.fromkeys(runtime.manifest.classes.names),
        }  # fmt: skip
        for _ in range(2):
            client.post("/v1/segment", content=png(frame))
        client.post("/v1/segment", content=b"")
        for path in ("/a", "/b", "/v2/models/x", "/v2/models/y"):
            client.get(path)
        told, after = values(client.get("/metrics").text), client.get("/v1/status").json()
    result = runtime.segment(frame)
    assert told['errseg_requests_total{route="/v1/segment",status="200"}'] == 2
    assert told['errseg_requests_total{route="/v1/segment",status="400"}'] == 1
    assert told['errseg_requests_total{route="other",status="404"}'] == 2
    assert told['errseg_requests_total{route="/v2/models/{model}",status="404"}'] == 2
    assert told["errseg_expected_error_ratio"] == pytest.approx(result.mean_error_probability)
    assert told["errseg_flagged_ratio"] == pytest.approx(result.flagged_share)
    assert told["errseg_queue_depth"] == told["errseg_clients"] == 0
    for stage in ("queue", "decode", "encode", *result.timings):
        assert told[f'errseg_stage_seconds_count{{stage="{stage}"}}'] == 2
    assert after["recent"]["expected_error"] == pytest.approx(result.mean_error_probability)
    assert [each["name"] for each in after["classes"]] == list(runtime.manifest.classes.names)


def test_a_password_of_the_source_is_nowhere(runtime: Runtime, frame) -> None:
    source = SceneSource(3, 96, 128)
    source.name = "rtsp://me:***@camera/street"  # as sources call themselves
    with serving(runtime, source=source) as found:
        until(lambda: found.service.metrics.drift.frames > 0)
        metrics, status = httpx.get(f"{found.url}/metrics").text, httpx.get(f"{found.url}/v1/status").json()
    assert "camera" not in metrics
    assert status["source"]["name"] == "rtsp://me:***@camera/street"
    assert status["source"]["state"] == "connected"


def test_promtool_finds_nothing(runtime: Runtime, frame) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        lacking("promtool, of Debian's package prometheus")
    with serving(runtime, source=SceneSource(3, 96, 128)) as found:
        httpx.post(f"{found.url}/v1/segment", content=png(frame))
        text = httpx.get(f"{found.url}/metrics").content
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
