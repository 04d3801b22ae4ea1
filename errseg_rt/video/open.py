"""From what a user names to a source."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import av

from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.datasets.inputs import find_images
from errseg_rt.errors import SourceError
from errseg_rt.frames.reading import Reading
from errseg_rt.video.files import FileSource
from errseg_rt.video.given import ImageSource, IterableSource, SceneSource
from errseg_rt.video.live import Patience, UrlSource, WebcamSource
from errseg_rt.video.picture import USUAL_FPS, Source
from errseg_rt.video.urls import is_url, without_secrets


def open_source(
    source: str | os.PathLike[str] | int | Iterable[Any] | Source,
    *,
    transport: str = "tcp",
    patience: Patience = Patience(),  # noqa: B008 - frozen
    fps: float | None = None,
    start: float = 0.0,
    duration: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """The source that a user names.

    Args:
        source: A video file; a folder, glob or list of images; the number of a camera at this machine; a URL, or an
            `.sdp` file; `scene:SEED`, a rendered street; or any iterable of frames. A source is given back as it is.
        transport: For RTSP, `"tcp"` or `"udp"`.
        patience: How long a live source is waited for.
        fps: Frames a second of images and rendered streets.
        start: Seconds of a file's time at which to begin.
        duration: Seconds of a file to give; None: to its end.
        max_pixels: Largest height times width of a frame that is taken.

    Raises:
        SourceError: There is none of that name, or it cannot be opened.
        ValueError: `transport` is none.
    """
    if hasattr(source, "pictures"):
        return cast(Source, source)
    if isinstance(source, int):
        return WebcamSource(source, patience)
    if not isinstance(source, (str, os.PathLike)):
        return IterableSource(source)
    text = os.fspath(source)
    if re.fullmatch(r"\d{1,3}", text) and not Path(text).exists():
        return WebcamSource(int(text), patience)
    if found := re.fullmatch(r"scene:(\d{1,9})", text):
        return SceneSource(int(found[1]), fps=fps or USUAL_FPS)
    if is_url(text) or text.lower().endswith(".sdp"):
        return UrlSource(text, transport=transport, patience=patience, max_pixels=max_pixels)
    path = Path(text)
    if path.is_file() and not _is_image(path):
        return FileSource(path, start=start, duration=duration, max_pixels=max_pixels)
    if path.exists() or any(letter in text for letter in "*?["):
        paths = [item.path for item in find_images([text]).items]
        return ImageSource(paths, fps or USUAL_FPS, Reading(max_pixels))
    raise SourceError(
        f"{without_secrets(text)}: there is no such file or folder; a source is a video, images, a camera's number, a "
        "URL or scene:SEED"
    )


def _is_image(path: Path) -> bool:
    """Whether FFmpeg takes a file for a picture, or for nothing that it knows, which images' own reader may name."""
    try:
        with av.open(os.fspath(path), metadata_errors="replace") as container:
            return container.format.name.endswith("_pipe") or container.format.name == "image2"
    except (av.error.FFmpegError, OSError, ValueError):
        return False
