"""A crew of Ray's actors, anywhere in a cluster."""

from __future__ import annotations

from typing import Any

from errseg_rt.batch.crew import Answer, Task, Worker
from errseg_rt.datasets.inputs import Item
from errseg_rt.system.lines import one_line, shortened


class Actors:
    """Workers that are actors; see `errseg_rt.batch.crew.Crew`. Ray ends them with their driver.

    Plain actors, each of which writes its own results: Ray Data writes by the block, at a job's end, and loses what is
    done when its driver is killed.

    Args:
        ray: The module, in a cluster.
        task: What they do.
        cpus: CPUs of each.
        gpus: GPUs of each.
    """

    def __init__(self, ray: Any, task: Task, cpus: int, gpus: int = 0) -> None:
        self._ray = ray
        self._kind = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Worker)
        self._task = ray.put(task)
        self._crew: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}
        self._hired = 0

    def hire(self) -> int:
        """As `Crew.hire`."""
        self._hired += 1
        actor = self._crew[self._hired] = self._kind.remote(self._task)
        self._calls[actor.open.remote()] = self._hired
        return self._hired

    def give(self, worker: int, item: Item) -> None:
        """As `Crew.give`."""
        self._calls[self._crew[worker].do.remote(item)] = worker

    def answers(self, seconds: float) -> list[tuple[int, Answer]]:
        """As `Crew.answers`; that an idle worker is dead shows when it is given something."""
        ready, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=seconds)
        if ready:  # and all else that is there
            ready, _ = self._ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        return [(self._calls.pop(call), self._answer(call)) for call in ready]

    def _answer(self, call: Any) -> Answer:
        try:
            answer: Answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:  # of the actor, its node, or what it cannot load
            return Answer("died", f"as Ray says: {_said(error)}")
        return answer


def _said(error: BaseException) -> str:
    """What Ray says of a death: the last line of a traceback, or the first ones of a text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shortened(one_line(lines[-1] if "Traceback" in str(error) else " ".join(lines)))
