"""Kernels for GPUs, run by Triton's interpreter on the CPU, and by a GPU where there is one.

Triton decides when a kernel is defined whether it is interpreted, so that the checks run in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

CHECKS = sorted((Path(__file__).parent / "triton_checks").glob("*.py"), key=lambda path: path.stem)
each_file = pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)


def run(path: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a file of checks."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | dict(variables)
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", str(path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)


def check(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@each_file
def test_interpreted(path: Path) -> None:
    check(run(path, {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}))


@pytest.mark.gpu
@each_file
def test_on_a_gpu(path: Path) -> None:
    check(run(path, {}))
