"""What is written of a stream's shots: a clip, label maps as a video or as PNG files, and a line of JSON for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.system.atomic import write_atomically
from errseg_rt.video.clip import ClipWriter, LabelWriter
from errseg_rt.video.drawing import drawn
from errseg_rt.video.stream import Shot

KINDS = ("labels", "pngs", "lines")
"""What may be written beside the clip: a lossless label video, a PNG file of labels or a line of JSON for each shot."""


class Recorder:
    """Writes shots; use it in a `with` block.

    Args:
        folder: Where the files go.
        name: How they begin.
        clip: The clip's file.
        view: What it shows, one of `errseg_rt.video.drawing.VIEWS`.
        also: What is written beside it, of `KINDS`.
        audio: A file whose sound is copied into the clip.

    Attributes:
        outputs: Files and folders by what they hold.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        clip: Path,
        *,
        view: str,
        also: Sequence[str] = (),
        audio: Path | None = None,
    ) -> None:
        self._view, self._name = view, name
        self._stack = ExitStack()
        self._clip = ClipWriter(clip, audio)
        self.outputs = places_of(folder, name, clip, also)
        self._labels = LabelWriter(self.outputs["labels"]) if "labels" in also else None
        self._lines: Any = None
        self._size: tuple[int, int] | None = None

    @property
    def notes(self) -> list[str]:
        """What could not be taken over."""
        return self._clip.notes

    def __enter__(self) -> Recorder:
        try:
            self._stack.enter_context(self._clip)
            if self._labels:
                self._stack.enter_context(self._labels)
            if "lines" in self.outputs:
                # Line by line, so that what was done is there after a kill.
                path = self.outputs["lines"]
                path.parent.mkdir(parents=True, exist_ok=True)
                self._lines = self._stack.enter_context(path.open("w", encoding="utf-8", buffering=1))
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, shot: Shot) -> None:
        """Write a shot.

        Raises:
            OSError: A file cannot be written.
        """
        labels = shot.result.labels
        picture = drawn(self._view, shot.frame, shot.result, shot.timestamp)
        self._clip.write(self._fitted(picture), shot.timestamp, shot.pixel_aspect)
        if self._labels:
            self._labels.write(_of_size(labels, self._labels.size), shot.timestamp)
        if "pngs" in self.outputs:
            path = self.outputs["pngs"] / f"{self._name}_{shot.index:06d}.png"
            with write_atomically(path) as temporary:
                temporary.write_bytes(cv2.imencode(".png", labels)[1].tobytes())
        if self._lines:
            self._lines.write(json.dumps(line_of(shot), allow_nan=False) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _fitted(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A picture of the clip's size, that of its first one: what comes in another size is brought to it whole."""
        height, width = picture.shape[:2]
        self._size = self._size or (height, width)
        if (height, width) == self._size:
            return picture
        scale = min(self._size[0] / height, self._size[1] / width)
        rows, cols = max(1, round(scale * height)), max(1, round(scale * width))
        canvas = np.zeros((*self._size, 3), np.uint8)
        top, left = (self._size[0] - rows) // 2, (self._size[1] - cols) // 2
        canvas[top : top + rows, left : left + cols] = cv2.resize(picture, (cols, rows), interpolation=cv2.INTER_AREA)
        return canvas


def places_of(folder: Path, name: str, clip: Path, also: Sequence[str] = ()) -> dict[str, Path]:
    """Files and folders that a `Recorder` writes, by what they hold."""
    places = {"labels": f"{name}_labels.mkv", "pngs": f"{name}_labels", "lines": f"{name}.jsonl"}
    return {"clip": clip, **{kind: folder / places[kind] for kind in also}}


def line_of(shot: Shot) -> dict[str, Any]:
    """What a line of JSON says of a shot."""
    result = shot.result
    return {
        "index": shot.index,
        "timestamp": shot.timestamp,
        "captured_at": shot.captured_at,
        "dropped": shot.dropped,
        "shares": result.shares,
        "flagged_share": result.flagged_share,
        "mean_error_probability": result.expected_error,
        "milliseconds": dict(result.timings),
    }


def _of_size(labels: npt.NDArray[np.uint8], size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """Labels of the video's size; those of another are resized by nearest pixels, which makes up no class."""
    if size is None or labels.shape == size:
        return labels
    return np.asarray(cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
