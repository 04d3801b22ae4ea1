"""Reading what `torch.save` wrote, without running code that it may hold, and with every fault in words."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from errseg_rt.errors import DataError


def read_torch(path: Path, mend: str, map_location: Any = "cpu") -> Any:
    """Tensors and plain values of a file.

    Args:
        path: The file.
        mend: What the user can do where it cannot be read.
        map_location: Where the tensors shall lie, as `torch.load` takes it.

    Raises:
        DataError: It is empty, damaged, no file of `torch.save`, or holds more than that.
    """
    if not path.stat().st_size:
        raise DataError(f"{path}: empty; {mend}")
    try:
        damaged = _damaged_part(path)
        if not damaged:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickles, which are refused in words
                return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # unpickling damaged bytes raises whatever it comes upon
        raise DataError(f"{path}: {_reason(error)}; {mend}") from error
    raise DataError(f"{path}: damaged (the checksum of {damaged} is wrong); {mend}")


def _damaged_part(path: Path) -> str | None:
    """A part of the archive whose checksum is wrong, which torch does not look at."""
    if not zipfile.is_zipfile(path):  # as torch wrote files before version 1.6
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _reason(error: Exception) -> str:
    # Torch's own messages tell over many lines how to load what it refuses.
    text = str(error)
    if found := re.search(r"GLOBAL (\S+)", text):
        return f"holds more than weights ({found[1]}), which is not loaded, as that could run code"
    if "TorchScript" in text:
        return "is a TorchScript archive, which holds code"
    return "damaged, or not written by torch.save"
