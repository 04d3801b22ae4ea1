"""Kernels for GPUs, run by Triton's interpreter on the CPU, and by a GPU where there is one.

Triton decides when a kernel is defined whether it will be interpreted, so that the checks run in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

CHECKS = sorted((Path(__file__).parent / "triton_checks").glob("*.py"))
every_file = pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)


def run(path: Path, **variables: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", str(path)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@every_file
def test_interpreted(path: Path) -> None:
    run(path, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.mark.gpu
@every_file
def test_on_a_gpu(path: Path) -> None:
    run(path)
