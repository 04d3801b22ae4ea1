"""`errseg-rt batch --ray` on a real local cluster of two workers, one of which, and then the driver, is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.batch.killed import check_whole, kill_a_worker, kill_the_driver, records, start, until, write_images
from tests.conftest import gpu_fault

RAY = ("--ray", "local", "--workers", "2")


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def test_a_worker_then_the_driver_is_killed(kernels_are_compiled, tmp_path: Path, frame: np.ndarray) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    names, out = write_images(tmp_path / "in", frame, 40), tmp_path / "out"
    (tmp_path / "in" / "none.png").write_bytes(b"nonsense")
    process = start(tmp_path / "in", "-o", out, *RAY)
    kill_a_worker(process, out)
    some = len(records(out))
    until(lambda: len(records(out)) >= min(some + 3, 40), process)
    left = kill_the_driver(process, out)
    assert 6 <= len(left) < len(names)
    code, printed, err = ended(start(tmp_path / "in", "-o", out, "--json", *RAY))
    summary = json.loads(printed)
    assert (code, err) == (2, f"error: {summary['failed'][0]['error']}\n")
    assert summary["files"] == {"of": 41, "done": 40, "earlier": len(left), "failed": 1, "videos": 0}
    check_whole(out, names)
    assert {name: entry for name, entry in records(out).items() if name in left} == left
    table = parquet.read_table(out / "index.parquet").to_pylist()
    assert [Path(row["input"]).stem for row in table] == [*names, "none"]
    assert [row["error"] is None for row in table] == [True] * 40 + [False]


def test_ends_of_workers_are_survived(tmp_path: Path) -> None:
    """Out of memory, in the end, is a worker that is gone; a bundle that is none ends it all."""
    code = f"""
from pathlib import Path
from errseg_rt.batch.actors import Actors
from errseg_rt.batch.crew import go_through
from errseg_rt.cluster import joined
from tests.batch.tasks import Odd, items
with joined("local", 2) as ray:
    crew = Actors(ray, Odd(Path({str(tmp_path)!r})), 1)
    found = {{item.name: done for item, done in go_through(crew, items("a", "bad", "mends", "dies", "b"), 2)}}
    assert [found[name] for name in ("a", "b", "mends")] == [{{"name": name}} for name in ("a", "b", "mends")], found
    assert found["bad"] == "bad: is bad"
    assert found["dies"].startswith("dies: 3 workers died over it, the last as Ray says: "), found
    for opening, error in (("dies", "3 workers in a row died before they took a file"), ("fails", "nothing to see")):
        try:
            list(go_through(Actors(ray, Odd(Path({str(tmp_path)!r}), opening), 1), items("a"), 1))
        except Exception as fault:
            assert type(fault).__name__ == "EngineError" and error in str(fault), fault
        else:
            raise AssertionError(opening)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_local_cluster_lets_nobody_in_without_its_token(tmp_path: Path, frame) -> None:
    write_images(tmp_path / "in", frame, 1)
    code = f"""
import os, subprocess, sys
from errseg_rt.cluster import joined
others = {{name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}}
told = []
with joined("local", 1) as ray:
    command = [sys.executable, "-c", "from errseg_rt.cli import main; main()", "batch", {str(tmp_path / "in")!r}]
    command += ["-o", {str(tmp_path / "out")!r}, "--ray", ray.get_runtime_context().gcs_address]
    for token in ({{}}, {{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": 32 * "ab"}}):
        done = subprocess.run(command, env=others | token, capture_output=True, text=True, timeout=120, check=False)
        told.append(f"{{done.returncode}} {{done.stderr.strip().splitlines()[-1]}}")
print("\\n".join(told))  # within the block, it would go nowhere
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("2 error: --ray ")
        assert line.endswith(
            "the cluster wants another token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        )
    assert list((tmp_path / "out").glob("*_*")) == []


@pytest.mark.skipif(gpu_fault() is None, reason="there is a GPU")
def test_no_gpu_where_one_is_wanted(cli, tmp_path: Path, frame) -> None:
    write_images(tmp_path / "in", frame, 1)
    done = cli("batch", tmp_path / "in", "-o", tmp_path / "out", "--ray", "local", "--engine", "tensorrt")
    assert (done.code, done.err) == (
        2,
        "error: --ray local: Ray sees no GPU of this machine; errseg-rt doctor says more\n",
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_address_where_nothing_answers(cli, tmp_path: Path, frame, host) -> None:
    write_images(tmp_path / "in", frame, 1)
    done = cli("batch", tmp_path / "in", "-o", tmp_path / "out", "--ray", f"{host}:9")
    assert (done.code, done.err) == (
        2,
        f"error: --ray {host}:9: no Ray cluster answers there; start one, check host and port, or give --ray local\n",
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "here:there"])
def test_an_address_that_is_none(cli, tmp_path: Path, frame, address) -> None:
    write_images(tmp_path / "in", frame, 1)
    for command in (("batch", tmp_path / "in", "-o", tmp_path / "out"), ("serve",)):
        done = cli(*command, "--ray", address)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert f"--ray {address}: an address is local, auto, or HOST:PORT" in done.err


def test_no_cluster_is_found(cli, tmp_path: Path, frame, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "in", frame, 1)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    done = cli("batch", tmp_path / "in", "-o", tmp_path / "out", "--ray", "auto")
    assert done.code == 2
    assert "--ray auto: Could not find any running Ray instance" in done.err, os.environ
