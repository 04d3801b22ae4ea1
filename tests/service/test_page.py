"""The page in a browser: what a reader does, and what is seen then."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from errseg_rt.runtime import Runtime
from errseg_rt.scenes import StreetScene
from errseg_rt.video.given import SceneSource
from tests.service.serving import serving, until
from tests.video.services import lacking

CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium")
    if path is None:
        lacking("chromium, of Debian's package of that name")
    with playwright.sync_playwright() as play:
        found = play.chromium.launch(executable_path=path, args=["--no-sandbox", *CAMERA])
        yield found
        found.close()


@pytest.fixture
def page(browser) -> Iterator[Any]:
    """A page on which nothing may be refused, or go wrong unseen."""
    context = browser.new_context(viewport={"width": 1280, "height": 960}, accept_downloads=True)
    found, faults = context.new_page(), []
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    found.set_default_timeout(30_000)
    yield found
    context.close()
    assert faults == []


@pytest.fixture
def street(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "street.png"), StreetScene(3, 180, 240).frame(0).frame)
    return tmp_path / "street.png"


def is_shown(page: Any, at: str, text: str) -> None:
    """Wait until an element has a text."""
    page.locator(at, has_text=text).wait_for(state="attached")


def kept(page: Any, tmp_path: Path, name: str) -> np.ndarray:
    """What the picture shows: the page's own snapshot."""
    with page.expect_download() as download:
        page.keyboard.press("s")
    download.value.save_as(tmp_path / name)
    return cv2.imread(str(tmp_path / name))


def settled(page: Any) -> None:
    page.wait_for_timeout(150)


def test_a_picture_by_its_pixels(page, runtime: Runtime, street: Path, tmp_path: Path) -> None:
    frame = cv2.imread(str(street))
    result = runtime.segment(frame, semantic=True)
    with serving(runtime) as found:
        page.goto(found.url)
        is_shown(page, "#state", "no source of its own: drop a picture")
        page.set_input_files("#file", str(street))
        is_shown(page, "#state", "Showing street.png.")
        is_shown(page, "#flagged-is", f"{result.flagged_share:.1%}".replace("%", " %"))
        page.keyboard.press("1")
        settled(page)
        np.testing.assert_array_equal(kept(page, tmp_path, "input.png"), frame)
        page.keyboard.press("2")
        for _ in range(4):
            page.keyboard.press("]")
        settled(page)
        np.testing.assert_array_equal(kept(page, tmp_path, "labels.png"), result.colors())
        for _ in range(10):
            page.keyboard.press(".")
        settled(page)
        before = result.classes.palette_bgr()[result.semantic_labels]
        np.testing.assert_array_equal(kept(page, tmp_path, "semantic.png")[:, :-2], before[:, :-2])  # beside its line
        page.keyboard.press("3")
        settled(page)
        heat = kept(page, tmp_path, "errors.png").astype(int)
        np.testing.assert_allclose(heat, result.heat(), atol=8)  # OpenCV's table, in steps
        for _ in range(10):
            page.keyboard.press(",")
        page.keyboard.press("2")
        page.locator("#view").focus()
        page.keyboard.press("ArrowRight")
        row, col = 180 // 2, 240 // 2 + 4
        names = result.classes.names
        is_shown(page, "#told", names[result.labels[row, col]])
        assert f"{100 * result.error_map()[row, col]:.0f} %" in page.inner_text("#told")
        box = page.locator("#view").bounding_box()
        page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.9 * box["height"])
        is_shown(page, "#hint", names[result.labels[162, 60]])


DROP = """
([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const dropped = new DataTransfer();
  dropped.items.add(new File([bytes], name, { type: "image/png" }));
  return dropped;
}
"""


def test_a_picture_that_is_dropped(page, runtime: Runtime, street: Path) -> None:
    want = runtime.segment(cv2.imread(str(street)))
    with serving(runtime, max_bytes=400_000) as found:
        page.goto(found.url)
        is_shown(page, "#state", "no source of its own")
        for name, data in (("street.png", street.read_bytes()), ("huge.png", bytes(400_001)), ("text.png", b"text")):
            dropped = page.evaluate_handle(DROP, [name, base64.b64encode(data).decode()])
            page.dispatch_event("#stage", "drop", {"dataTransfer": dropped})
            if name == "street.png":
                is_shown(page, "#flagged-is", f"{want.flagged_share:.1%}".replace("%", " %"))
            if name == "huge.png":
                is_shown(page, "#state", "huge.png is over the limit of 400000 bytes.")
        is_shown(page, "#state", "This frame was refused: the body is no image of a kind that is known")


