"""One arena for all of ONNX Runtime's sessions: what is free in it goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from errseg_rt.engines import arena

SHARED = "session.use_env_allocators"
MEMORY = """
import re, sys
import numpy as np
from errseg_rt import Runtime

def memory():
    return int(re.search(r"VmRSS:\\s*(\\d+)", open("/proc/self/status").read())[1])

with Runtime(threads=1) as runtime, Runtime(threads=1) as other:
    other.segment(np.zeros((40, 60, 3), np.uint8))
    runtime.segment(np.zeros((40, 60, 3), np.uint8))
    before = memory()
    runtime.segment(np.zeros((1024, 2048, 3), np.uint8))
    during = memory()
    runtime.close()
    print(before, during, memory())
    other.segment(np.zeros((50, 60, 3), np.uint8))
"""
ANOTHER = """
import onnxruntime
info = onnxruntime.OrtMemoryInfo(
    "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
)
onnxruntime.create_and_register_allocator(info, None)
import numpy as np
from errseg_rt import Runtime
with Runtime(threads=1) as runtime:
    print(runtime.segment(np.zeros((40, 60, 3), np.uint8)).labels.shape)
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def is_shared(options: onnxruntime.SessionOptions) -> bool:
    try:
        return options.get_session_config_entry(SHARED) == "1"
    except RuntimeError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what Linux tells of a process")
def test_what_a_closed_runtime_took_goes_back() -> None:
    """Another one goes on meanwhile."""
    before, during, after = map(int, run(MEMORY).split())
    assert after - before < (during - before) / 3


def test_an_arena_of_another_program_is_no_fault() -> None:
    assert run(ANOTHER) == "(40, 60)\n"


def test_a_forked_child_leaves_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = onnxruntime.SessionOptions(), onnxruntime.SessionOptions()
    arena.share(here)
    assert is_shared(here)
    monkeypatch.setattr(arena.os, "getpid", lambda: -1)
    arena.share(there)
    assert not is_shared(there)
