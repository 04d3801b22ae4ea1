"""Tensors in the files of a training: whole or not there, and with a checksum, which safetensors have not."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from errseg_rt.system.atomic import write_atomically

_CHECKSUM = "crc32"
_LENGTH = 8  # bytes of the header's length, at the start


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
    """Write tensors, with notes in the header."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    notes = dict(notes or {})
    checksum = zlib.crc32(_body(save(contiguous, notes)))
    with write_atomically(path) as temporary:
        temporary.write_bytes(save(contiguous, {**notes, _CHECKSUM: f"{checksum:08x}"}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and notes of a file.

    Raises:
        SafetensorError: It is no safetensors file, or damaged; one without a checksum may be so unnoticed.
    """
    content = path.read_bytes()
    tensors = load(content)
    notes = json.loads(content[_LENGTH : len(content) - len(_body(content))]).get("__metadata__", {})
    checksum = notes.pop(_CHECKSUM, None)
    if checksum is not None and checksum != f"{zlib.crc32(_body(content)):08x}":
        raise SafetensorError("its checksum is wrong")
    return tensors, notes


def _body(content: bytes) -> bytes:
    """What follows the header."""
    return content[_LENGTH + int.from_bytes(content[:_LENGTH], "little") :]
