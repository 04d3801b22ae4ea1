"""What this machine's processor is called, and what it can do with integers."""

from __future__ import annotations

import platform
from pathlib import Path

_INFO = Path("/proc/cpuinfo")
_MODEL = Path("/proc/device-tree/model")
_X86_64 = ("x86_64", "amd64", "x64")
_AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
"""What onnxruntime's kernels for AVX-512 want, all together."""
_ARM = {"asimd": "neon", "asimddp": "dotprod", "i8mm": "i8mm"}


def processor_name(info: Path = _INFO, model: Path = _MODEL) -> str:
    """Model of the processor, as Linux has it, or what Python knows.

    On Arm, where Linux names no model: the board, or who made which cores, by the numbers of Arm's registers.

    Args:
        info: Linux's file on processors.
        model: The device tree's name of the board.
    """
    fields = _fields(info)
    for name, value in fields:
        if name == "model name" and value:
            return value
    board = _text(model).strip("\0 \n")
    if board:
        return board
    makers = [value for name, value in fields if name == "CPU implementer"]
    parts = [value for name, value in fields if name == "CPU part"]
    cores = dict.fromkeys(f"{maker} {part}" for maker, part in zip(makers, parts, strict=False))
    if cores:
        return f"ARM {', '.join(cores)}"
    return platform.processor() or platform.machine()


def instruction_sets(info: Path = _INFO, machine: str | None = None) -> str:
    """The architecture, and the instruction sets that decide how onnxruntime multiplies 8-bit integers.

    On x86-64 one of `"x86_64 avx512-vnni"`, `"x86_64 avx512"`, `"x86_64 avx-vnni"`, `"x86_64 avx2"` and `"x86_64 sse"`:
    the first that is there, as onnxruntime chooses. AMX is left out: its sums are those of VNNI. On Arm
    `"aarch64 neon dotprod i8mm"` or less of it. Where the system does not say, as on macOS and Windows, the
    architecture alone.

    Args:
        info: Linux's file on processors.
        machine: The architecture; None: this machine's.
    """
    machine = machine or platform.machine()
    fields = dict(reversed(_fields(info)))  # those of the first core
    if machine.lower() in _X86_64:
        flags = set(fields.get("flags", "").split())
        if not flags:
            return machine
        if flags >= _AVX512:
            return f"{machine} avx512{'-vnni' if 'avx512_vnni' in flags else ''}"
        if "avx2" in flags:
            return f"{machine} {'avx-vnni' if 'avx_vnni' in flags else 'avx2'}"
        return f"{machine} sse"
    features = fields.get("Features", "").split()
    return " ".join([machine, *(word for feature, word in _ARM.items() if feature in features)])


def _fields(info: Path) -> list[tuple[str, str]]:
    """Names and values of all cores, in the file's order."""
    pairs = (line.partition(":") for line in _text(info).splitlines())
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
