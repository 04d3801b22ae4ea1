"""How threads share out a kernel's tasks among themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from errseg_rt.kernels.team import Team


def run_all(team: Team, function: Callable[[Any], bool]) -> bool:
    """Run `function(counter)` in every thread, the counter being for `claim`; return whether all gave true."""
    counter, answers = np.zeros(1, np.int64), list[bool]()
    team.run(lambda: answers.append(function(counter)))
    return all(answers)


@intrinsic
def claim(_typing: Any, counter: Any) -> Any:
    """In compiled code, take the number of a task that no other thread of the team takes: 0, 1, 2 and so on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", data, context.get_constant(types.int64, 1), "monotonic")

    return types.int64(counter), generate
