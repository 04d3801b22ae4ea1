"""A video file's whole way: each frame segmented, a clip of what is seen written, and what is noted of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from errseg_rt.batch.figures import frame_summary, frames_summary
from errseg_rt.batch.image import files_of, is_whole
from errseg_rt.batch.kept import Entry
from errseg_rt.datasets.inputs import Item
from errseg_rt.errors import FrameError
from errseg_rt.video.files import FileSource
from errseg_rt.video.record import Recorder, places_of
from errseg_rt.video.stream import Stream

if TYPE_CHECKING:
    from errseg_rt.runtime import Runtime


@dataclass(frozen=True)
class ClipWork:
    """What is done with each video file; may be pickled.

    Attributes:
        out: Folder of the results.
        view: What the clip shows, one of `errseg_rt.video.drawing.VIEWS`.
        also: What is written beside it, of `errseg_rt.video.record.KINDS`.
        max_pixels: Largest frame, height times width.
    """

    out: Path
    view: str
    also: tuple[str, ...]
    max_pixels: int

    @property
    def settings(self) -> dict[str, Any]:
        """All that results follow from, beside the files and the runtime."""
        return {"view": self.view, "also": sorted(self.also)}

    def results(self, item: Item) -> list[Path]:
        """Files and folders that a video's results are written to."""
        return list(self._places(item).values())

    def do(self, runtime: Runtime, item: Item) -> Entry:
        """Segment all frames of a video; what is noted of it.

        Raises:
            FrameError: There is no such file, or a frame is too large.
            SourceError: It holds no video, or none of its frames can be decoded.
            OSError: A result cannot be written.
        """
        if item.fault:
            raise FrameError(f"{item.path}: {item.fault}")
        files = files_of(item)  # before it is read: a change meanwhile is one
        source = FileSource(item.path, max_pixels=self.max_pixels)
        places, name = self._places(item), Path(item.name).name
        recorder = Recorder(
            places["clip"].parent, name, places["clip"], view=self.view, also=self.also, audio=item.path
        )
        frames, errors, size, end = [], [], (0, 0), 0.0
        # One frame at a time: other workers have the other cores.
        with Stream(runtime, source, policy="all", workers=1) as stream, recorder:
            for shot in stream:
                recorder.write(shot)
                frames.append(frame_summary(shot.result))
                errors.append(shot.result.expected_error)
                size, end = shot.result.labels.shape, shot.timestamp
        known = [error for error in errors if error is not None]
        pixels = {name: sum(frame["pixels"][name] for frame in frames) for name in frames[0]["pixels"]}
        figures = frames_summary(frames)
        return {
            "input": str(item.path),
            "files": files,
            "size": list(size),
            "frames": len(frames),
            "seconds": end,
            "damaged": stream.stats.corrupt,
            "outputs": {kind: path.relative_to(self.out).as_posix() for kind, path in places.items()},
            "mean_error_probability": fmean(known) if known else None,
            "pixels": pixels,
            **{name: figures[name] for name in ("flagged_share", "work", "milliseconds")},
        }

    def is_done(self, item: Item, entry: Mapping[str, Any]) -> bool:
        """Whether an entry of an earlier run, by the same settings, says all that it must of results that are whole.

        The video must be unchanged, and the results there; of a folder of labels, one for each frame.
        """
        places = self._places(item)
        try:
            is_same: bool = is_whole(item, entry, self.out, places.values()) and (
                "pngs" not in places or len([*places["pngs"].glob("*.png")]) >= entry["frames"] > 0
            )
            json.dumps(frames_summary([entry]), allow_nan=False)
        except (OSError, AttributeError, LookupError, TypeError, ValueError, ArithmeticError):  # somebody has edited it
            return False
        return is_same

    def _places(self, item: Item) -> dict[str, Path]:
        clip = self.out / f"{item.name}.mp4"
        return places_of(clip.parent, Path(item.name).name, clip, self.also)
