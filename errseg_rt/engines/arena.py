"""One arena of memory for all of ONNX Runtime's sessions on the CPU.

Sessions have arenas of their own by default: front and refine graph never run at the same time for one frame, and yet
each would keep what its largest frames took, in pieces that fit no other size. One arena takes less, and does not grow
with the number of sizes. It outlives the sessions, so that what is free in it has to be given back.
"""

from __future__ import annotations

import functools
import os
import weakref

import numpy as np
import onnxruntime
from onnxruntime import InferenceSession

from errseg_rt.system.forks import keep_in_forks

_SHARED = "session.use_env_allocators"
_SHRINK = "memory.enable_memory_arena_shrinkage"
# Each region of the arena is twice as large as the last, up to here, by default up to 1 GiB. A process that sees frames
# of 1024x2048 takes 6 % less memory with it, and no more time; regions of just what was asked for fit no other size.
_LARGEST_DOUBLED = {"max_power_of_two_extend_bytes": 16 << 20}
# y = x of one number: a graph is what can be run, and only a run gives memory back.
_NOTHING = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01g'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


class _Arena:
    """The arena, and a session by which memory is given back."""

    def __init__(self) -> None:
        info = onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        )
        onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg(_LARGEST_DOUBLED))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry(_SHARED, "1")
        self._session = InferenceSession(_NOTHING, options, providers=["CPUExecutionProvider"])
        self._run = onnxruntime.RunOptions()
        self._run.add_run_config_entry(_SHRINK, "cpu:0")
        self.process = os.getpid()
        keep_in_forks(self._session)

    def shrink(self) -> None:
        if self.process == os.getpid():
            self._session.run(None, {"x": np.zeros(1, np.float32)}, self._run)


@functools.cache
def _arena() -> _Arena | None:
    try:
        return _Arena()
    except Exception:  # of another program in this process: sessions then have arenas of their own
        return None


def share(options: onnxruntime.SessionOptions) -> None:
    """Have a session use the arena; not in a forked child, whose parent may have held its lock."""
    arena = _arena()
    if arena is not None and arena.process == os.getpid():
        options.add_session_config_entry(_SHARED, "1")


def give_back_with(engine: object) -> None:
    """Give memory that is free in the arena back to the system when an engine goes."""
    arena = _arena()
    if arena is not None:
        weakref.finalize(engine, arena.shrink).atexit = False
