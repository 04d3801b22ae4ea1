"""What every worker of a batch is given: a bundle, how it is run, what is done with each file, and where it goes."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errseg_rt.batch.clip import ClipWork
from errseg_rt.batch.image import ImageWork
from errseg_rt.batch.index import row_of
from errseg_rt.batch.kept import Entry
from errseg_rt.datasets.inputs import Item
from errseg_rt.errors import BundleError, DataError
from errseg_rt.options import Options
from errseg_rt.system.atomic import write_json
from errseg_rt.system.json_text import parse_json

if TYPE_CHECKING:
    from errseg_rt.runtime import Runtime

SUMMARY = "summary.json"
_RECORD = "_result.json"


@dataclass(frozen=True, eq=False)
class BundleTask:
    """Files through a bundle; a `Task` of `errseg_rt.batch.crew`, and may be pickled.

    What is noted of a file is written last, as a file of its own beside its results: it says that they are whole, and
    by which settings and from which content of the file they are. So a kill costs what is under way, and no more.

    Attributes:
        bundle: What `Bundle.open` finds it by, at every worker.
        sha256: Of its manifest.
        options: How it is run.
        images: What is done with images.
        clips: What is done with videos.
        out: Folder of the results, the same at every worker.
        common: What results of all files follow from, beside what is done with each, by `settings_of`.
    """

    bundle: str
    sha256: str
    options: Options
    images: ImageWork
    clips: ClipWork
    out: Path
    common: Mapping[str, Any]
    _digests: dict[bool, str] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """All that results follow from, beside the files."""
        return {**self.common, **self.images.settings, **self.clips.settings}

    def record(self, item: Item) -> Path:
        """The file of what is noted of a file."""
        return self.out / f"{item.name}{_RECORD}"

    def results(self, item: Item) -> list[Path]:
        """All that is written of a file."""
        return [*self._work(item).results(item), self.record(item)]

    def earlier(self, item: Item) -> Entry | None:
        """What an earlier run noted of a file whose results are whole, and would come out the same again."""
        try:
            entry = parse_json(self.record(item).read_bytes())
            is_done = entry["settings"] == self._digest(item) and self._work(item).is_done(item, entry)
            row_of(item.path, "", entry)
        except (OSError, AttributeError, ValueError, LookupError, TypeError):  # none, or somebody has edited it
            return None
        return entry if is_done else None

    def open(self) -> Runtime:
        """A runtime, warmed up.

        Raises:
            ErrsegError: The bundle cannot be run here, or the folder of results is not here.
        """
        import cv2

        from errseg_rt.runtime import Runtime

        if not (self.out / SUMMARY).is_file():
            raise DataError(f"{self.out}: is not here; results go to a folder that all machines of a batch share")
        runtime = Runtime(self.bundle, options=self.options)
        if runtime.bundle.stamp()["sha256"] != self.sha256:
            raise BundleError(f"{self.bundle}: is another bundle here; give all machines of a batch the same one")
        if runtime.device == "cpu":
            cv2.setNumThreads(self.options.cores)  # else each worker would have one for every core of the machine
            runtime.warm_up()
        return runtime

    def do(self, runtime: Runtime, item: Item) -> Entry:
        """Do all of a file; what is noted of it.

        Raises:
            ErrsegError: It cannot be segmented.
            OSError: A result cannot be written.
        """
        entry = {
            **self._work(item).do(runtime, item),
            "settings": self._digest(item),
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            "finished": time.time(),
        }
        write_json(self.record(item), entry)
        return entry

    def _work(self, item: Item) -> ImageWork | ClipWork:
        return self.clips if item.is_video else self.images

    def _digest(self, item: Item) -> str:
        """Of the settings that are about a file of its kind."""
        if item.is_video not in self._digests:
            settings = json.dumps({**self.common, **self._work(item).settings}, sort_keys=True)
            self._digests[item.is_video] = hashlib.sha256(settings.encode()).hexdigest()[:16]
        return self._digests[item.is_video]
