"""What a client is told that is not served: a status, and one line of JSON, `{"error": ...}`."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from errseg_rt.system.lines import one_line


class RefusalError(Exception):
    """A request that is not served.

    Args:
        status: Of HTTP.
        text: What is wrong, and how to mend it.
        headers: Of the answer.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.headers = status, dict(headers or {})

    def response(self) -> JSONResponse:
        """The answer."""
        return refused(self.status, str(self), self.headers)


class BusyError(RefusalError):
    """There is no room now; a second later there may be."""

    def __init__(self, text: str) -> None:
        super().__init__(503, text, {"Retry-After": "1"})


class GoneError(Exception):
    """The client is gone; what it wanted is not computed."""


def refused(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An answer that says what is wrong; clients of the Open Inference Protocol read no other form."""
    return JSONResponse({"error": one_line(text)}, status, headers)
