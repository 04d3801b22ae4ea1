"""The benchmark of GPUs: its logic at tiny sizes, and what it says without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | variables
    arguments = [sys.executable, *command]
    return subprocess.run(
        arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


def test_interpreted() -> None:
    command = ("-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "tests/benchmarks/gpu_checks.py")
    done = run(*command, TRITON_INTERPRET="1", OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", [("benchmarks/gpu.py",), ("-m", "benchmarks.gpu")], ids=["script", "module"])
def test_without_a_gpu_it_is_one_line(command, tmp_path) -> None:
    done = run(*command, "--json", str(tmp_path / "gpu.json"))
    assert done.returncode == 2
    assert done.stdout.startswith("benchmarks/gpu.py: nothing was measured: torch ")
    assert done.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())
