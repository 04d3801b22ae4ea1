"""How threads share out a kernel's steps: by chunks, and each step once all chunks of the one before are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from errseg_rt.kernels.compiled import compiled
from errseg_rt.kernels.team import Team

_NEVER = 1 << 40  # chunks
_LOOKS = 2000  # at a counter, before a thread that waits gives way: some 10 us
_LINE = 8  # integers of a cache line


class Step(NamedTuple):
    """One step of a kernel.

    Attributes:
        run: Does the chunks that it claims from a counter and says of each that it is done; returns whether all is
            well.
        chunks: How many there are.
    """

    run: Callable[[Any], bool]
    chunks: int


def run_in_turn(team: Team, steps: Sequence[Step]) -> bool:
    """Have every thread of a team go through the steps; return whether all was well."""
    counters = np.zeros((len(steps), 2, _LINE), np.int64)  # of each step's chunks: claimed, done
    failures = []

    def work() -> None:
        for step, counter in zip(steps, counters, strict=True):
            is_well = False
            try:
                is_well = step.run(counter)
            finally:
                if not is_well:  # then nobody takes more, or waits for what does not come
                    failures.append(step)
                    counters[:] = _NEVER
            while not is_done(counter, step.chunks):
                time.sleep(0)

    team.run(work)
    return not failures


@compiled
def is_done(counter: Any, chunks: int) -> bool:
    """Whether all chunks are, or will be in a moment."""
    looks = 0
    while looks < _LOOKS and done(counter) < chunks:
        looks += 1
    return looks < _LOOKS


@intrinsic
def claim(_typing: Any, counter: Any) -> Any:
    """In compiled code, take the number of a chunk that no other thread of the team takes: 0, 1, 2 and so on."""
    return types.int64(counter), _add(0)


@intrinsic
def tell(_typing: Any, counter: Any) -> Any:
    """In compiled code, say that a chunk is done: whoever sees that sees what was written for it."""
    return types.int64(counter), _add(1)


@intrinsic
def done(_typing: Any, counter: Any) -> Any:
    """In compiled code, how many chunks are done."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_line(context, builder, signature, arguments, 1), "acquire", 8)

    return types.int64(counter), generate


def _add(line: int) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _line(context, builder, signature, arguments, line)
        return builder.atomic_rmw("add", place, context.get_constant(types.int64, 1), "acq_rel")

    return generate


def _line(context: Any, builder: Any, signature: Any, arguments: Any, line: int) -> Any:
    """Address of one of a counter's two numbers."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.gep(data, [context.get_constant(types.intp, line * _LINE)])
