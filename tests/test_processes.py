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
from PIL import Image

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


FORKS_AMID_WORK = """
import os, signal, sys, threading
import numpy as np
from errseg_rt import Runtime

def work():
    while not done.is_set():
        runtime.segment(frame)
def use():
    assert np.array_equal(runtime.segment(frame).labels, labels)
def open_anew():
    with Runtime(threads=1) as other:
        assert np.array_equal(other.segment(frame).labels, labels)
def close(): runtime.close()

frame = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
runtime, done = Runtime(threads=2), threading.Event()
labels = runtime.segment(frame).labels
workers = [threading.Thread(target=work) for _ in range(2)]
for worker in workers:
    worker.start()
for child in (use, open_anew, close) * 2:
    if os.fork() == 0:
        signal.alarm(100)
        child()
        sys.exit(0)
    print(child.__name__, os.wait()[1], flush=True)
done.set()
for worker in workers:
    worker.join()
"""
FORKS_AMID_READING = """
import os, signal, sys, threading, time
from pathlib import Path
from errseg_rt.frames.formats import pillow
from errseg_rt.frames.libtiff import overheard
from errseg_rt.frames.reading import read_frame

def read():
    with pillow(lenient=True), overheard():
        reading.set()
        forking.wait()
        time.sleep(0.3)  # until the other thread is in the fork

reading, forking = threading.Event(), threading.Event()
reader = threading.Thread(target=read)
reader.start()
reading.wait()
forking.set()
if os.fork() == 0:
    signal.alarm(100)
    print("a child", file=sys.stderr, flush=True)
    print(read_frame(Path(sys.argv[1])).shape, flush=True)
    os._exit(0)
print(os.wait()[1])
reader.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_forks_while_its_threads_segment() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS_AMID_WORK], capture_output=True, text=True, timeout=650, check=False
    )
    assert done.stdout.splitlines() == ["use 0", "open_anew 0", "close 0"] * 2, done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_forks_while_a_thread_reads_a_file(tmp_path: Path) -> None:
    Image.new("RGB", (9, 7)).save(tmp_path / "a.gif")
    command = [sys.executable, "-c", FORKS_AMID_READING, str(tmp_path / "a.gif")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.stdout.splitlines() == ["(7, 9, 3)", "0"], done.stderr
    assert "a child" in done.stderr  # not where the lines of libtiff were going


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
