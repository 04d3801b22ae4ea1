"""From a request to a job, and from a fault to an answer: what the routes that compute have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request

from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.service.state import Service
from errseg_rt.service.work import Wanted

T = TypeVar("T")


async def computed(
    request: Request,
    service: Service,
    read: Callable[[bytes], T],
    segment: Callable[[T], Segmentation],
    answer: Callable[[T, Segmentation], tuple[bytes, dict[str, str]]],
) -> tuple[bytes, dict[str, str]]:
    """What comes of a request: body and headers of its answer.

    Its body is read here, all else is done in a thread; between the steps the client may be gone.

    Args:
        request: The request.
        service: Whose it is.
        read: From its body to what is to be segmented.
        segment: Segments that.
        answer: From that and its result to body and headers.

    Raises:
        RefusalError, FrameError: It is not served.
        GoneError: The client is gone.
    """
    service.work.check()  # before anything is sent for nothing
    body = await service.room.body_of(request, service.settings.body_seconds)
    with service.room.seat():  # from here on: who sends slowly takes nobody's

        def job(wanted: Wanted) -> tuple[bytes, dict[str, str]]:
            times = {"queue": wanted.waited}
            begun = time.perf_counter()
            given = read(body)
            times["decode"] = time.perf_counter() - begun
            wanted.check()
            result = segment(given)
            wanted.check()
            begun = time.perf_counter()
            found, headers = answer(given, result)
            times["encode"] = time.perf_counter() - begun
            service.metrics.frame(result, times)
            timing = {**times, **{name: value / 1000 for name, value in result.timings.items()}}
            return found, {**headers, "Server-Timing": _server_timing(timing)}

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        return await service.work.do(job, gone)


def _server_timing(seconds: dict[str, float]) -> str:
    """Times as browsers and tools show them, in milliseconds."""
    return ", ".join(f"{name};dur={1000 * value:.2f}" for name, value in seconds.items())
