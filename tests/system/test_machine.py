"""What a processor is called and can do, from files as Linux writes them on several machines."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from errseg_rt.system.machine import instruction_sets, processor_name

AVX512 = "avx avx2 avx512f avx512dq avx512bw avx512vl"
X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC
flags\t\t: fpu sse4_1 {}
bugs\t\t: spectre_v1

processor\t: 1
model name\t: another
flags\t\t: fpu avx2 avx512_vnni avx_vnni
"""
PI = """processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd08

Model\t\t: Raspberry Pi 4 Model B Rev 1.1
"""
SERVER = """processor\t: 0
Features\t: fp asimd asimdhp asimddp sve i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd40

processor\t: 1
Features\t: fp asimd asimdhp asimddp sve i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""
BIG_LITTLE = SERVER + SERVER.replace("0xd40", "0xd05").replace("asimddp sve i8mm", "asimddp")


@pytest.fixture
def info(tmp_path: Path):
    """Writes Linux's file on processors."""

    def write(text: str) -> Path:
        path = tmp_path / "cpuinfo"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "board", "name"),
    [
        (X86, None, "AMD EPYC"),
        (PI, "Raspberry Pi 4 Model B Rev 1.1\0", "Raspberry Pi 4 Model B Rev 1.1"),
        (SERVER, None, "ARM 0x41 0xd40"),
        (BIG_LITTLE, None, "ARM 0x41 0xd40, 0x41 0xd05"),
        (BIG_LITTLE, "\0", "ARM 0x41 0xd40, 0x41 0xd05"),
    ],
    ids=["x86", "board", "server", "two kinds of cores", "a board without a name"],
)
def test_name(info, tmp_path: Path, text: str, board: str | None, name: str) -> None:
    model = tmp_path / "model"
    if board is not None:
        model.write_text(board)
    assert processor_name(info(text), model) == name


def test_name_where_linux_says_nothing(tmp_path: Path) -> None:
    assert processor_name(tmp_path / "none", tmp_path / "none") == (platform.processor() or platform.machine())


@pytest.mark.parametrize(
    ("text", "machine", "sets"),
    [
        (X86.format(""), "x86_64", "x86_64 sse"),
        (X86.format("avx avx2"), "x86_64", "x86_64 avx2"),
        (X86.format("avx avx2 avx_vnni"), "x86_64", "x86_64 avx-vnni"),
        (X86.format("avx avx2 avx512f avx512cd"), "x86_64", "x86_64 avx2"),
        (X86.format(AVX512), "x86_64", "x86_64 avx512"),
        (X86.format(f"{AVX512} avx_vnni"), "x86_64", "x86_64 avx512"),
        (X86.format(f"{AVX512} avx512_vnni amx_int8"), "x86_64", "x86_64 avx512-vnni"),
        ("", "x86_64", "x86_64"),
        ("", "AMD64", "AMD64"),
        (PI, "aarch64", "aarch64 neon"),
        (SERVER, "aarch64", "aarch64 neon dotprod i8mm"),
        ("", "arm64", "arm64"),
        ("flags\t: avx2", "riscv64", "riscv64"),
    ],
)
def test_instruction_sets(info, text: str, machine: str, sets: str) -> None:
    """Those of the first core; the architecture alone where the system does not say."""
    assert instruction_sets(info(text), machine) == sets


def test_here(tmp_path: Path) -> None:
    assert instruction_sets().split()[0] == platform.machine()
    assert instruction_sets(tmp_path / "none") == platform.machine()
    assert processor_name()
