"""`errseg-rt serve` from its start to its end."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from errseg_rt.cli.serve import _token
from tests.service.serving import until
from tests.service.test_segment import refused

PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
from errseg_rt.cli import main
main()
"""


@contextmanager
def started(*arguments: str, program: str = PROGRAM) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, once it serves, and its address."""
    command = [sys.executable, "-c", program, "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"serving camvid at (https?://\S+)\n", line)
            assert found, (line, process.stderr.read())
            yield process, found[1]
        finally:
            process.kill()


def test_sigterm_under_load_loses_nothing(kernels_are_compiled, image) -> None:
    statuses: list[int] = []
    lost: list[str] = []
    with started("scene:3", "--grace", "20") as (process, url), httpx.Client(base_url=url) as asking:
        is_over = threading.Event()

        def load(keeps: bool) -> None:
            with httpx.Client(base_url=url, timeout=60) as kept:
                while not is_over.is_set():
                    try:
                        answer = (kept if keeps else httpx).post(f"{url}/v1/segment", content=image, timeout=60)
                        statuses.append(answer.status_code)
                    except httpx.ConnectError:  # it was never taken
                        return
                    except httpx.HTTPError as error:
                        lost.append(repr(error))
                        return

        threads = [threading.Thread(target=load, args=(number % 2 == 0,)) for number in range(4)]
        for thread in threads:
            thread.start()
        with connect(url.replace("http", "ws") + "/v1/stream") as stream:
            until(lambda: len(statuses) > 8)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            until(lambda: asking.get("/readyz").status_code == 503)
            refused(asking.get("/v2/health/ready"), 503, "the service ends")
            assert asking.get("/healthz").status_code == 200
            assert json.loads(stream.recv(timeout=10)) == {"goodbye": "the service ends"}
            with pytest.raises(ConnectionClosed):
                stream.recv(timeout=10)
            assert stream.protocol.close_code == 1001
        assert process.wait(30) == 0
        assert time.monotonic() - begun < 20 + 2
        is_over.set()
        for thread in threads:
            thread.join(30)
        assert process.stderr.read() == ""
    assert lost == []
    assert set(statuses) == {200}


@pytest.mark.parametrize("waits", [0.0, 0.2])
def test_whoever_has_connected_is_answered(kernels_are_compiled, waits) -> None:
    """Also who connects in the very moment of the end, and who takes a while to say what for."""
    answers: list[bytes] = []
    with started("--grace", "4") as (process, url):
        host, _, port = url.partition("://")[2].partition(":")

        def ask() -> None:
            while True:
                try:
                    made = socket.create_connection((host, int(port)))
                except ConnectionRefusedError:
                    return
                with made:
                    time.sleep(waits)
                    try:
                        made.sendall(f"GET /healthz HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
                        answers.append(made.recv(4096)[:15])
                    except OSError as error:
                        answers.append(repr(error).encode())

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        process.terminate()
        assert process.wait(30) == 0
        for thread in threads:
            thread.join(30)
        assert process.stderr.read() == ""
    assert len(answers) > 8
    assert set(answers) == {b"HTTP/1.1 200 OK"}


def test_streams_that_do_not_close_do_not_hold_it(kernels_are_compiled) -> None:
    with started("--grace", "2") as (process, url):
        host, _, port = url.partition("://")[2].partition(":")
        with socket.create_connection((host, int(port))) as raw:  # that never answers the goodbye
            raw.sendall(
                f"GET /v1/stream HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            assert raw.recv(4096).split()[1] == b"101"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_a_frame_that_takes_longer_than_the_grace(kernels_are_compiled, image) -> None:
    endless = "import time, errseg_rt.runtime as r; r.Runtime.segment = lambda *_, **__: time.sleep(600)\n"
    with started("--grace", "2", program=endless + PROGRAM) as (process, url):
        host, _, port = url.partition("://")[2].partition(":")
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(f"POST /v1/segment HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(image)}\r\n\r\n".encode())
            raw.sendall(image)
            until(lambda: "errseg_clients 1.0" in httpx.get(f"{url}/metrics").text)
            process.terminate()
            assert process.wait(60) == 0


def test_tls(kernels_are_compiled, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    files = {name: str(tmp_path / f"{name}.pem") for name in ("key", "cert")}
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", files["key"]]
    command += ["-out", files["cert"], "-subj", "/CN=errseg", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    trusted = ssl.create_default_context(cafile=files["cert"])
    with started("--tls-cert", files["cert"], "--tls-key", files["key"], "--grace", "1") as (process, url):
        assert url.startswith("https://127.0.0.1:")
        assert httpx.get(f"{url}/healthz", verify=trusted).status_code == 200
        with connect(url.replace("https", "wss") + "/v1/stream", ssl=trusted) as stream:
            stream.send(b"no image")
            assert "error" in json.loads(stream.recv(timeout=30))
        process.terminate()
        assert process.wait(30) == 0


def test_ctrl_c(kernels_are_compiled) -> None:
    with started("--grace", "1") as (process, _):
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=30)
    assert (process.returncode, out, said) == (130, "", "")


def test_a_token_of_a_file(kernels_are_compiled, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("open sesame please\n")
    with started("--token-file", str(tmp_path / "token"), "--host", "0.0.0.0", "--grace", "1") as (process, url):
        url = url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/status").status_code == 401
        assert httpx.get(f"{url}/v1/status", headers={"Authorization": "Bearer open sesame please"}).status_code == 200
        process.terminate()
        assert "sesame" not in process.communicate(timeout=30)[1]


def test_a_token_of_the_environment(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ERRSEG_TOKEN", "of the environment")
    assert _token(None) == "of the environment"
    (tmp_path / "token").write_text("of the file\n")
    assert _token(tmp_path / "token") == "of the file"
    monkeypatch.setenv("ERRSEG_TOKEN", "")
    assert _token(None) is None


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("none.mp4",), "none.mp4: there is no such file or folder; a source is a video"),
        (("rtsp://me:hunter2@127.0.0.1:9/x",), "rtsp://me:***@127.0.0.1:9/x: cannot be opened"),
        (("--host", "203.0.113.7"), "203.0.113.7:8000: cannot be listened at"),
        (("--host", "no such host"), "no such host:8000: cannot be listened at"),
        (("--token-file", "none"), "none: the token cannot be read (No such file or directory)"),
        (("--token-file", "short"), "--token: token must be of at least 8 printable"),
        (("--queue", "-1"), "--queue: queue must be at least 0, got -1"),
        (("--grace", "nan"), "--grace: grace must be above 0, got nan"),
        (("--bundle", "none"), "none"),
        (("--tls-cert", "short", "--tls-key", "short", "--port", "0"), "certificate and key cannot be used"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_served_is_one_line(cli, tmp_path: Path, monkeypatch, arguments, fault) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short").write_text("short")
    done = cli("serve", *arguments)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert fault in line
    assert "hunter2" not in line


def test_a_port_in_use(cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli("serve", "--port", str(port))
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"error: 127.0.0.1:{port}: cannot be listened at (Address already in use); give another --port or --host\n"
    )


def test_what_is_not_installed_is_one_line(cli, monkeypatch) -> None:
    monkeypatch.setattr("errseg_rt.cli.serve.find_spec", lambda name: None if name == "fastapi" else object())
    done = cli("serve")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: serve needs fastapi, which the extra serve brings: pip install 'errseg-rt[serve]'\n"
