"""The routes of the service."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from errseg_rt import __version__
from errseg_rt.errors import EngineError, FrameError
from errseg_rt.frames.reading import Pixels
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.service.answers import answered, wanted
from errseg_rt.service.documented import faults
from errseg_rt.service.guard import Guard
from errseg_rt.service.inference import inference_routes
from errseg_rt.service.limits import FORMATS, picture_of
from errseg_rt.service.metrics import Metrics
from errseg_rt.service.refusal import GoneError, RefusalError, refused
from errseg_rt.service.requests import computed
from errseg_rt.service.state import Service
from errseg_rt.service.streams import own_frames, own_source

_PAGE = Path(__file__).parent / "page"
_GONE = 499  # nginx's: nobody reads it
_IMAGES = ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp", "application/octet-stream")


def create_app(service: Service) -> ASGIApp:
    """The application of a service, with its guard before it."""
    # No pages of documentation: they would have scripts of other places run here.
    app = FastAPI(title="errseg-rt", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    _handle_faults(app)
    _add_state(app, service)
    _add_frames(app, service)
    app.include_router(inference_routes(service))
    _name_the_model(app, service.model)
    app.mount("/page", StaticFiles(directory=_PAGE), name="page")
    return Counted(Guard(app, service.settings.names, service.settings.token), service.metrics, service)


def _name_the_model(app: FastAPI, model: str) -> None:
    """Have OpenAPI say which model there is; the application keeps what it says."""
    known = {"model": [model], "version": ["1"]}
    for path in app.openapi()["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in known:
                    parameter["schema"]["enum"] = known[parameter["name"]]


def _handle_faults(app: FastAPI) -> None:
    """Have every fault be a line of JSON."""

    @app.exception_handler(RefusalError)
    async def refusal(_: Request, error: RefusalError) -> JSONResponse:
        return error.response()

    @app.exception_handler(FrameError)
    async def frame(_: Request, error: FrameError) -> JSONResponse:
        return refused(400, str(error))

    @app.exception_handler(EngineError)
    async def engine(_: Request, error: EngineError) -> JSONResponse:
        return refused(503, str(error), {"Retry-After": "1"})

    @app.exception_handler(MemoryError)
    async def memory(_: Request, error: MemoryError) -> JSONResponse:
        return refused(503, "out of memory for this frame; shrink it, or try again", {"Retry-After": "1"})

    @app.exception_handler(RequestValidationError)
    async def parameter(_: Request, error: RequestValidationError) -> JSONResponse:
        return refused(422, "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return refused(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(GoneError)
    async def gone(_: Request, error: GoneError) -> Response:
        return Response(status_code=_GONE)

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        return refused(500, "a fault of the service; its log says more")


def _add_state(app: FastAPI, service: Service) -> None:
    """Routes that tell how the service is."""

    @app.get("/", response_class=FileResponse, include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html")

    @app.get("/healthz", responses=faults())
    async def healthz() -> dict[str, str]:
        """Whether the service runs."""
        return {"status": "runs"}

    @app.get("/readyz", responses=faults(503))
    async def readyz() -> dict[str, str]:
        """Whether it takes requests: not any more, once it is to end."""
        if service.closing.is_set():
            raise RefusalError(503, "the service ends")
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response, responses=faults(401) | {200: {"content": {"text/plain": {}}}})
    def metrics() -> Response:
        """Counts and times, as Prometheus reads them."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/status", responses=faults(401))
    def status() -> dict[str, Any]:
        """The model and its classes, limits, the source, and what is expected to be wrong in recent frames."""
        return _status(service)


