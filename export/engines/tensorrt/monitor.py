"""What a TensorRT builder is doing, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

Report = Callable[[str, int, int], None]
"""Is told a phase's name, steps done, and steps in all; from any thread."""


def make_monitor(tensorrt: Any, report: Report, cancelled: threading.Event) -> Any:
    """A progress monitor for a builder's configuration.

    Args:
        tensorrt: The module.
        report: Is told of every step of the outermost phases.
        cancelled: Stops the build at its next step once it is set.
    """

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._steps[phase_name] = num_steps
                report(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                report(phase_name, step + 1, self._steps[phase_name])
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, None)
            if steps is not None:
                report(phase_name, steps, steps)

    return Monitor()
