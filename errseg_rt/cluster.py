"""Ray clusters: joining one, or starting one of this machine that nobody else gets into."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from functools import cache
from importlib.util import find_spec
from typing import Any

from errseg_rt.errors import DataError
from errseg_rt.system.cores import usable_cores
from errseg_rt.system.lines import one_line, shortened

LOCAL = "local"
_FOUND = "auto"  # what RAY_ADDRESS names, or the cluster that runs on this machine
_ANSWERS = 5.0  # seconds within which a cluster's head must answer; Ray alone tries for two minutes and more
_STORE = 200 << 20  # bytes of a local cluster's shared memory, through which frames of a service go
_STARTS = 2  # of a local cluster: Ray gives its processes 30 seconds, which a busy machine may need for loading them


def check_ray(address: str) -> None:
    """Check that Ray is there, before anything costly is done, and that a cluster answers.

    Raises:
        DataError: Ray is not installed, there is no address of that form, or nothing of gRPC answers there.
    """
    if find_spec("ray") is None:
        raise DataError("--ray needs Ray, which the extra ray brings: pip install 'errseg-rt[ray]'")
    if address in (LOCAL, _FOUND):
        return
    found = re.fullmatch(r"(\[[\da-fA-F:]+\]|[\w.-]+):(\d{1,5})", address)
    if found is None:
        raise DataError(f"--ray {address}: an address is local, auto, or HOST:PORT of a cluster's head, say head:6379")
    import grpc

    channel = grpc.insecure_channel(address)
    try:
        grpc.channel_ready_future(channel).result(_ANSWERS)
    except grpc.FutureTimeoutError:
        raise DataError(
            f"--ray {address}: no Ray cluster answers there; start one, check host and port, or give --ray local"
        ) from None
    finally:
        channel.close()


@contextmanager
def joined(address: str, cpus: int | None = None) -> Iterator[Any]:
    """Ray, in a cluster, for the length of a `with` block.

    A local one is of this machine and this process alone: whoever talks to it must show a token that is made for it,
    as Ray listens on all interfaces, and runs what it is sent. It ends with the block, and with the process.

    What is printed on `sys.stdout` meanwhile goes nowhere.

    Args:
        address: `"local"`; `"auto"`, which `RAY_ADDRESS` names, or which runs on this machine; or `HOST:PORT`.
        cpus: Of a local cluster; None: the cores that this process may use.

    Raises:
        DataError: Ray is not installed, or the cluster cannot be joined.
    """
    check_ray(address)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()} if address == LOCAL else {}
    # Ray reads them when it is loaded first; what it does not know, it passes on to the processes that it starts.
    with _environment({"RAY_USAGE_STATS_ENABLED": "0", **token}):
        import ray

        told: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
        if address == LOCAL:
            told |= {
                "num_cpus": cpus or usable_cores(),
                "include_dashboard": False,
                "object_store_memory": _STORE,
            }
        for left in reversed(range(_STARTS if address == LOCAL else 1)):
            try:
                with _own_signals():
                    ray.init(**told)
                break
            except Exception as error:  # where it takes too long to start, a bare one
                ray.shutdown()
                if not left:
                    raise DataError(f"--ray {address}: {_said(error)}") from error
        # Ray prints on stdout, whatever it is told, where a program may read the answer.
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            try:
                yield ray
            finally:
                with suppress(Exception):  # the cluster may be what the block ended by
                    ray.shutdown()


def spaces(ray: Any, cpus: int, gpus: int = 0) -> int:
    """How many workers of so many CPUs, and GPUs, a cluster has room for when nobody else uses it."""
    wanted = {name: count for name, count in (("CPU", cpus), ("GPU", gpus)) if count}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(int(node.get(name, 0) // count) for name, count in wanted.items()) for node in nodes)


@cache
def _token() -> str:
    """The token of local clusters; Ray reads it once in a process, whatever it is later."""
    return secrets.token_hex(32)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables that are set for the length of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this program's answer to SIGTERM: Ray puts another in its place."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


def _said(error: BaseException) -> str:
    """What Ray says, in a line that is not too long, with what helps where it asks for a token."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    text = one_line(causes[-1])
    if any("token" in str(each).lower() for each in causes):
        return "the cluster wants another token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    return shortened(text)
