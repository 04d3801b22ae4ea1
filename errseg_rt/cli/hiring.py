"""How many workers there are on a Ray cluster, and what each of them takes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from errseg_rt.cli.faults import say
from errseg_rt.cluster import LOCAL, joined, spaces
from errseg_rt.errors import DataError
from errseg_rt.options import Options
from errseg_rt.system.cores import usable_cores


def shares(options: Options) -> tuple[int, int]:
    """CPUs and GPUs of a worker: a CPU for each of its threads, or one beside its GPU."""
    return (1, 1) if options.kind == "gpu" else (options.cores, 0)


def most_here(options: Options) -> int:
    """Workers that are worth having on this machine: on a GPU one, as several would need its memory several times."""
    cpus, gpus = shares(options)
    return 1 if gpus else max(1, usable_cores() // cpus)


@contextmanager
def hired(address: str, options: Options, asked: int | None) -> Iterator[tuple[Any, int]]:
    """Ray, in a cluster, for the length of a `with` block, and how many workers there are to be.

    Args:
        address: As `errseg_rt.cluster.joined` takes it.
        options: How each of them runs its bundle.
        asked: How many the user wants; None: as many as there is room for.

    Raises:
        DataError: The cluster cannot be joined, or a local one has no GPU where one is wanted.
    """
    cpus, gpus = shares(options)
    here = asked or most_here(options)
    with joined(address, cpus * here) as ray:
        room = spaces(ray, cpus, gpus)
        if address == LOCAL and not room:  # whose nodes stay as they are
            raise DataError(f"--ray {LOCAL}: Ray sees no GPU of this machine; errseg-rt doctor says more")
        most = asked or max(1, room)
        if most > room:
            say("note", f"the cluster has CPUs or GPUs for {room} workers; the others wait until there are more")
        yield ray, most
