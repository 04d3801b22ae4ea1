"""`errseg-rt serve --ray`: replicas of Ray Serve behind the same app, one of which is killed under load."""

from __future__ import annotations

import collections
import os
import signal
import threading
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from errseg_rt.errors import EngineError, FrameError
from errseg_rt.options import Options
from errseg_rt.runtime import Runtime
from errseg_rt.service.refusal import BusyError
from errseg_rt.service.replicas import Remote
from tests.service.serving import png, serving, until
from tests.service.test_end import started


def replicas() -> list[int]:
    """Processes of replicas."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::ServeReplica:errseg-rt-camvid"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_replica_is_killed_under_load(kernels_are_compiled, runtime: Runtime, scene) -> None:
    frame = np.tile(scene.frame(3).frame, (4, 4, 1))  # large enough to lie in Ray's shared memory, which is read-only
    statuses: collections.Counter[int] = collections.Counter()
    with started("--ray", "local", "--replicas", "2", "--grace", "20") as (process, url):
        answer = httpx.post(f"{url}/v1/segment", content=png(frame), timeout=60)
        labels = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(labels, runtime.segment(frame).labels)
        answer = httpx.post(f"{url}/v1/segment?budget=0.1&deadline_ms=4", content=png(frame), timeout=60)
        assert (answer.status_code, answer.json()["error"].partition(":")[0]) == (
            422,
            "budget is what a deadline sets itself",
        )

        def load() -> None:
            with httpx.Client(base_url=url, timeout=60) as client:
                for _ in range(15):
                    statuses[client.post("/v1/segment", content=png(scene.frame(1).frame)).status_code] += 1

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: statuses[200] > 8)
        first, _ = replicas()
        os.kill(first, signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert statuses == {200: 60}
        until(lambda: len(replicas()) == 2, 120)
        text = httpx.get(f"{url}/metrics").text
        assert 'errseg_requests_total{route="/v1/segment",status="200"} 61.0' in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        text = process.stderr.read()  # where a task of Ray Serve's own router may have met the dead replica
        assert "errseg_rt" not in text, text
    until(lambda: replicas() == [], 60)


class Handle:
    """Stands for a handle of replicas, whose answers are written: what is an exception is raised."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.segment, self.asked = self, []

    def remote(self, frame: np.ndarray, asked: dict) -> Handle:
        self.asked.append(asked)
        return self

    def result(self) -> object:
        answer = self._answers.pop(0)
        if isinstance(answer, tuple):
            raise answer[0]
        return answer


def test_what_becomes_of_a_frame(runtime: Runtime, frame: np.ndarray) -> None:
    from ray.exceptions import ActorDiedError
    from ray.serve.exceptions import BackPressureError

    died, full = (ActorDiedError(),), (BackPressureError(num_queued_requests=3, max_queued_requests=2),)
    result = runtime.segment(frame)

    def remote(*answers: object) -> tuple[Remote, Handle]:
        handle = Handle(*answers)
        return Remote(runtime.bundle, Options(threads=1), handle, "sparse"), handle

    given, handle = remote(died, result)
    assert given.segment(frame, threshold=0.5) is result
    assert handle.asked == [{"threshold": 0.5}] * 2
    assert (given.threshold, given.detail) == (runtime.threshold, "sparse")
    with pytest.raises(EngineError, match="the replicas of the model that this frame was given to died; try again"):
        remote(died, died)[0].segment(frame)
    with pytest.raises(FrameError, match="too small"):
        remote(FrameError("too small"))[0].segment(frame)
    with pytest.raises(BusyError, match="more frames wait for replicas than may"):
        remote(full)[0].segment(frame)
    with serving(remote(full, died, result)[0], workers=1) as served:
        answer = httpx.post(f"{served.url}/v1/segment", content=png(frame), timeout=60)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert httpx.post(f"{served.url}/v1/segment", content=png(frame), timeout=60).status_code == 200


def test_replicas_that_cannot_run_the_bundle(cli) -> None:
    providers = ("--providers", "OpenVINOExecutionProvider")
    done = cli("serve", "--port", "0", "--ray", "local", "--replicas", "1", *providers)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert done.err.startswith("error: at a replica: ")
    assert "OpenVINOExecutionProvider" in done.err
