"""What OpenAPI says of answers that are refusals."""

from __future__ import annotations

from typing import Any

_WHY = {
    400: "The request is not understood.",
    401: "A token is wanted, or is wrong.",
    403: "A page of another origin calls.",
    404: "There is no such thing.",
    405: "The route has no such method.",
    406: "There is no answer of that kind.",
    408: "The body came too slowly.",
    413: "The body or the frame is too large.",
    415: "The body is of a kind that is not taken.",
    421: "The service is not called by that name.",
    422: "A parameter is out of range.",
    503: "There is no room now, or the service ends.",
}
_SCHEMA = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that refuses with these, beside what the guard and any route refuse with."""
    content = {"application/json": {"schema": _SCHEMA}}
    return {status: {"description": _WHY[status], "content": content} for status in sorted({*statuses, 405, 421, 422})}
