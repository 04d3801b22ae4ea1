"""Sources over a network, held against a real RTSP server and FFmpeg's own senders, on loopback."""

from __future__ import annotations

import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from errseg_rt.errors import SourceError
from errseg_rt.options import Options
from errseg_rt.video.live import Patience, UrlSource
from errseg_rt.video.open import open_source
from errseg_rt.video.picture import CONNECTED, ENDED, LOST
from errseg_rt.video.stream import Stream
from tests.video.clips import number_of, read_clip, write_clip
from tests.video.services import lacking, program

PYTHON = "/usr/bin/python3"
BITS = 32  # as the server draws them
SERVER = Path(__file__).with_name("rtsp_server.py")
TEST_PICTURE = ("-re", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25")
DAY = 86_400_000  # ms
SOON = 15.0  # seconds that a frame is waited for, on a machine as slow as may be

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Debian's programs")


def bars_of(frame: np.ndarray) -> tuple[int, int]:
    """Number and milliseconds of the day that a picture of the server tells."""
    height, width = frame.shape[:2]
    columns = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    rows = (frame[height // 8, columns].mean(1) > 125, frame[3 * height // 8, columns].mean(1) > 125)
    number, millis = (sum(1 << bit for bit, is_set in enumerate(row) if is_set) for row in rows)
    return number, millis


def age_of(frame: np.ndarray) -> float:
    """Seconds since a picture was made."""
    return ((int(time.time() * 1000) - bars_of(frame)[1]) % DAY) / 1000


class Server:
    """A camera: started, stopped, held and let go."""

    def __init__(self, port: int, *arguments: str) -> None:
        self.url = f"rtsp://127.0.0.1:{port}/cam"
        self._command = [PYTHON, str(SERVER), str(port), *arguments]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self._process.stdout.readline() != "listening\n":
            said = self._process.communicate()[1]
            if "ModuleNotFoundError" in said or "Namespace" in said:
                lacking("Debian's packages gir1.2-gst-rtsp-server-1.0 and python3-gi")
            pytest.fail(said)

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture
def camera(unused_port: int) -> Iterator[Callable[..., Server]]:
    """Starts a camera."""
    if not Path(PYTHON).exists():
        lacking(f"Debian's own Python, {PYTHON}")
    servers = []

    def started(*arguments: str) -> Server:
        servers.append(Server(unused_port, *arguments))
        servers[-1].start()
        return servers[-1]

    yield started
    for server in servers:
        server.kill()


@pytest.fixture
def sender() -> Iterator[Callable[..., None]]:
    """Starts an FFmpeg that sends something."""
    processes = []

    def started(*arguments: str | Path) -> None:
        command = [program("ffmpeg"), "-nostdin", "-v", "error", *map(str, arguments)]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))

    yield started
    for process in processes:
        process.kill()
        process.wait()


def read(source, until: Callable[[list], bool], seconds: float = SOON) -> list:
    """Pictures, until there are enough; the source is watched over, so that no test waits for ever."""
    stop, found = threading.Event(), []
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    try:
        for picture in source.pictures(stop):
            found.append(picture)
            if until(found):
                break
    finally:
        timer.cancel()
    assert until(found), f"{len(found)} pictures in {seconds} seconds"
    return found


@pytest.mark.parametrize(
    ("codec", "transport"), [("h264", "tcp"), ("hevc", "tcp"), ("mjpeg", "tcp"), ("h264", "udp")], ids=str
)
def test_each_frame_of_a_camera_comes_once_and_in_its_time(camera, codec, transport) -> None:
    source = open_source(camera(codec).url, transport=transport)
    found = read(source, lambda found: len(found) >= 50)
    numbers = [bars_of(picture.frame)[0] for picture in found]
    assert numbers == list(range(numbers[0], numbers[0] + 50))
    stamps = [picture.timestamp for picture in found]
    assert stamps[0] == 0
    assert stamps == sorted(stamps)
    assert age_of(found[-1].frame) < 2
    assert (source.is_live, source.state, source.faults.corrupt, source.faults.reopened) == (True, CONNECTED, 0, 0)


def test_a_camera_that_is_gone_comes_back(camera) -> None:
    server = camera()
    source = UrlSource(server.url)
    back: list[float] = []

    def restart() -> None:
        server.kill()
        time.sleep(1)
        server.start()
        back.append(time.monotonic())

    again = threading.Thread(target=restart)

    def is_enough(found) -> bool:
        if len(found) == 30:
            again.start()
        return bool(back) and source.faults.reopened > 0

    found = read(source, is_enough, 40)
    again.join()
    assert time.monotonic() - back[0] < SOON
    stamps = [picture.timestamp for picture in found]
    assert stamps == sorted(stamps)
    assert [picture.index for picture in found] == list(range(len(found)))
    assert max(np.diff(stamps)) > 0.9  # time went on while it was gone


class Slow:
    """Stands for a runtime that takes its time."""

    def __init__(self, seconds: float) -> None:
        self.options, self.seconds = Options(threads=1), seconds

    def segment(self, frame, **_asked):
        from types import SimpleNamespace

        time.sleep(self.seconds)
        return SimpleNamespace(timings={})


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "errseg-stream"]


