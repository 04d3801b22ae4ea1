"""Who is let in: by Host, Origin and token."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from errseg_rt.runtime import Runtime
from errseg_rt.service.settings import Settings
from tests.service.serving import Serving, serving
from tests.service.test_segment import refused

TOKEN = "correct horse battery"


@pytest.fixture(scope="module")
def locked(runtime: Runtime, kernels_are_compiled: None) -> Iterator[Serving]:
    """A service that wants a token, behind a name."""
    with serving(runtime, token=TOKEN, names=("cams.example.org", "proxy.example.org:8443")) as found:
        yield found


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9", "127.0.0.1", "[::1]:8000", "192.168.3.4:80", "cams.example.org", "CAMS.example.org:1",
     "proxy.example.org:8443"],
)  # fmt: skip
def test_names_that_are_ours(locked: Serving, host) -> None:
    assert httpx.get(f"{locked.url}/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "proxy.example.org", "localhost.evil.example", "", "[::1", "a b"]
)
def test_a_name_that_was_turned_on_us(locked: Serving, host) -> None:
    for path in ("/", "/healthz", "/metrics", "/v2", "/page/page.js"):
        refused(httpx.get(f"{locked.url}{path}", headers={"Host": host}), 421, "--public-name")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1", 403),
        ("https://cams.example.org.evil.example", 403),
        ("", 403),
        ("https://cams.example.org", 200),
        ("https://proxy.example.org:8443", 200),
        ("own", 200),
        (None, 200),
    ],
)
def test_pages_of_other_origins(locked: Serving, image, caplog, origin, status) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    if origin is not None:
        headers["Origin"] = locked.url if origin == "own" else origin
    answer = httpx.post(f"{locked.url}/v1/segment", content=image, headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers
    protocols = ["errseg.v1", "errseg.token." + base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")]
    origin = locked.url if origin == "own" else origin
    if status == 200:
        with connect(locked.stream("/v1/stream"), origin=origin, subprotocols=protocols) as socket:
            assert socket.subprotocol == "errseg.v1"
    else:
        with pytest.raises(InvalidStatus) as error:
            connect(locked.stream("/v1/stream"), origin=origin, subprotocols=protocols)
        assert error.value.response.status_code == 403
        assert not caplog.records
        assert "other origins" in json.loads(error.value.response.body)["error"]


def test_preflights_are_not_answered(locked: Serving) -> None:
    headers = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Authorization": f"Bearer {TOKEN}",
    }
    answer = httpx.options(f"{locked.url}/v1/segment", headers=headers)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "shown", [None, "Bearer wrong", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"], ids=str
)
def test_a_token_that_is_missing_or_wrong(locked: Serving, image, shown) -> None:
    headers = {} if shown is None else {"Authorization": shown.encode()}
    for path in ("/v1/status", "/metrics", "/v2", "/openapi.json", "/nothing"):
        answer = httpx.get(f"{locked.url}{path}", headers=headers)
        refused(answer, 401, "token")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.text
    refused(httpx.post(f"{locked.url}/v1/segment", content=image, headers=headers), 401)
    with pytest.raises(InvalidStatus) as error:
        connect(locked.stream("/v1/stream"), additional_headers={} if shown is None else {"Authorization": "Bearer x"})
    assert error.value.response.status_code == 401


def test_what_tells_nothing_wants_no_token(locked: Serving, image) -> None:
    for path in ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/page/page.js", "/page/page.css"):
        assert httpx.get(f"{locked.url}{path}").status_code == 200
    assert httpx.get(f"{locked.url}/v1/status", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200
    with connect(locked.stream("/v1/stream"), additional_headers={"Authorization": f"Bearer {TOKEN}"}):
        pass


def test_every_answer_is_told_to_be_read_strictly(client) -> None:
    for path in ("/", "/page/page.js", "/healthz", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_a_token_is_never_shown() -> None:
    assert TOKEN not in repr(Settings(token=TOKEN))
    for token in ("short", "with\nbreak", "naïve token", ""):
        with pytest.raises(ValueError, match="token must be of at least 8"):
            Settings(token=token)