def test_sliders_act_at_once(page, runtime: Runtime, street: Path) -> None:
    frame = cv2.imread(str(street))
    with serving(runtime) as found:
        page.goto(found.url)
        page.set_input_files("#file", str(street))
        is_shown(page, "#error-is", "%")
        page.locator("#threshold").fill("0.4")
        want = runtime.segment(frame, threshold=0.4)
        is_shown(page, "#flagged-is", f"{want.flagged_share:.1%}".replace("%", " %"))
        page.locator("#budget").fill("1")
        want = runtime.segment(frame, threshold=0.4, budget=0.01)
        is_shown(page, "#flagged-is", "more left out")
        assert page.inner_text("#flagged-is").startswith(f"{want.flagged_share:.1%}".replace("%", " %"))
        assert page.inner_text("#budget-is") == "1 % of the work"


def test_the_source_by_keyboard_alone(page, runtime: Runtime) -> None:
    with serving(runtime, source=SceneSource(3, 96, 128, 25)) as found:
        page.goto(found.url)
        is_shown(page, "#state", "Showing scene:3.")
        is_shown(page, "#recent", "of the pixels are expected to be wrong")
        page.keyboard.press("w")
        is_shown(page, "#state", "most labels are expected to be wrong")
        worst = page.inner_text("#error-is")
        assert worst in page.inner_text("#state")
        page.wait_for_timeout(300)
        assert page.inner_text("#error-is") == worst  # it stays
        page.keyboard.press("w")
        is_shown(page, "#state", "Showing scene:3.")
        page.keyboard.press("Space")
        is_shown(page, "#state", "Held")
        for _ in range(3):
            page.keyboard.press("Tab")
        assert page.locator(":focus").count() == 1


def test_the_readers_camera(page, runtime: Runtime) -> None:
    with serving(runtime) as found:
        page.goto(found.url)
        is_shown(page, "#state", "no source of its own")
        page.keyboard.press("c")
        is_shown(page, "#state", "Showing your camera")
        is_shown(page, "#error-is", "%")
        until(lambda: found.service.metrics.drift.frames >= 3, 60)


def test_a_service_that_is_killed_and_comes_back(page, runtime: Runtime, monkeypatch) -> None:
    with serving(runtime, source=SceneSource(3, 96, 128, 25)) as found:
        page.goto(found.url)
        is_shown(page, "#state", "Showing scene:3.")
        address = found.address
    is_shown(page, "#state", "The connection is lost")
    assert page.locator("#retry").is_visible()
    from tests.service import serving as module

    real = module.listen
    monkeypatch.setattr(module, "listen", lambda host, _: real(host, address[1]))
    with serving(runtime, source=SceneSource(3, 96, 128, 25)):
        page.locator("#retry").click()
        is_shown(page, "#state", "Showing scene:3.")
        assert not page.locator("#retry").is_visible()


def test_a_token_is_asked_for(page, runtime: Runtime) -> None:
    with serving(runtime, source=SceneSource(3, 96, 128, 25), token="open sesame please") as found:
        page.goto(found.url)
        is_shown(page, "#state", "Type the token")
        page.fill("#token", "open sesame now")
        page.keyboard.press("Enter")
        is_shown(page, "#state", "The token is wrong.")
        page.fill("#token", "open sesame please")
        page.keyboard.press("Enter")
        is_shown(page, "#state", "Showing scene:3.")
        assert page.locator("#token-form").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_in_light_and_dark(browser, runtime: Runtime, scheme) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    with serving(runtime, source=SceneSource(3, 96, 128, 25)) as found:
        page.goto(found.url)
        is_shown(page, "#error-is", "%")
        box = page.locator("body").bounding_box()
        assert box["width"] <= 360
        for control in ("#view", "#from-file", "#worst", "#threshold", "#classes"):
            inside = page.locator(control).bounding_box()
            assert inside["x"] >= 0
            assert inside["x"] + inside["width"] <= 360
        picture = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), 1)
        assert (picture[-1, -1].mean() < 64) == (scheme == "dark")
        if os.environ.get("ERRSEG_SCREENSHOTS"):
            page.screenshot(path=Path(os.environ["ERRSEG_SCREENSHOTS"]) / f"phone_{scheme}.png", full_page=True)
    context.close()
