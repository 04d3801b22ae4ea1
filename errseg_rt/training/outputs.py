"""Whether the results of a training can be written, asked before it begins."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from errseg_rt.errors import DataError
from errseg_rt.training.recipe import STAGES

FOLDS, LOGS, TAPS = "folds", "logs", "taps"
RESULT = "cascade.safetensors"
_HALF_WRITTEN = re.compile(r"\.(.+\.)?[0-9a-f]{8}\.tmp(\.\w+)?")  # as `write_atomically` names it


def check_outputs(out: Path) -> None:
    """Make the folder of a training, and write into all that it has of folders; what a kill left half written goes.

    Raises:
        DataError: A folder cannot be made or written to, or something else has the name of a file or folder.
    """
    folders = [out, *(out / name for name in (*STAGES, LOGS, TAPS, FOLDS))]
    if (out / FOLDS).is_dir():
        folders += [path / name for path in sorted((out / FOLDS).iterdir()) for name in (".", STAGES[0])]
    for folder in folders:
        if folder == out or folder.exists():
            _check_folder(folder)
    for name in (RESULT, *(f"{stage}.safetensors" for stage in STAGES)):
        if (out / name).is_dir():
            raise DataError(f"{out / name}: a folder, where a file shall be written; give another --out")


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for path in folder.iterdir():
            if _HALF_WRITTEN.fullmatch(path.name):
                path.unlink()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error.strerror}); give another --out") from error
