"""From a deadline to a budget: the times are fed, no clock is read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from errseg_rt.pipeline.pace import LatePace, Pace

MOST = 10**9
REST_MS = 1.0
MANY = 120  # frames, after which nothing is left of what was before them


def saw(pace: Pace, work: int, refine_ms: float, rest_ms: float) -> None:
    """Tell of a frame."""
    pace.saw(
        work, {"preprocess": 3.0, "front": 10.0, "select": rest_ms / 4, "refine": refine_ms, "fuse": 3 * rest_ms / 4}
    )


class Machine:
    """Refines in time that is a constant, and so much for every multiply-add."""

    def __init__(self, overhead_ms: float = 1.0, per_work: float = 4e-8) -> None:
        self.overhead_ms, self.per_work = overhead_ms, per_work

    def milliseconds(self, work: int, front_ms: float) -> float:
        return front_ms + self._refine_ms(work) + REST_MS

    def drive(self, pace: Pace, frames: int, front_ms: float, wanted: int = MOST, deadline_ms: float = 30) -> list[int]:
        """Budgets of frames that each do as much as they may of `wanted`."""
        budgets = []
        for _ in range(frames):
            budgets.append(pace.budget(deadline_ms, front_ms, MOST))
            work = min(budgets[-1], wanted)
            saw(pace, work, self._refine_ms(work), REST_MS)
        return budgets

    def _refine_ms(self, work: int) -> float:
        return self.overhead_ms + self.per_work * work if work else 0.0


def test_before_anything_is_known_a_frame_gets_a_little() -> None:
    assert 0 < Pace().budget(50, 10, MOST) < MOST / 10


def test_never_more_than_the_dense_stage() -> None:
    pace = Pace()
    assert pace.budget(1e300, 0, 1234) == 1234
    saw(pace, 10**8, 1e-9, 0)
    assert pace.budget(1e300, 0, 1234) == 1234


@pytest.mark.parametrize("elapsed_ms", [50, 50.1, 1e9])
def test_a_deadline_that_has_passed_leaves_nothing(elapsed_ms) -> None:
    pace = Pace()
    assert pace.budget(50, elapsed_ms, MOST) == 0
    saw(pace, 0, 0.0, 1.0)
    assert pace.budget(50, elapsed_ms, MOST) == 0


@pytest.mark.parametrize("overhead_ms", [0.0, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("per_work", [1e-8, 4e-8, 2e-7])
def test_frames_meet_the_deadline_and_come_to_use_its_time(overhead_ms, per_work) -> None:
    machine = Machine(overhead_ms, per_work)
    budgets = machine.drive(Pace(), MANY, front_ms=10)
    assert all(machine.milliseconds(budget, 10) <= 30 + 1e-6 for budget in budgets)
    assert budgets[1] > budgets[0]
    assert budgets[-1] == MOST or machine.milliseconds(budgets[-1], 10) >= 29


def test_a_slower_front_graph_shrinks_the_budget_and_a_faster_one_grows_it() -> None:
    pace, machine = Pace(), Machine()
    machine.drive(pace, MANY, front_ms=10)
    slow, fast = (machine.drive(pace, 1, front_ms)[0] for front_ms in (25, 5))
    assert 0 < slow < fast < MOST
    assert machine.milliseconds(slow, 25) <= 30
    assert machine.milliseconds(fast, 5) <= 30


def test_a_later_deadline_gives_more() -> None:
    budgets = [Machine().drive(Pace(), MANY, front_ms=10, deadline_ms=deadline)[-1] for deadline in (13, 15, 20, 30)]
    assert budgets == sorted(set(budgets))


def test_dearer_work_shrinks_the_budget_at_once_and_cheaper_work_grows_it_in_time() -> None:
    pace, machine, slower = Pace(), Machine(), Machine(4.0, 16e-8)
    before = machine.drive(pace, MANY, front_ms=10)[-1]
    during = slower.drive(pace, 2, front_ms=10)
    assert slower.milliseconds(during[1], 10) <= 30
    after = machine.drive(pace, MANY, front_ms=10)
    assert during[1] <= after[0] < before / 3
    assert after[-1] == pytest.approx(before, rel=0.01)


def test_what_comes_after_refinement_is_kept_free() -> None:
    pace, other = Pace(), Pace()
    saw(pace, 10**8, 5.0, 2.0)
    saw(other, 10**8, 5.0, 12.0)
    assert 0 < other.budget(30, 10, MOST) < pace.budget(30, 10, MOST)


def test_one_long_frame_is_got_over() -> None:
    pace, machine = Pace(), Machine()
    before = machine.drive(pace, MANY, front_ms=10)[-1]
    saw(pace, 10**8, 10_000.0, REST_MS)  # as if another process had taken the machine
    assert pace.budget(30, 10, MOST) == 0
    assert machine.drive(pace, MANY, front_ms=10)[-1] == pytest.approx(before, rel=0.01)


def test_a_first_frame_that_compiled_its_kernels_is_got_over() -> None:
    pace = Pace()
    saw(pace, 2 * 10**7, 20_000.0, 10_000.0)
    assert pace.budget(30, 10, MOST) == 0
    assert Machine().drive(pace, MANY, front_ms=10)[-1] > 10**8


def test_where_there_is_no_time_to_learn_few_frames_are_late() -> None:
    machine = Machine()
    budgets = machine.drive(
        Pace(), 500, front_ms=10.5, deadline_ms=11 + REST_MS
    )  # less is left than refinement takes for nothing
    assert sum(budget > 0 for budget in budgets) < 0.05 * len(budgets)


def test_frames_with_little_to_refine_leave_the_budget_as_it_was() -> None:
    pace, machine = Pace(), Machine()
    before = machine.drive(pace, 10, front_ms=10)[-1]
    assert machine.drive(pace, 10, front_ms=10, wanted=300_000)[-1] == before


def test_several_threads_leave_it_in_order() -> None:
    pace, machine = Pace(), Machine()
    with ThreadPoolExecutor(8) as pool:
        budgets = list(pool.map(lambda front_ms: machine.drive(pace, 200, front_ms), [5.0, 10.0, 20.0, 25.0] * 2))
    assert all(0 <= budget <= MOST for one in budgets for budget in one)
    wanted = machine.drive(Pace(), MANY, front_ms=10)[-1]
    assert machine.drive(pace, MANY, front_ms=10)[-1] == pytest.approx(wanted, rel=0.01)


def fly(pace: LatePace, machine: Machine, frames: int, front_ms: float, deadline_ms: float, late: int = 3) -> list[int]:
    """Budgets of frames that each do as much as they may, and are timed when `late` more are under way."""
    budgets: list[int] = []
    for index in range(frames):
        if index >= late:
            work = budgets[index - late]
            pace.saw(work, machine.milliseconds(work, front_ms))
        budgets.append(pace.budget(deadline_ms, MOST))
    return budgets


@pytest.mark.parametrize("per_work", [1e-9, 1e-8, 4e-8])
@pytest.mark.parametrize("deadline_ms", [12.5, 15, 20, 50])
def test_whole_frames_come_to_meet_the_deadline_and_to_use_its_time(per_work, deadline_ms) -> None:
    machine = Machine(0.5, per_work)
    budgets = fly(LatePace(), machine, MANY, 10, deadline_ms)
    assert sum(machine.milliseconds(budget, 10) > deadline_ms + 1e-6 for budget in budgets) <= 0.1 * MANY
    assert budgets[-1] == MOST or machine.milliseconds(budgets[-1], 10) >= deadline_ms - 1


def test_whole_frames_that_cannot_be_in_time_are_not_refined_in_the_end() -> None:
    assert fly(LatePace(), Machine(0.5, 4e-8), MANY, 30, 20)[-1] == 0


def test_whole_frames_that_grow_slower_get_less() -> None:
    pace = LatePace()
    before = fly(pace, Machine(0.5, 4e-8), MANY, 10, 20)[-1]
    after = fly(pace, Machine(0.5, 8e-8), MANY, 10, 20)
    assert after[-1] == pytest.approx(before / 2, rel=0.1)
