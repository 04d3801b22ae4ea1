"""A service on a real uvicorn at a port of this machine, within the tests' own process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.runtime import Runtime
from errseg_rt.service.live import Live
from errseg_rt.service.server import Server, listen
from errseg_rt.service.settings import Settings
from errseg_rt.service.state import Service
from errseg_rt.service.work import Work


@dataclass
class Serving:
    """A service that runs: what it is, where it is, and what ends it."""

    service: Service
    server: Server
    address: tuple[str, int]

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def stream(self, path: str) -> str:
        return f"ws://{self.host}{path}"


@contextmanager
def serving(runtime: Any, *, source: Any = None, workers: int | None = None, **settings: Any) -> Iterator[Serving]:
    """Serve with a runtime, or with what stands in for one."""
    service = Service(runtime, Settings(**{"grace": 0.4, **settings}))
    if workers is not None:
        service.work = Work(workers, service.settings.queue)
    if source is not None:
        service.live = Live(runtime, source, service.metrics, 1)
        service.live.start()
    listening = listen("127.0.0.1", 0)
    server = Server(service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    address = listening.getsockname()
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield Serving(service, server, address)
    finally:
        server.end(15)
        thread.join(20)
        service.work.close()
        if service.live is not None:
            service.live.close()
        assert not thread.is_alive()


class Slow:
    """A runtime whose frames wait until they are let go.

    Args:
        runtime: Segments them then.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.gate, self.begun = threading.Event(), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def segment(self, frame: npt.NDArray[np.uint8], **asked: Any) -> Any:
        self.begun += 1
        assert self.gate.wait(30)
        return self._runtime.segment(frame, **asked)


def png(frame: npt.NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", frame)[1].tobytes()


def jpeg(frame: npt.NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", frame)[1].tobytes()


def until(is_so: Any, seconds: float = 20.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never was so"
        time.sleep(0.005)
