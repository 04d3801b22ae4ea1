"""What a machine has too little of, told from what libraries raise, and what helps."""

from __future__ import annotations

import re

_MEMORY = re.compile(
    "bad_alloc|out of memory|outofmemory|(failed to|cannot|unable to) allocate|(insufficient|not enough) memory"
)
_MAP = "failed to map segment"  # of a library; the system's loader does not say for want of what
_THREADS = re.compile("pthread_create|start new thread|create (a )?(new )?thread")
FREE_MEMORY = "free memory, raise the limit of this process or its container, or bound frames by work_pixels"
ALLOW_THREADS = "raise the limit on threads (ulimit -u, or the container's pids limit), or give fewer by threads"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short; libraries have their own types and words for it."""
    return isinstance(error, MemoryError) or _MEMORY.search(str(error).lower()) is not None


def remedy(error: BaseException) -> str | None:
    """What helps where memory or threads were short, for a library too; None: that is not what went wrong."""
    if is_out_of_memory(error):
        return f"out of memory: {FREE_MEMORY}"
    if _MAP in str(error):
        return f"memory is short, or its disk is mounted noexec: {FREE_MEMORY}"
    if _THREADS.search(str(error).lower()):
        return f"no thread is to be had: {ALLOW_THREADS}"
    return None
