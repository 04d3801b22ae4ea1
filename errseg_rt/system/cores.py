"""How many cores this process may use: of the machine, of its affinity mask, and as its control groups allow."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
_GROUPS = "sys/fs/cgroup"
_V2_MOUNTS = (_GROUPS, f"{_GROUPS}/unified")
_V1_CPU = ("cpu", "cpu,cpuacct", "cpuacct,cpu")
"""Names under which systems mount the hierarchy of the cpu controller."""


@dataclass(frozen=True)
class Cores:
    """The three numbers that bound how many threads can run at a time.

    Attributes:
        machine: Cores of the machine.
        affinity: Cores on which this process may be scheduled.
        quota: Cores' worth of time that its control groups allow, say 2.5; None: no limit is known.
    """

    machine: int
    affinity: int
    quota: float | None

    @property
    def usable(self) -> int:
        """What this process may use; a part of a core counts as one."""
        allowed = self.affinity if self.quota is None else min(self.affinity, math.ceil(self.quota))
        return max(1, allowed)


def find_cores(root: Path = _ROOT) -> Cores:
    """The cores of this process.

    Args:
        root: Root of the file system, where `proc` and `sys` lie.
    """
    machine = os.cpu_count() or 1
    return Cores(machine, _affinity() or machine, min(_quotas(root), default=None))


def usable_cores(root: Path = _ROOT) -> int:
    """How many cores this process may use, at least 1: `find_cores(root).usable`."""
    return find_cores(root).usable


def _affinity() -> int | None:
    """Cores of the affinity mask; None where the system has none."""
    try:
        if hasattr(os, "process_cpu_count"):  # Python 3.13
            count: int | None = os.process_cpu_count()
            return count
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    except OSError:
        return None


def _quotas(root: Path) -> Iterator[float]:
    """Every limit that holds for this process, in cores."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            for mount in _V2_MOUNTS:
                for folder in _with_parents(root / mount, group):
                    yield from _cores(*_text(folder / "cpu.max").split()[:2])
        elif "cpu" in controllers.split(","):
            for name in dict.fromkeys((controllers, *_V1_CPU)):
                for folder in _with_parents(root / _GROUPS / name, group):
                    yield from _cores(*(_text(folder / f"cpu.cfs_{each}_us") for each in ("quota", "period")))


def _with_parents(mount: Path, group: str) -> Iterator[Path]:
    """The folder of a group and of each group around it, up to the root of the mount.

    In a container the group's path may be the host's, of which nothing lies below the mount: its root is then what the
    container was given.
    """
    path = PurePosixPath("/", group)
    inside = ".." not in path.parts  # a group that is seen from another namespace
    for each in (path, *path.parents) if inside else (PurePosixPath("/"),):
        yield mount / each.relative_to("/")


def _cores(quota: str = "", period: str = "") -> Iterator[float]:
    """Quota by period, both in microseconds, where they are a limit."""
    try:
        cores = int(quota) / int(period)
    except (ValueError, ArithmeticError):  # "max" in version 2, a file that is not there, or none that is understood
        return
    if cores > 0:  # -1 in version 1: no limit
        yield cores


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # ValueError: a path that no file can have
        return ""
