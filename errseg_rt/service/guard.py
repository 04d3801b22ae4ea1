"""Who is let in: by the name that the service was called by, the page that calls, and the token that is shown.

Any web page may have its reader's browser call a port of the reader's own machine. It cannot forge the headers Host and
Origin, which tell: a name of its own that leads here (host rebinding), and a page of another origin.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from errseg_rt.service.refusal import refused

OPEN = {"/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
"""Routes without a token, beside the files of the page: they tell nothing."""
STATIC = "/page/"
TOKEN_PROTOCOL = "errseg.token."
"""Begin of the WebSocket sub-protocol by which a browser shows a token, in base64url: it can set no headers there."""
PROTOCOL = "errseg.v1"
"""The sub-protocol that is answered."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_SECURE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets requests through to an application, or refuses them.

    Args:
        app: The application.
        names: Names, or names and ports, that users call it by.
        token: What clients have to show; None: nothing.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = (), token: str | None = None) -> None:
        self._app, self._names = app, {name.lower() for name in names}
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As every application of ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in _SECURE.items():
                    headers.setdefault(name, value)
            await send(message)

        fault = self._fault(scope, Headers(scope=scope))
        if fault is None:
            await self._app(scope, receive, secured)
            return
        status, text = fault
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        await refused(status, text, headers)(scope, receive, secured)

    def _fault(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return 421, "this service is not called by that name; its operator may allow it by --public-name"
        is_risky = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if is_risky and any(not self._is_own(origin, hosts[0]) for origin in headers.getlist("origin")):
            return 403, "pages of other origins may not call this service; its operator may allow them by --public-name"
        path = scope["path"]
        if self._token is not None and path not in OPEN and not path.startswith(STATIC):
            shown = _shown(headers)
            if shown is None:
                return 401, "a token is wanted: send the header Authorization: Bearer TOKEN"
            if not hmac.compare_digest(shown, self._token):
                return 401, "the token is wrong"
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host is an address, which no name server can turn on us, or a name that we go by."""
        host = host.lower()
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name == "localhost" or _is_address(name) or name in self._names or host in self._names

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether a page comes from this service, or from a name that we go by."""
        place = origin.lower().partition("://")[2]
        return bool(place) and (place == host.lower() or place in self._names)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _shown(headers: Headers) -> bytes | None:
    """The token that a client shows; None where it shows none."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip().encode()
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        text = protocol.strip()
        if text.startswith(TOKEN_PROTOCOL):
            text = text.removeprefix(TOKEN_PROTOCOL)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            except (binascii.Error, ValueError):
                return b""
    return None
