"""compute-sanitizer over select and refine: whether they read or write beyond what they were given."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.on_gpu.checks import run_checks
from benchmarks.on_gpu.probe import sanitizer
from benchmarks.on_gpu.record import Found, Missing

FILES = ("tests/kernels/triton_checks/select.py", "tests/kernels/triton_checks/refine.py")
# Of those files, what runs kernels on grids of few pixels and of a whole frame, and captures no graph.
CHOSEN = "definition or channels or few_pixels or whole_frame or last_program or tile_after_tile"


def check(processes: int) -> Iterator[Found]:
    """Run the chosen checks under it.

    Raises:
        Missing: It is not installed.
        Wrong: It found something, or a check failed.
    """
    path = sanitizer()
    if path is None:
        raise Missing("compute-sanitizer is not installed; it comes with the CUDA toolkit")
    command = (
        path, "--tool", "memcheck", "--target-processes", "application-only", "--error-exitcode", "9",
        "--print-limit", "20",
    )  # fmt: skip
    # Without torch's cache, each tensor is memory of its own, beyond which the sanitizer sees an access.
    yield from run_checks(
        FILES, processes, "--noconftest", "-k", CHOSEN, before=command, PYTORCH_NO_CUDA_MEMORY_CACHING="1"
    )
