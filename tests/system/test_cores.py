"""How many cores there are for a process: affinity, and the quota of control groups in trees that are made up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from errseg_rt.system import cores
from errseg_rt.system.cores import Cores, find_cores, usable_cores

V1 = "5:cpuset:/a/b\n4:cpu,cpuacct:/a/b\n0::/elsewhere\n"


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of sixteen cores, of which the process may be scheduled on eight."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(cores, "_affinity", lambda: 8)


def tree(root: Path, own: str | bytes, **files: str | bytes) -> Path:
    """A root of a file system; `__` in a name is a folder's end, and `_us` files are version 1's."""
    for name, content in {"proc/self/cgroup": own, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def v2(**groups: str) -> dict[str, str]:
    return {f"sys/fs/cgroup/{group.replace('_', '/')}/cpu.max": text for group, text in groups.items()}


def v1(mount: str, group: str, quota: str, period: str = "100000\n") -> dict[str, str]:
    folder = f"sys/fs/cgroup/{mount}/{group}"
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": period}


@pytest.mark.parametrize(
    ("own", "files", "quota", "usable"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2, 2),
        ("0::/a/b\n", v2(a_b="400000 100000\n"), 4, 4),
        ("0::/a/b\n", v2(a_b="400000 100000\n", a="150000 100000\n"), 1.5, 2),
        ("0::/a/b\n", v2(a_b="150000 100000\n", a="max 100000\n"), 1.5, 2),
        ("0::/a/b\n", v2(a_b="max 100000\n", a="max 100000\n"), None, 8),
        ("0::/a\n", v2(a="50000 100000\n"), 0.5, 1),
        ("0::/a\n", v2(a="250000 100000\n"), 2.5, 3),
        ("0::/a\n", v2(a="9900000 100000\n"), 99, 8),
        ("0::/a\n", v2(other="100000 100000\n"), None, 8),
        ("0::/host/path\n", {"sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3, 3),
        ("0::/../../a\n", {"sys/fs/cgroup/cpu.max": "300000 100000\n", "sys/a/cpu.max": "100000 100000\n"}, 3, 3),
        (V1, v1("cpu,cpuacct", "a/b", "250000\n"), 2.5, 3),
        (V1, v1("cpu", "a/b", "250000\n"), 2.5, 3),
        (V1, v1("cpu", "", "250000\n"), 2.5, 3),
        (V1, {**v1("cpu", "a/b", "250000\n"), **v1("cpu", "a", "100000\n")}, 1, 1),
        (V1, v1("cpu", "a/b", "-1\n"), None, 8),
        (V1, v1("cpuset", "a/b", "100000\n"), None, 8),
        ("1:cpu:/\n0::/\n", {**v1("cpu", "", "-1\n"), "sys/fs/cgroup/unified/cpu.max": "200000 100000\n"}, 2, 2),
    ],
    ids=[
        "v2 at the root",
        "v2",
        "v2, a tighter parent",
        "v2, a parent without a limit",
        "v2, no limit",
        "half a core",
        "two and a half",
        "more than there are",
        "v2, another's group",
        "v2, the host's path in a container",
        "v2, a group of another namespace",
        "v1",
        "v1, linked as cpu",
        "v1, the host's path in a container",
        "v1, a tighter parent",
        "v1, no limit",
        "v1, another controller's",
        "both, the limit in version 2",
    ],
)
def test_quota(tmp_path: Path, own: str, files: dict[str, str], quota: float | None, usable: int) -> None:
    root = tree(tmp_path, own, **files)
    assert find_cores(root) == Cores(16, 8, quota)
    assert usable_cores(root) == usable


@pytest.mark.parametrize("text", ["", "200000", "0 100000", "200000 0", "-1 100000", "two cores", "2e5 1e5", b"\xff\0"])
def test_a_quota_that_is_none(tmp_path: Path, text: str | bytes) -> None:
    for own in ("0::/a\n", "4:cpu:/a\n"):
        files = {"sys/fs/cgroup/a/cpu.max": text}
        files |= {f"sys/fs/cgroup/cpu/a/cpu.cfs_{name}_us": text for name in ("quota", "period")}
        if text == "200000":  # as both quota and period of version 1, one core
            files["sys/fs/cgroup/cpu/a/cpu.cfs_period_us"] = ""
        assert find_cores(tree(tmp_path, own, **files)).quota is None


@pytest.mark.parametrize("own", ["", "\n", "0", "0::", ":::", "4:cpu", b"0::/\0\n", b"\xff\xfe", "0::/" + "x" * 5000])
def test_a_group_that_is_none(tmp_path: Path, own: str | bytes) -> None:
    assert find_cores(tree(tmp_path, own)) == Cores(16, 8, None)


def test_without_proc(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8


def test_where_there_is_no_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_affinity", lambda: None)
    assert find_cores(tmp_path) == Cores(16, 16, None)


ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from errseg_rt.system.cores import find_cores, usable_cores
print(usable_cores(), find_cores().affinity)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity of processes")
def test_a_process_on_one_core() -> None:
    done = subprocess.run([sys.executable, "-c", ONE_CORE], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 1\n", "")