def _status(service: Service) -> dict[str, Any]:
    runtime, live, drift = service.runtime, service.live, service.metrics.drift
    classes = runtime.manifest.classes
    source = None
    if live is not None:
        stats = live.stream.stats
        source = {
            "name": live.name,
            "state": live.state,
            "fault": live.fault or None,
            **{name: getattr(stats, name) for name in ("read", "segmented", "dropped", "corrupt", "reopened")},
        }
    return {
        "model": service.model,
        "classes": [
            {"name": name, "color": list(color)} for name, color in zip(classes.names, classes.colors, strict=True)
        ],
        "has_errors": runtime.manifest.has_errors,
        "is_calibrated": runtime.manifest.has_errors and runtime.manifest.is_calibrated,
        "detail": runtime.detail,
        "threshold": runtime.threshold,
        "lowest_threshold": runtime.manifest.lowest_threshold,
        "budget": runtime.limits.budget,
        "max_bytes": service.settings.max_bytes,
        "max_message": service.settings.max_message,
        "max_pixels": runtime.options.max_pixels,
        "source": source,
        "recent": {
            "frames": drift.frames,
            "expected_error": drift.expected_error,
            "flagged_share": drift.flagged_share,
            "doubtful": drift.doubtful,
        },
    }


def _add_frames(app: FastAPI, service: Service) -> None:
    """Routes that take frames."""

    @app.post(
        "/v1/segment",
        response_class=Response,
        responses=faults(400, 401, 403, 406, 408, 413, 415, 503) | {200: _SEGMENTED},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _IMAGES},
            }
        },
    )
    async def segment(
        request: Request,
        threshold: Annotated[
            float | None, Query(gt=0, lt=1, description="Of this image, in place of the bundle's.")
        ] = None,
        budget: Annotated[float | None, Query(ge=0, le=1, description="Most work of refinement.")] = None,
        deadline_ms: Annotated[float | None, Query(gt=0, lt=1e9, description="Milliseconds it may take.")] = None,
    ) -> Response:
        """Segment an image; Accept says what comes of it: labels, error map or figures."""
        form = wanted(request.headers.get("accept", ""))
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind and not kind.startswith("image/") and kind != "application/octet-stream":
            raise RefusalError(
                415, f"the body is {', '.join(FORMATS)}, sent as Content-Type: image/png, say; not {kind}"
            )
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RefusalError(415, "images are compressed already; send no Content-Encoding")
        limits: dict[str, Any] = {"threshold": threshold, "budget": budget, "deadline_ms": deadline_ms}

        def read(body: bytes) -> Pixels:
            return picture_of(body, service.runtime.options.max_pixels)

        def result_of(frame: Pixels) -> Segmentation:
            try:
                return service.runtime.segment(frame, **limits)
            except FrameError:
                raise
            except ValueError as error:
                raise RefusalError(422, str(error)) from None

        def answer(_: Pixels, result: Segmentation) -> tuple[bytes, dict[str, str]]:
            found = answered(form, result)
            return found.body, {"Content-Type": found.media_type, "Vary": "Accept"}

        body, headers = await computed(request, service, read, result_of, answer)
        return Response(body, headers=headers)

    for path, converse in (("/v1/stream", own_frames), ("/v1/source", own_source)):
        app.router.routes.append(WebSocketRoute(path, _held(converse, service)))


_SEGMENTED: dict[str, Any] = {
    "description": "Class ids (image/png), error map in 256 levels (image/png;map=error), or figures (JSON).",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}, "application/json": {}},
}


def _held(
    converse: Callable[[WebSocket, Service], Awaitable[None]], service: Service
) -> Callable[[WebSocket], Awaitable[None]]:
    async def route(socket: WebSocket) -> None:
        try:
            await converse(socket, service)
        except RefusalError as error:  # before anything was agreed on
            await socket.send_denial_response(error.response())

    return route


class Counted:
    """Counts requests by route and status; the first thing that a request meets.

    Args:
        app: What answers them.
        metrics: Where they are counted.
        service: Once it is to end, connections are not kept.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, service: Service) -> None:
        self._app, self._metrics, self._service = app, metrics, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As every application of ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                if self._service.closing.is_set() and message["type"] == "http.response.start":
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            with suppress(Exception):
                self._metrics.request(_route(scope), status, time.perf_counter() - begun)


def _route(scope: Mapping[str, Any]) -> str:
    """The route of a request as it is declared, so that their number is bounded."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "other"