def test_a_camera_that_hangs_is_noticed_and_holds_nobody_up(camera) -> None:
    server = camera()
    source = UrlSource(server.url)
    with Stream(Slow(0.0), source) as stream:
        for _ in range(10):
            next(stream)
        server.send(signal.SIGSTOP)
        begun = time.monotonic()
        while source.state != LOST:
            assert time.monotonic() - begun < SOON
            time.sleep(0.01)
        time.sleep(0.6)  # until it is being opened again, which a hung camera answers as little
        begun = time.monotonic()
    assert time.monotonic() - begun < SOON
    assert names() == []


def test_a_camera_that_is_heard_and_not_seen_any_more_is_noticed(sender, unused_port: int) -> None:
    url = f"http://127.0.0.1:{unused_port}/cam.ts"
    picture = ("-re", "-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=4")
    sound = ("-re", "-f", "lavfi", "-i", "sine=duration=600", "-c:v", "libx264", "-bf", "0", "-g", "5")
    at_once = ("-c:a", "mp2", "-max_interleave_delta", "1", "-flush_packets", "1", "-f", "mpegts", "-listen", "1")
    sender(*picture, *sound, *at_once, url)
    fault = ""
    while "it is given up" not in fault:  # before it listens it is refused
        with pytest.raises(SourceError) as raised:
            read(UrlSource(url, patience=Patience(reading=1.0, give_up=0.5)), lambda found: False)
        fault = str(raised.value)
        time.sleep(0.1)


def test_a_camera_that_hung_goes_on(camera) -> None:
    server = camera()
    source = UrlSource(server.url, patience=Patience(reading=1.0))
    let_go: list[float] = []

    def hold() -> None:
        server.send(signal.SIGSTOP)
        time.sleep(2)
        server.send(signal.SIGCONT)
        let_go.append(time.monotonic())

    thread = threading.Thread(target=hold)

    def is_enough(found) -> bool:
        if len(found) == 10:
            thread.start()
        return bool(let_go) and source.faults.reopened > 0

    read(source, is_enough, 40)
    thread.join()
    assert time.monotonic() - let_go[0] < SOON


def test_latency_does_not_grow_where_nobody_keeps_up(camera) -> None:
    ages = []
    with Stream(Slow(0.16), open_source(camera().url), workers=1) as stream:  # of frames that come each 40 ms
        begun = time.monotonic()
        for shot in stream:
            if time.monotonic() - begun > 3:  # what had been waiting while it was opened is over
                ages.append(age_of(shot.frame))
            if len(ages) == 30:
                break
    assert stream.stats.dropped > 60
    assert np.median(ages[15:]) < np.median(ages[:15]) + 0.2  # a queue would have grown by 1.8 s
    assert np.median(ages) < 1


def test_passwords(camera) -> None:
    server = camera("h264", "320", "240", "25", "me:hunter2")
    at = server.url.removeprefix("rtsp://")
    found = read(UrlSource(f"rtsp://me:hunter2@{at}"), lambda found: len(found) >= 3)
    assert bars_of(found[2].frame)[0] == bars_of(found[0].frame)[0] + 2
    for login in ("me:wrong2@", "me:@", ""):
        with pytest.raises(
            SourceError, match=r"cannot be opened \(.*401.*\); check address, user and password"
        ) as raised:
            read(UrlSource(f"rtsp://{login}{at}"), lambda found: bool(found))
        assert "wrong2" not in str(raised.value)


def test_an_address_that_is_none(camera) -> None:
    server = camera()
    with pytest.raises(SourceError, match=r"/none: cannot be opened \(.*404"):
        read(UrlSource(server.url.replace("/cam", "/none")), lambda found: bool(found))


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_host_that_accepts_and_then_is_silent(scheme) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://me:hunter2@127.0.0.1:{silent.getsockname()[1]}/cam"
        begun = time.monotonic()
        with pytest.raises(SourceError, match=rf"{scheme}://me:\*\*\*@.*: cannot be opened"):
            read(UrlSource(url, patience=Patience(reading=0.5)), lambda found: bool(found))
    assert time.monotonic() - begun < SOON


def read_when_there(url: str, until: Callable[[list], bool], **options) -> tuple[UrlSource, list]:
    """What comes of a sender that is starting."""
    begun = time.monotonic()
    while True:
        try:
            source = UrlSource(url, **options)
            return source, read(source, until)
        except SourceError:
            assert time.monotonic() - begun < SOON
            time.sleep(0.1)


def test_motion_jpeg_over_http(sender, unused_port: int) -> None:
    url = f"http://127.0.0.1:{unused_port}/cam"
    sender(*TEST_PICTURE, "-c:v", "mjpeg", "-f", "mpjpeg", "-listen", "1", url)
    source, found = read_when_there(url, lambda found: len(found) >= 25)
    assert found[0].frame.shape == (240, 320, 3)
    assert source.fps is None  # FFmpeg makes one up
    stamps = [picture.timestamp for picture in found]
    assert stamps == sorted(stamps)


