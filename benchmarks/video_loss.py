"""Which frames of a camera are wrong where the network loses packets, and does the stream know?

    python -m benchmarks.video_loss

Linux only, as root, with Debian's packages of `.ci/run`, `iproute2` and `nftables`. The RTSP server of the tests sends
pictures of 1280x720 through a network namespace of its own, with packets of 1500 bytes, of which nftables drops some by
chance. Each picture tells its number, and its lower half is a texture that moves with it: a frame is wrong where 16x16
pixels are far from what belongs to the number. A gap in the numbers is counted where the stream's `corrupt` has
grown by the frame behind it.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.report import Row, finish
from errseg_rt.video.open import open_source

HEIGHT, WIDTH, FPS, PORT = 720, 1280, 25, 18555
SERVER = Path(__file__).parents[1] / "tests/video/rtsp_server.py"
SPACE = "errseg-loss"
BITS, GRAIN, STEP = 32, 8, 3  # as the server draws them
CASES = {
    "tcp": ("tcp", 0),
    "tcp_5%": ("tcp", 5),
    "udp": ("udp", 0),
    "udp_1%": ("udp", 1),
}  # transport, % of packets lost
FAR = 35.0  # levels that a square of 16 pixels is off, on average; half of what two squares of the texture differ by
BARS = {"tcp_5%": "bar: 0", "udp_1%": "bar: 2 %"}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of each case")
    parser.add_argument("--read", choices=("tcp", "udp"), help="read what a camera gives, within the namespace")
    args, rest = parser.parse_known_args()
    if args.read:
        print(json.dumps(read(args.read, args.seconds)))
        return
    rows = []
    for name, (transport, lost) in CASES.items():
        rows += rows_of(name, through(transport, lost, args.seconds))
    finish(rows, "video_loss", rest)


def through(transport: str, lost: int, seconds: float) -> dict[str, Any]:
    """What `read` gives behind a network that loses so many of a hundred packets."""
    within = ["ip", "netns", "exec", SPACE]
    subprocess.run(["ip", "netns", "add", SPACE], check=True)
    try:
        subprocess.run([*within, "ip", "link", "set", "lo", "mtu", "1500", "up"], check=True)
        rule = f"meta l4proto {transport} th dport > 1000 numgen random mod 100 < {lost} counter drop"
        rules = f"table inet loss {{\nchain in {{\ntype filter hook input priority 0;\n{rule}\n}}\n}}\n"
        subprocess.run([*within, "nft", "-f", "-"], input=rules, text=True, check=True)
        command = [*within, "/usr/bin/python3", str(SERVER), str(PORT), "h264", str(WIDTH), str(HEIGHT), str(FPS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                server.stdout.readline()  # it listens
                reader = [*within, sys.executable, "-m", "benchmarks.video_loss", "--read", transport]
                done = subprocess.run([*reader, "--seconds", str(seconds)], capture_output=True, text=True, check=True)
            finally:
                server.kill()
        told = subprocess.run([*within, "nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
        return json.loads(done.stdout) | {"packets": int(told.partition("packets ")[2].split()[0])}
    finally:
        subprocess.run(["ip", "netns", "del", SPACE], check=True)


def read(transport: str, seconds: float) -> dict[str, Any]:
    """Numbers of a camera's frames, how far the worst square of each is off, and what had been counted by then."""
    source = open_source(f"rtsp://127.0.0.1:{PORT}/cam", transport=transport)
    rows = texture()
    stop, numbers, far, corrupt = threading.Event(), [], [], []
    end = time.monotonic() + seconds
    for picture in source.pictures(stop):
        numbers.append(number_of(picture.frame))
        far.append(off(picture.frame, numbers[-1], rows))
        corrupt.append(source.faults.corrupt)
        if time.monotonic() > end:
            stop.set()
    return {"numbers": numbers, "far": far, "corrupt": corrupt, "reopened": source.faults.reopened}


def texture() -> np.ndarray:
    """The server's texture, `uint8 [H / 2, W]`."""
    levels, height = random.Random(0), HEIGHT - 2 * (HEIGHT // 4)
    squares = [[levels.randrange(16, 236) for _ in range(-(-WIDTH // GRAIN))] for _ in range(-(-height // GRAIN))]
    return np.repeat(np.repeat(np.array(squares, np.uint8), GRAIN, 0)[:height], GRAIN, 1)[:, :WIDTH]


def number_of(frame: np.ndarray) -> int:
    """What 32 bars in the first quarter of a picture tell."""
    levels = frame[HEIGHT // 8, [(2 * bit + 1) * WIDTH // (2 * BITS) for bit in range(BITS)]].mean(1)
    return sum(1 << bit for bit, level in enumerate(levels) if level > 125)


def off(frame: np.ndarray, number: int, rows: np.ndarray) -> float:
    """How many levels the worst square of a frame's texture is off from that of its number."""
    found = cv2.cvtColor(frame[-len(rows) :], cv2.COLOR_BGR2GRAY)
    # The frame's gray goes from 0 to 255, the server's from 16 to 235.
    wanted = cv2.convertScaleAbs(np.roll(rows, -STEP * number % WIDTH, axis=1), alpha=255 / 219, beta=-16 * 255 / 219)
    apart = cv2.absdiff(found, wanted)
    return float(cv2.resize(apart, (WIDTH // 16, len(rows) // 16), interpolation=cv2.INTER_AREA).max())


def rows_of(name: str, told: dict[str, Any]) -> list[Row]:
    """What is told of a case."""
    numbers, corrupt = np.array(told["numbers"]), np.array(told["corrupt"])
    steps = np.diff(numbers)
    # A frame whose bar code is damaged is wrong, too: its number is far from those around it, and so its texture.
    wrong = int((np.array(told["far"]) > FAR).sum())
    gaps = steps > 1
    counted = np.diff(corrupt) > 0
    loss = f"{told['packets']} packets dropped, opened again {told['reopened']} times"
    typical = float(np.median(told["far"]))
    note = f"{wrong} of {len(numbers)} frames; worst square usually off by {typical:.0f} levels; {loss}"
    missing = int(steps[gaps].sum() - gaps.sum())
    return [
        Row(f"video/loss/{name}/wrong", 100 * wrong / len(numbers), "%", note="; ".join((note, *_bar(name)))),
        Row(
            f"video/loss/{name}/gaps_not_counted",
            int((gaps & ~counted).sum()),
            "gaps",
            note=f"of {int(gaps.sum())}, in which {missing} frames are missing; bar: 0",
        ),
    ]


def _bar(name: str) -> list[str]:
    return [BARS[name]] if name in BARS else []


if __name__ == "__main__":
    main()
