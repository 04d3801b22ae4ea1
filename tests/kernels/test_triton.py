"""Kernels for GPUs, run by Triton's interpreter on the CPU, and by a GPU where there is one.

Triton decides when a kernel is defined whether it is interpreted, so that the checks run in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

CHECKS = sorted(str(path) for path in (Path(__file__).parent / "triton_checks").glob("*.py"))


def run(**variables: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", *CHECKS]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_interpreted() -> None:
    run(TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    run()