def test_a_file_behind_a_url_ends(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", [0.04 * n for n in range(10)])

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_arguments) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever).start()
        source = open_source(f"http://127.0.0.1:{server.server_port}/a.mp4")
        found = list(source.pictures(threading.Event()))
        server.shutdown()
    assert [number_of(picture.frame) for picture in found] == list(range(10))
    assert (source.state, source.faults.reopened) == (ENDED, 0)


class Relay:
    """Hands datagrams on from one port of this machine to another, and loses some."""

    def __init__(self, share: float) -> None:
        self.share, self.lost = share, 0
        self._in, self._out = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self._in.bind(("127.0.0.1", 0))
        self._in.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.port = self._in.getsockname()[1]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._thread.start()

    def _run(self) -> None:
        chance = random.Random(0)
        self._in.settimeout(0.1)
        while not self._is_over.is_set():
            try:
                data = self._in.recv(1 << 16)
            except TimeoutError:
                continue
            if chance.random() < self.share:
                self.lost += 1
            else:
                self._out.sendto(data, self._to)

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._in.close()
        self._out.close()


@pytest.fixture
def relay(unused_port: int) -> Iterator[Callable[[float], tuple[Relay, int]]]:
    """Starts a relay, which hands on to a port that is free."""
    relays = []

    def started(share: float) -> tuple[Relay, int]:
        relays.append(Relay(share))
        relays[-1].start(unused_port - unused_port % 2)  # RTP wants an even one
        return relays[-1], unused_port - unused_port % 2

    yield started
    for each in relays:
        each.close()


@pytest.mark.parametrize("lost", [0.0, 0.01])
@pytest.mark.parametrize("kind", ["rtp", "mpegts"])
def test_frames_that_lack_packets_are_hardly_ever_shown(sender, relay, tmp_path: Path, kind, lost) -> None:
    clip = write_clip(
        tmp_path / "a.mkv", [0.04 * n for n in range(100)], size=(120, 160), crf="30", g="10", bf="0", slices="4"
    )
    whole = read_clip(clip)[1]
    between, port = relay(lost)
    to, address = f"127.0.0.1:{between.port}", f"udp://127.0.0.1:{port}"
    if kind == "rtp":
        sdp = tmp_path / "s.sdp"
        sender(
            "-stream_loop",
            "-1",
            "-re",
            "-i",
            clip,
            "-c",
            "copy",
            "-f",
            kind,
            "-sdp_file",
            sdp,
            f"rtp://{to}?pkt_size=600",
        )
        begun = time.monotonic()
        while not (sdp.exists() and str(between.port) in sdp.read_text()):
            assert time.monotonic() - begun < SOON
            time.sleep(0.05)
        address = str(tmp_path / "t.sdp")
        Path(address).write_text(sdp.read_text().replace(str(between.port), str(port)))
    else:
        annex = ("-bsf:v", "h264_mp4toannexb")
        sender("-stream_loop", "-1", "-re", "-i", clip, "-c", "copy", *annex, "-f", kind, f"udp://{to}?pkt_size=188")
    source, found = read_when_there(address, lambda found: len(found) >= 50)
    wrong = [picture for picture in found if not (picture.frame == whole[number_of(picture.frame) % 100]).all()]
    if lost:
        assert between.lost > 0
        assert source.faults.corrupt > 0
        assert len(wrong) <= 2  # nothing tells of a few; a decoder by slices lets a dozen through
    else:
        numbers = [number_of(picture.frame) for picture in found]
        assert numbers == [(numbers[0] + n) % 100 for n in range(50)]
        assert wrong == []


def test_the_demo_of_a_camera(camera, demo, tmp_path: Path) -> None:
    server = camera("h264", "96", "64")
    out = tmp_path / "out"

    def kill_soon() -> None:
        begun = time.monotonic()
        while not list(out.glob("*_overlay.png")) and time.monotonic() - begun < 40:
            time.sleep(0.05)
        server.kill()

    thread = threading.Thread(target=kill_soon)
    thread.start()
    *_, fault, last = demo("rtsp.py", server.url, out, 1)
    thread.join()
    assert fault == f"{server.url}: no frame for 1 seconds; it is given up"
    assert re.fullmatch(r"[1-9]\d* frames, \d+ dropped, opened again \d+ times", last)


def test_the_demo_of_several_cameras(camera, demo, tmp_path: Path) -> None:
    server, clip = camera("h264", "96", "64"), write_clip(tmp_path / "a.mp4", [0.0, 0.04, 0.08])
    gone = server.url.replace("/cam", "/none")
    lines = demo("cameras.py", 1, server.url, clip, gone)
    told = {name: [line for line in lines if line.startswith(f"{name}")] for name in (server.url, str(clip), gone)}
    assert [line.partition(": ")[0] for line in told[str(clip)]] == [f"{clip} {index}" for index in range(3)]
    assert "cannot be opened" in told[gone][0]
    assert len(told[gone]) == 1
    assert len(told[server.url]) >= 2
