"""Kernels for GPUs, run by Triton's interpreter on the CPU, and by a GPU where there is one.

Triton decides when a kernel is defined whether it is interpreted, so that the checks run in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

CHECKS = sorted(str(path) for path in (Path(__file__).parent / "triton_checks").glob("*.py"))


def run(**variables: str) -> None:
    """Run every file of checks, two at a time."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | variables
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider"]

    def check(path: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, path], env=environment, capture_output=True, text=True, timeout=900, check=False
        )

    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(check, CHECKS):
            assert done.returncode == 0, done.stdout + done.stderr
            assert " passed" in done.stdout


def test_interpreted() -> None:
    run(TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    run()
