"""Runs test files in as many processes as there are cores: on a GPU each compiles its kernels, for seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from benchmarks.on_gpu.record import Found
from benchmarks.on_gpu.timing import Wrong

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ("tests/kernels/triton_checks",)
FRAMES = ("tests/places/test_device.py", "tests/places/test_device_lifetimes.py")
_NOTHING = 5  # pytest's exit code where a process had no test


def run_checks(
    files: Sequence[str],
    processes: int,
    *options: str,
    before: Sequence[str] = (),
    **variables: str,
) -> Iterator[Found]:
    """Have each process run its share of the tests.

    Args:
        files: Files or folders of tests.
        processes: How many.
        options: More of pytest's.
        before: A program that runs Python, with its options.
        variables: More of the environment.

    Raises:
        Wrong: A test failed.
    """
    plain = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1", "ERRSEG_REQUIRE_GPU": "1"}
    environment = dict(os.environ) | plain | variables
    paths = [str(path) for file in files for path in (sorted((ROOT / file).glob("*.py")) or [ROOT / file])]
    command = [*before, sys.executable, "-m", "pytest", "-q", "-rfE", "--durations=3", "-p", "no:cacheprovider"]
    command += ["-p", "benchmarks.on_gpu.share", *options, *paths]
    shares = [[*command, "--share", f"{index}/{processes}"] for index in range(processes)]
    printed, failed = [], []
    with ThreadPoolExecutor(processes) as pool:
        for done in as_completed(pool.submit(_run, share, environment) for share in shares):
            ran = done.result()
            print(ran.stdout, flush=True)  # as they end, so that the log shows it where others are cut off
            printed.append(ran.stdout)
            if ran.returncode not in (0, _NOTHING):
                names = re.findall(r"^(?:FAILED|ERROR) (?:\S*/)?(\S+)", ran.stdout, re.MULTILINE)
                names += re.findall(r"^=+ (Invalid .*)$", ran.stdout, re.MULTILINE)  # compute-sanitizer's
                failed += names or [f"a process ended with exit code {ran.returncode}"]
    passed, skipped = (sum(_count(text, word) for text in printed) for word in ("passed", "skipped"))
    if failed:
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise Wrong(f"{len(failed)} checks failed, {passed} passed: {', '.join(failed[:5])}{more}")
    if not passed:
        raise Wrong("no check was run")
    yield f"{passed} checks passed{f', {skipped} skipped' if skipped else ''}, in {processes} processes"


def _run(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def _count(printed: str, word: str) -> int:
    """How many tests passed, or were skipped, by the line that pytest ends with."""
    found = re.findall(rf"^(?:.* )?(\d+) {word}.* in [\d.]+s", printed, re.MULTILINE)
    return int(found[-1]) if found else 0
