"""Variables of a checkpoint that TensorFlow's Saver wrote: a table of where they lie, and their bytes in shards."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path

import torch
from torch import Tensor

from errseg_rt.errors import DataError
from errseg_rt.networks.tensorflow.crc32c import masked_crc32c
from errseg_rt.networks.tensorflow.table import MAGIC, read_table
from errseg_rt.networks.tensorflow.wire import fields

_ENDING = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_TYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    9: torch.int64,
    14: torch.bfloat16,
    19: torch.float16,
}
"""By the numbers of TensorFlow's types.proto."""
_NO_NUMBERS = (7, 20, 21)  # strings and handles, which lie beside the weights in newer checkpoints
_OF_TRAINING = re.compile(
    r"(^|/)global_step$|/(Momentum|Adam(_\d)?|Adagrad|RMSProp(_\d)?|ExponentialMovingAverage)$|\.OPTIMIZER_SLOT"
)
"""Names of what a training keeps beside the weights."""
_MEND = (
    "a checkpoint is model.ckpt.index and model.ckpt.data-00000-of-00001, and possibly further shards, in one folder"
)


def checkpoint_files(path: Path) -> list[Path]:
    """The index and the shards of the checkpoint that a path means; empty: it means none.

    Args:
        path: A prefix, as `model.ckpt`, or one of the files that begin with it.

    Raises:
        DataError: It is a checkpoint as TensorFlow wrote them before 2016, in one file.
    """
    prefix = _prefix(path)
    index = Path(f"{prefix}.index")
    if not index.is_file():
        _refuse_old(path)
        return []
    shards = re.compile(re.escape(prefix.name) + r"\.data-\d{5}-of-\d{5}")
    return [index, *sorted(each for each in prefix.parent.iterdir() if shards.fullmatch(each.name))]


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Variables by name, but for what only a training needs; numbers only, no code is run.

    Args:
        path: As `checkpoint_files` takes it.

    Raises:
        DataError: A file is missing, damaged, or of a kind that is not read.
    """
    prefix = _prefix(path)
    index = Path(f"{prefix}.index")
    try:
        entries = dict(read_table(index.read_bytes()))
        shards = _shards(entries.pop(b"", b""))
        found = {name: _Entry.parse(value) for name, value in _named(entries)}
        if lost := next((name for name, entry in found.items() if entry.shard >= shards), None):
            raise ValueError(f"{lost} lies in shard {found[lost].shard} of {shards}")
    except OSError as error:
        raise DataError(f"{index}: cannot be read ({error.strerror}); {_MEND}") from error
    except ValueError as error:
        raise DataError(f"{index}: damaged, or no index of a TensorFlow checkpoint ({error}); copy it again") from error
    files = [Path(f"{prefix}.data-{shard:05}-of-{shards:05}") for shard in range(shards)]
    variables: dict[str, Tensor] = {}
    for name, entry in found.items():
        if _OF_TRAINING.search(name) or entry.dtype in _NO_NUMBERS:
            continue
        file = files[entry.shard]
        try:
            variables[name] = entry.read(file)
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}); {_MEND}") from error
        except ValueError as error:
            raise DataError(f"{file}: the variable {name} cannot be read: {error}") from error
    return variables


def _refuse_old(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(-min(len(MAGIC), path.stat().st_size), SEEK_END)
        if file.read() == MAGIC:
            raise DataError(
                f"{path}: a TensorFlow checkpoint of format 1, which is not read; save it again by "
                "tf.compat.v1.train.Saver(), which writes format 2"
            )


def _prefix(path: Path) -> Path:
    return Path(_ENDING.sub("", str(path)))


def _named(entries: dict[bytes, bytes]) -> Iterator[tuple[str, bytes]]:
    for name, value in entries.items():
        yield name.decode(errors="backslashreplace"), value


def _shards(header: bytes) -> int:
    """Number of the data files; ValueError where they are not as they are read here."""
    found = dict(fields(header))
    if not found.get(1):
        raise ValueError("it has no header")
    if found.get(2):
        raise ValueError("its numbers are big-endian")
    return int(found[1])


@dataclass(frozen=True)
class _Entry:
    """Where a variable lies, and what it is (tensor_bundle.proto)."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    is_sliced: bool = False

    @classmethod
    def parse(cls, message: bytes) -> _Entry:
        found = dict(fields(message))
        shape = []
        for number, dimension in fields(_bytes(found.get(2, b""))):
            if number == 2:
                shape.append(int(dict(fields(_bytes(dimension))).get(1, 0)))
        numbers = {number: int(value) for number, value in found.items() if isinstance(value, int)}
        dtype, shard, offset, size, crc = (numbers.get(number, 0) for number in (1, 3, 4, 5, 6))
        return cls(dtype, tuple(shape), shard, offset, size, crc, 7 in found)

    def read(self, file: Path) -> Tensor:
        """The variable; ValueError where it is not what this entry says."""
        if self.is_sliced:
            raise ValueError("it is kept in slices, as a partitioned variable; save it whole")
        if self.dtype not in _TYPES:
            raise ValueError(f"its type, number {self.dtype}, is none of numbers that a network has")
        dtype = _TYPES[self.dtype]
        if self.size != dtype.itemsize * math.prod(self.shape):
            raise ValueError(f"it has {self.size} bytes, which is not its shape {list(self.shape)}; copy it again")
        if self.offset + self.size > file.stat().st_size:
            raise ValueError("the file is cut off; copy it again")
        with file.open("rb") as opened:
            opened.seek(self.offset)
            data = opened.read(self.size)
        if masked_crc32c(data) != self.crc:
            raise ValueError("its checksum is wrong; copy the file again")
        if not data:  # which torch takes no buffer of
            return torch.empty(self.shape, dtype=dtype)
        return torch.frombuffer(bytearray(data), dtype=dtype).reshape(self.shape)  # little-endian, as torch's machines


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a message is a number")
    return value
