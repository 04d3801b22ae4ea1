"""Kernels that were compiled ahead for one kind of GPU: a zip file of cubins, with an index."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from errseg_rt.errors import EngineError

KERNELS = "kernels.zip"
"""Its name in a built engine."""
_INDEX = "index.json"


@dataclass(frozen=True)
class Cubin:
    """Compiled code of one kernel.

    Attributes:
        code: The machine's code.
        name: Of the function in it.
        shared: Bytes of shared memory of a program.
        pointers: Null pointers that it takes behind its arguments.
    """

    code: bytes
    name: str
    shared: int
    pointers: int


class Cubins:
    """Compiled kernels, by the launches that need them.

    Args:
        cubins: By `Launch.code`.
    """

    def __init__(self, cubins: Mapping[str, Cubin]) -> None:
        self._cubins = dict(cubins)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._cubins)

    @classmethod
    def merged(cls, parts: Iterable[Cubins]) -> Cubins:
        """All that any of them holds."""
        return cls({code: cubin for part in parts for code, cubin in part._cubins.items()})

    def of(self, code: str) -> Cubin:
        """What was compiled for launches of a `Launch.code`.

        Raises:
            EngineError: It was not compiled.
        """
        try:
            return self._cubins[code]
        except KeyError:
            raise EngineError(
                f"the kernel {code} was not compiled when the engine was built: this size of frames, or this version "
                "of errseg-rt, needs an engine of its own; build it with errseg-rt build-engine --shape HxW"
            ) from None

    def to_bytes(self) -> bytes:
        """As a file."""
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
            index = []
            for number, (code, cubin) in enumerate(sorted(self._cubins.items())):
                member = f"{number}.cubin"
                fields = asdict(cubin)
                file.writestr(zipfile.ZipInfo(member), fields.pop("code"), zipfile.ZIP_DEFLATED)
                index.append({"launch": code, "file": member, **fields})
            file.writestr(zipfile.ZipInfo(_INDEX), json.dumps(index, indent=1), zipfile.ZIP_DEFLATED)
        return data.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Cubins:
        """From a file.

        Raises:
            EngineError: It is no such file.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as file:
                return cls(
                    {
                        each["launch"]: Cubin(
                            file.read(each["file"]), each["name"], int(each["shared"]), int(each["pointers"])
                        )
                        for each in json.loads(file.read(_INDEX))
                    }
                )
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
            raise EngineError(f"the built engine's {KERNELS} cannot be read ({error}); build it again") from error
