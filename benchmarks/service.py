"""Does the service lose nothing, use the machine and keep its memory, and is the page's picture near?

    python -m benchmarks.service

Linux only. `errseg-rt serve` runs in a process of its own, whose CPU time and memory are read from /proc. Eight clients
send images of mixed sizes, a twentieth of them broken; then images of one size; then Triton's own client
(`tritonclient[http]`, where it is installed) and `POST /v1/segment` in turn. For the viewer, who is root, a network
namespace has a link of 4 Mbit/s to frames that are segmented ahead, once by `/v1/source` and once by a plain MJPEG
response of the same pictures (frame, labels, error map, figures), which is what others send.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np

from benchmarks.report import Row, compare, finish
from errseg_rt import Runtime
from errseg_rt.scenes import StreetScene
from errseg_rt.system.cores import usable_cores
from errseg_rt.video.drawing import drawn

CLIENTS = 8
SIZES = ((360, 480), (240, 320), (181, 333), (480, 640), (97, 129), (360, 640))
BROKEN = 20  # one request in so many
BREAKS = ("empty", "text", "cut", "bomb", "form", "parameter")
STATUSES = {"empty": 400, "text": 415, "cut": 400, "bomb": 400, "form": 415, "parameter": 422}
NAMESPACE, LINK, NEAR, FAR = "errseg-bench", "errseg-b", "10.231.7.1", "10.231.7.2"
RATE, WAIT = "4mbit", "100ms"  # of the link, and how long it queues
FPS = 25


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="requests of mixed sizes")
    parser.add_argument("--one-size", type=int, default=400, help="requests of one size")
    parser.add_argument("--pairs", type=int, default=60, help="of Triton's client and a plain request")
    parser.add_argument("--viewing", type=float, default=30, help="seconds of each viewer; 0: none")
    parser.add_argument("--viewer", nargs=2, help=argparse.SUPPRESS)  # what is run within the namespace
    args, rest = parser.parse_known_args()
    if args.viewer:
        print(json.dumps(VIEWERS[args.viewer[0]](args.viewer[1], args.viewing)))
        return
    rows: list[Row] = []
    with started() as (process, address):
        rows += load(process.pid, address, args.count)
        rows += one_size(address, args.one_size)
        rows += protocols(address, args.pairs)
        before = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        rows.append(Row("service/end", time.monotonic() - before, "s", note=f"from SIGTERM; exit code {code}"))
    if args.viewing:
        rows += viewers(args.viewing)
    finish(rows, "service", rest)


@contextmanager
def started() -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """The service, and where it is."""
    command = [sys.executable, "-c", "from errseg_rt.cli import main; main()", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            found = re.search(r"http://([\d.]+):(\d+)", process.stdout.readline())
            yield process, (found[1], int(found[2]))
        finally:
            process.kill()


def post(to: http.client.HTTPConnection, body: bytes, path: str = "/v1/segment", kind: str = "image/png") -> int:
    """Status of an answer, whose body is read."""
    to.request("POST", path, body, {"Content-Type": kind})
    answer = to.getresponse()
    answer.read()
    return answer.status


def images() -> list[bytes]:
    """A street in each size, as a PNG."""
    return [cv2.imencode(".png", StreetScene(5, *size).frame(0).frame)[1].tobytes() for size in SIZES]


def broken(kind: str, whole: bytes) -> tuple[bytes, str, str]:
    """Body, path and type of a request that is to be refused."""
    path = "/v1/segment?threshold=7" if kind == "parameter" else "/v1/segment"
    bomb = whole[:16] + (30_000).to_bytes(4, "big") * 2 + whole[24:]  # a header that says 30000x30000
    bomb = bomb[:29] + crc32(bomb[12:29]).to_bytes(4, "big") + bomb[33:]
    body = {"empty": b"", "text": b"no image " * 99, "cut": whole[: len(whole) // 2], "bomb": bomb}.get(kind, whole)
    return body, path, "multipart/form-data" if kind == "form" else "image/png"


def load(process: int, address: tuple[str, int], count: int) -> list[Row]:
    """Requests of eight clients: what failed, how much of the machine was used, what memory it took."""
    whole, numbers = images(), iter(range(count))
    wrong: list[str] = []
    memory: dict[int, float] = {}
    lock, done = threading.Lock(), itertools.count(1)

    def client() -> None:
        to = http.client.HTTPConnection(*address, timeout=120)
        while (number := _next(numbers, lock)) is not None:
            kind = BREAKS[number // BROKEN % len(BREAKS)] if number % BROKEN == 0 else ""
            body, path, media = whole[number % len(whole)], "/v1/segment", "image/png"
            if kind:
                body, path, media = broken(kind, body)
            try:
                status = post(to, body, path, media)
                if status != STATUSES.get(kind, 200):
                    wrong.append(f"{number} {kind or 'whole'}: {status}")
            except (OSError, http.client.HTTPException) as error:
                wrong.append(f"{number} {kind or 'whole'}: {error!r}")
                to.close()
            at = next(done)
            if at in (count // 4, count):
                memory[at] = resident(process)

    begun, used, idle = time.perf_counter(), cpu_seconds(process), idle_seconds()
    _side_by_side(client, CLIENTS)
    wall, used, idle = time.perf_counter() - begun, cpu_seconds(process) - used, idle_seconds() - idle
    cores = usable_cores()
    growth = memory[count] / memory[count // 4]
    note = f"{count} requests of {CLIENTS} clients, {len(SIZES)} sizes, one in {BROKEN} broken"
    return [
        Row("service/load/wrong", len(wrong), "answers", note="; ".join([f"{note}; bar: 0", *wrong[:5]])),
        Row("service/load/rate", count / wall, "requests/s", note=note),
        Row(
            "service/load/of_the_ideal",
            used / wall / cores,
            "share",
            note=f"of cores / (CPU time of a request), {1000 * used / count:.1f} ms on {cores} cores; bar: 0.85; the "
            f"clients run on the same cores, of which {idle / wall / (os.cpu_count() or 1):.1%} were idle",
        ),
        Row("service/load/memory", memory[count], "MB", note="resident, at the end"),
        Row(
            "service/load/memory_growth",
            growth,
            "times",
            note=f"after {count} requests over that after {count // 4}; bar: 1.05",
        ),
    ]


def one_size(address: tuple[str, int], count: int) -> list[Row]:
    """Times of requests of one size, of eight clients."""
    body, numbers, lock = images()[0], iter(range(count)), threading.Lock()
    times: list[float] = []

    def client() -> None:
        to = http.client.HTTPConnection(*address, timeout=120)
        while _next(numbers, lock) is not None:
            begun = time.perf_counter()
            if post(to, body) != 200:
                raise AssertionError("a request failed")
            times.append(1000 * (time.perf_counter() - begun))

    _side_by_side(client, CLIENTS)
    low, middle, high, p95 = (float(q) for q in np.quantile(times, (0.1, 0.5, 0.9, 0.95)))
    note = f"{len(times)} requests of {CLIENTS} clients, 360x480"
    return [
        Row("service/one_size/time", middle, "ms", quantiles=(low, middle, high), note=note),
        Row("service/one_size/p95", p95 / middle, "medians", note=f"{note}; bar: 1.5"),
    ]


def protocols(address: tuple[str, int], pairs: int) -> list[Row]:
    """Triton's client with bytes, against a plain request with a PNG, in turn."""
    try:
        import tritonclient.http as triton
    except ImportError:
        return [Row("service/inference_protocol", float("nan"), "ms", note="not measured: tritonclient is not there")]
    frame = StreetScene(5, *SIZES[0]).frame(0).frame
    body, to = images()[0], http.client.HTTPConnection(*address, timeout=120)
    given = triton.InferInput("frame", list(frame.shape), "UINT8")
    given.set_data_from_numpy(frame)
    wanted = [triton.InferRequestedOutput("labels")]
    with triton.InferenceServerClient(":".join(map(str, address))) as client:
        row = compare(
            "service/inference_protocol",
            lambda: client.infer("camvid", [given], outputs=wanted).as_numpy("labels"),
            lambda: post(to, body),
            pairs=pairs,
            note="tritonclient with bytes, against POST /v1/segment with a PNG; bar: 1 / 1.2 = 0.83",
        )
    return [row]


