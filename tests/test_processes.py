"""A runtime in other processes: forked ones, and those that it is pickled for."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from errseg_rt import Bundle, EngineError, Runtime

FORKS = """
import gc, os, signal, sys
import numpy as np
from errseg_rt import Runtime

def close(): runtime.close()
def collect():
    global runtime
    del runtime
    gc.collect()
def use():
    assert np.array_equal(runtime.segment(frame).labels, labels)
    runtime.close()
def use_twice():
    assert np.array_equal(runtime.segment(frame).labels, labels)
    if os.fork() == 0:
        use()
        sys.exit(0)
    assert os.wait()[1] == 0
    use()
def leave(): pass

frame = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
runtime = Runtime(threads=2)
labels = runtime.segment(frame).labels
for child in (close, collect, use, use_twice, leave):
    if os.fork() == 0:
        signal.alarm(100)  # a child that hangs is killed, and tells
        child()
        sys.exit(0)
    print(child.__name__, os.wait()[1], flush=True)
use()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_ends_whatever_it_does_with_the_runtime_of_its_parent() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=550, check=False)
    assert done.stdout.splitlines() == ["close 0", "collect 0", "use 0", "use_twice 0", "leave 0"], done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("engine", "device"), [("torch", "cpu"), ("torch", "cuda"), ("tensorrt", "cuda")])
def test_what_does_not_go_through_a_fork_says_so(frame, monkeypatch, engine, device) -> None:
    with Runtime(threads=1) as runtime:
        runtime.options = replace(runtime.options, engine=engine, device=device, threads=None)
        runtime.segment(frame)
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(EngineError, match=f"opened in another process, .*{engine}.*start processes by spawn"):
            runtime.segment(frame)


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy, copy.copy])
def test_a_copy_is_opened_by_bundle_and_options(runtime, frame, copied) -> None:
    with Runtime(threads=1, threshold=0.4, detail="dense") as runtime, copied(runtime) as other:
        assert other is not runtime
        assert other.options == runtime.options
        assert other.bundle == runtime.bundle
        runtime.close()
        assert other.segment(frame).over_threshold == Runtime(options=other.options).segment(frame).over_threshold


def test_another_bundle_is_found_by_its_folder_from_anywhere(bundle_copy: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(bundle_copy.parent)
    with Runtime(bundle_copy.name, threads=1) as runtime:
        data = pickle.dumps(runtime)
        assert runtime.bundle.address == str(bundle_copy)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pickle.loads(data) as other:
        assert other.bundle.folder == bundle_copy
    assert len(data) < 2000  # it carries no weights
    shutil.rmtree(bundle_copy)
    with pytest.raises(ValueError, match=r"no manifest\.json there"):
        pickle.loads(data)


def test_engines_that_lie_elsewhere_stay_there(tmp_path) -> None:
    bundle = replace(Bundle.open("camvid"), engine_folder=tmp_path)
    with Runtime(bundle, threads=1) as runtime, pickle.loads(pickle.dumps(runtime)) as other:
        assert other.bundle == bundle


def test_a_closed_one_is_not_pickled() -> None:
    with Runtime(threads=1) as runtime:
        pass
    with pytest.raises(EngineError, match="this runtime is closed"):
        pickle.dumps(runtime)


def counts(runtime: Runtime, frame: npt.NDArray[np.uint8]) -> list[int]:
    return np.bincount(runtime.segment(frame).labels.ravel(), minlength=256).tolist()


def test_a_process_that_is_spawned(runtime, frame) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(counts, runtime, frame).result(timeout=300)
    assert json.dumps(there) == json.dumps(counts(runtime, frame))
