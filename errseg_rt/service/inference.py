"""The Open Inference Protocol: clients of Triton and KServe work as they are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from errseg_rt import __version__
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.service import tensors
from errseg_rt.service.documented import faults
from errseg_rt.service.refusal import RefusalError
from errseg_rt.service.requests import computed
from errseg_rt.service.state import Service

_LENGTH = "Inference-Header-Content-Length"


def inference_routes(service: Service) -> APIRouter:
    """The routes below `/v2`."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    runtime = service.runtime
    outputs = [name for name in tensors.OUTPUTS if name not in tensors.ERROR_MAPS or runtime.manifest.has_errors]

    def check(model: str, version: str = "1") -> None:
        if (model, version) != (service.model, "1"):
            raise RefusalError(404, f"there is no model {model} of version {version}; there is {service.model} of 1")

    @router.get("", responses=faults(401))
    async def server() -> dict[str, Any]:
        """Name and version of the server, and the extensions of the protocol that it knows."""
        return {
            "name": "errseg-rt",
            "version": __version__,
            "extensions": ["binary_tensor_data", "model_configuration"],
        }

    @router.get("/health/live", responses=faults())
    async def live() -> dict[str, bool]:
        """Whether the server runs."""
        return {"live": True}

    @router.get("/health/ready", responses=faults(503))
    async def ready() -> dict[str, bool]:
        """Whether it takes requests."""
        if service.closing.is_set():
            raise RefusalError(503, "the service ends")
        return {"ready": True}

    async def model(model: str, version: str = "1") -> dict[str, Any]:
        """Inputs and outputs of the model."""
        check(model, version)
        return tensors.metadata(service.model, outputs)

    async def model_ready(model: str, version: str = "1") -> dict[str, Any]:
        """Whether the model takes requests."""
        check(model, version)
        await ready()
        return {"name": service.model, "ready": True}

    async def model_config(model: str, version: str = "1") -> dict[str, Any]:
        """The model's configuration, in Triton's form."""
        check(model, version)
        return tensors.config(service.model, outputs)

    async def infer(request: Request, model: str, version: str = "1") -> Response:
        """Segment a frame, `uint8 [H, W, 3]`."""
        check(model, version)
        encoding, length = request.headers.get("content-encoding", ""), request.headers.get(_LENGTH)
        most = service.room.max_bytes

        def read(body: bytes) -> tensors.Inference:
            return tensors.parsed(tensors.inflated(body, encoding, most), length, runtime.options.max_pixels)

        def segment(given: tensors.Inference) -> Segmentation:
            is_semantic = any(name.startswith("semantic_") for name in given.asked)
            asked: dict[str, Any] = {"confidence": "confidence" in given.asked, "semantic": is_semantic}
            asked |= given.limits
            try:
                return runtime.segment(given.frame, color=given.color, **asked)
            except ValueError as error:
                raise RefusalError(400, str(error)) from None

        def answer(given: tensors.Inference, result: Segmentation) -> tuple[bytes, dict[str, str]]:
            body, header_length = tensors.composed(given, result, service.model)
            return body, {} if header_length is None else {_LENGTH: str(header_length)}

        body, headers = await computed(request, service, read, segment, answer)
        kind = "application/octet-stream" if _LENGTH in headers else "application/json"
        return Response(body, headers=headers, media_type=kind)

    schema = {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "array"}}}
    for prefix in ("/models/{model}", "/models/{model}/versions/{version}"):
        router.get(prefix, responses=faults(401, 404))(model)
        router.get(f"{prefix}/ready", responses=faults(401, 404, 503))(model_ready)
        router.get(f"{prefix}/config", responses=faults(401, 404))(model_config)
        router.post(
            f"{prefix}/infer",
            response_class=Response,
            responses=faults(400, 401, 403, 404, 408, 413, 415, 503)
            | {200: {"content": {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": {}}}},
            openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
        )(infer)
    return router