def _next(numbers: Iterator[int], lock: Any) -> int | None:
    with lock:
        return next(numbers, None)


def _side_by_side(function: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=function) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def cpu_seconds(process: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_seconds() -> float:
    """Idle time of all cores of the machine so far; what is neither idle nor ours went to others."""
    return int(Path("/proc/stat").read_text(encoding="ascii").split()[4]) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> float:
    """Its memory in MB."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s*(\d+)", text)[1]) * 1024 / 1e6


class Canned:
    """A runtime that gives results which were made ahead, so that only what is sent costs time.

    Args:
        runtime: Makes them.
        frames: Of these.
    """

    def __init__(self, runtime: Runtime, frames: list[np.ndarray]) -> None:
        self._runtime = runtime
        self.results = {crc32(frame): runtime.segment(frame, semantic=True) for frame in frames}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def segment(self, frame: np.ndarray, **_: Any) -> Any:
        """As `Runtime.segment`, of what is known."""
        return self.results[crc32(np.ascontiguousarray(frame))]


def viewers(seconds: float) -> list[Row]:
    """Ages of what two viewers see, and frames that were sent to one who takes 150 ms for each."""
    from errseg_rt.service.live import Live
    from errseg_rt.service.server import Server, listen
    from errseg_rt.service.settings import Settings
    from errseg_rt.service.state import Service
    from errseg_rt.video.given import IterableSource

    scene = StreetScene(5, 360, 480, FPS)
    frames = [scene.frame(index).frame for index in range(2 * FPS)]
    with ExitStack() as stack:
        runtime = stack.enter_context(Runtime(threads=1))
        canned = Canned(runtime, frames)
        endless = ((frames[index % len(frames)], index / FPS) for index in itertools.count())
        service = Service(canned, Settings(grace=2))
        service.live = Live(canned, IterableSource(endless), service.metrics, 1)
        service.live.start()
        stack.callback(service.live.close)
        listening = listen("0.0.0.0", 0)
        server = Server(service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        stack.callback(thread.join, 20)
        stack.callback(server.end, signal.SIGTERM)
        mjpeg = stack.enter_context(served_mjpeg(service.live))
        port = listening.getsockname()[1]
        while not server.started:
            time.sleep(0.01)
        slow = watch_slowly(f"127.0.0.1:{port}", min(seconds, 10))
        rows = [
            Row(
                "service/viewer/sent_beyond_shown",
                slow["sent"] - slow["shown"],
                "frames",
                note=f"to a viewer who takes 150 ms for each: {slow['sent']} sent of {slow['made']} made; bar: 2",
            )
        ]
        if os.geteuid():
            return [*rows, Row("service/viewer/age", float("nan"), "ms", note="not measured: only root has namespaces")]
        with narrow_link():
            ours = _within("source", f"{NEAR}:{port}", seconds)
            theirs = _within("mjpeg", f"{NEAR}:{mjpeg}", seconds)
    middle, other = statistics.median(ours["ages"]), statistics.median(theirs["ages"])
    note = (
        f"median of {len(ours['ages'])} and {len(theirs['ages'])} frames in {seconds:g} s, behind {RATE}; the last: "
        f"{ours['ages'][-1]:.0f} and {theirs['ages'][-1]:.0f} ms; bar: 5 times"
    )
    return [*rows, Row("service/viewer/age", middle, "ms", other, other / middle, note=note)]


def _within(what: str, address: str, seconds: float) -> dict[str, Any]:
    """What a viewer in the namespace reports."""
    command = ["ip", "netns", "exec", NAMESPACE, sys.executable, "-m", "benchmarks.service"]
    command += ["--viewing", str(seconds), "--viewer", what, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@contextmanager
def narrow_link() -> Iterator[None]:
    """A network namespace at the other end of a narrow link."""

    def ip(*arguments: str) -> None:
        subprocess.run(arguments, check=True, capture_output=True)

    subprocess.run(("ip", "netns", "del", NAMESPACE), check=False, capture_output=True)  # of a run that was killed
    ip("ip", "netns", "add", NAMESPACE)
    try:
        ip("ip", "link", "add", LINK, "type", "veth", "peer", "name", f"{LINK}-far", "netns", NAMESPACE)
        ip("ip", "addr", "add", f"{NEAR}/24", "dev", LINK)
        ip("ip", "link", "set", LINK, "up")
        ip("ip", "-n", NAMESPACE, "addr", "add", f"{FAR}/24", "dev", f"{LINK}-far")
        ip("ip", "-n", NAMESPACE, "link", "set", f"{LINK}-far", "up")
        ip("tc", "qdisc", "add", "dev", LINK, "root", "tbf", "rate", RATE, "burst", "16k", "latency", WAIT)
        yield
    finally:
        ip("ip", "netns", "del", NAMESPACE)  # and its end of the link, and with it ours


@contextmanager
def served_mjpeg(live: Any) -> Iterator[int]:
    """The port of a plain MJPEG response of the same frames, each with the time when its source gave it."""
    drawings: dict[int, bytes] = {}

    def jpeg(shot: Any) -> bytes:
        key = id(shot.result)
        if key not in drawings:
            picture = drawn("side-by-side", shot.frame, shot.result, shot.timestamp)
            drawings[key] = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 80))[1].tobytes()
        return drawings[key]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            index = -1
            try:
                while True:
                    shot = live._shot
                    if shot is None or shot.index == index:
                        time.sleep(0.002)
                        continue
                    index, data = shot.index, jpeg(shot)
                    head = f"--frame\r\nX-Time: {shot.captured_at}\r\nContent-Length: {len(data)}\r\n\r\n"
                    self.wfile.write(head.encode() + data + b"\r\n")
            except OSError:
                return

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def watch_source(address: str, seconds: float) -> dict[str, Any]:
    """Ages in ms of what a viewer of `/v1/source` gets, who shows it at once."""
    from websockets.sync.client import connect

    ages, end = [], time.monotonic() + seconds
    with connect(f"ws://{address}/v1/source", max_size=None, compression=None) as stream:
        while time.monotonic() < end:
            message = stream.recv(timeout=30)
            head = json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])
            ages.append(1000 * (time.time() - head["captured_at"]))
            stream.send(json.dumps({"shown": head["index"]}))
    return {"ages": ages}


def watch_mjpeg(address: str, seconds: float) -> dict[str, Any]:
    """Likewise of a plain MJPEG response."""
    host, _, port = address.partition(":")
    ages, end = [], time.monotonic() + seconds
    with socket.create_connection((host, int(port)), timeout=30) as raw, raw.makefile("rb") as stream:
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while time.monotonic() < end:
            head = {}
            while (line := stream.readline().strip()) or not head:
                name, _, value = line.partition(b": ")
                if value:
                    head[name] = value
                if b"X-Time" in head and b"Content-Length" in head and not line:
                    break
            if b"X-Time" in head:
                stream.read(int(head[b"Content-Length"]))
                ages.append(1000 * (time.time() - float(head[b"X-Time"])))
    return {"ages": ages}


def watch_slowly(address: str, seconds: float) -> dict[str, Any]:
    """How many frames come to a viewer who takes 150 ms for each."""
    from websockets.sync.client import connect

    sent, shown, first, last, end = 0, 0, None, 0, time.monotonic() + seconds
    with connect(f"ws://{address}/v1/source", max_size=None, compression=None) as stream:
        while time.monotonic() < end:
            message = stream.recv(timeout=30)
            sent += 1
            head = json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])
            first, last = head["index"] if first is None else first, head["index"]
            time.sleep(0.15)
            shown += 1
            stream.send(json.dumps({"shown": head["index"]}))
        try:
            while stream.recv(timeout=0.3):
                sent += 1
        except TimeoutError:
            pass
    return {"sent": sent, "shown": shown, "made": last - first}


VIEWERS = {"source": watch_source, "mjpeg": watch_mjpeg}


if __name__ == "__main__":
    main()
