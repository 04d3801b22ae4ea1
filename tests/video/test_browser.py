"""Clips play in a browser: at their length, each frame at its time, and the sound with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errseg_rt.video.clip import ClipWriter
from tests.video.clips import numbered, write_clip

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
STAMPS = [0.04 * index for index in range(50)]
# Plays a clip to its end and tells, of each frame that is shown, its time, the clock's, and the number by the bar code
# in its upper left quarter; then where in the sound it becomes loud.
PLAY = """
async () => {
  const video = document.querySelector("video"), seen = [];
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d", {willReadFrequently: true});
  const look = (now, {mediaTime}) => {
    context.drawImage(video, 0, 0, canvas.width = video.videoWidth, canvas.height = video.videoHeight);
    const row = Math.floor(0.22 * canvas.height), wide = canvas.width / 2;
    const bit = n => context.getImageData(Math.floor((2 * n + 1) * wide / 16), row, 1, 1).data[1] > 128;
    const number = [0, 1, 2, 3, 4, 5, 6, 7].reduce((sum, n) => sum + (bit(n) << n), 0);
    seen.push({shown: mediaTime, clock: video.currentTime, number});
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  await new Promise((done, fail) => {
    video.onended = done;
    video.onerror = () => fail(new Error(video.error.message));
    video.play().catch(fail);
  });
  const whole = await (await fetch("clip.mp4")).arrayBuffer();
  const sound = await new AudioContext().decodeAudioData(whole).catch(() => null);
  return {
    ended: video.ended, duration: video.duration, at: video.currentTime, seen,
    frames: video.webkitDecodedFrameCount, audio: video.webkitAudioDecodedByteCount,
    loud: sound && sound.getChannelData(0).findIndex(level => Math.abs(level) > 0.25) / sound.sampleRate,
  };
}
"""


@pytest.fixture(scope="module")
def play() -> Iterator[Callable[[Path], dict[str, Any]]]:
    """Plays a clip in Chromium, and gives what `PLAY` tells."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs Chromium, Debian's package chromium")
    with playwright.sync_playwright() as driver:
        # As root, in whose containers tests run, it has no sandbox.
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        with driver.chromium.launch(executable_path=found, args=options) as browser:

            def played(path: Path) -> dict[str, Any]:
                page = browser.new_page()
                page.route("**/*", lambda route: route.fulfill(body="<video src=clip.mp4>", content_type="text/html"))
                page.route("**/clip.mp4", lambda route: route.fulfill(path=path, content_type="video/mp4"))
                page.goto("http://clip.test/")
                return page.evaluate(PLAY)

            yield played


def check_frames(seen: list[dict[str, float]]) -> None:
    """Each frame that was shown is the one of its time, and the clock, which follows the sound, is not far from it."""
    assert len(seen) >= 5  # a slow machine leaves some out
    np.testing.assert_allclose([each["shown"] for each in seen], [0.04 * each["number"] for each in seen], atol=2e-3)
    assert abs(np.median([each["clock"] - each["shown"] for each in seen])) < 0.25


def test_a_clip_with_sound_plays_to_its_end(cli, play, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "street.mp4", STAMPS, sound=True)
    assert cli("video", clip, "-o", tmp_path / "seen.mp4", "--threads", "1", "--json").code == 0
    told = play(tmp_path / "seen.mp4")
    assert told["ended"]
    assert told["duration"] == pytest.approx(2.0, abs=0.03)  # sound ends between its packets
    assert told["at"] == pytest.approx(told["duration"], abs=0.01)
    assert told["frames"] == len(STAMPS)
    assert told["audio"] > 0
    assert told["loud"] == pytest.approx(1.0, abs=0.05)  # as in the source, give or take two packets
    check_frames(told["seen"])


def test_what_a_kill_leaves_plays_to_its_end(play, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "street.mp4", [*STAMPS, *(2 + stamp for stamp in STAMPS)], sound=True)
    with ClipWriter(tmp_path / "seen.mp4", source) as writer:
        for number in range(100):
            picture = np.zeros((128, 192, 3), np.uint8)
            picture[:64, :96] = numbered(number)
            writer.write(picture, 0.04 * number)
        left = shutil.copy(writer.partial, tmp_path / "left.mp4")  # as after a kill: what has reached the disk by now
    told = play(left)
    assert told["ended"]
    assert 1.9 < told["duration"] < 4
    assert told["audio"] > 0
    check_frames(told["seen"])
