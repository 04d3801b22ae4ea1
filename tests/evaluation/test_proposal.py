"""The proposed threshold: the cheapest that keeps nearly all of the gain."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.evaluation.proposal import propose


class Row:
    def __init__(self, t, gain, work):
        self.t, self.gain, self.work, self.flagged = t, gain, work, work and work / 2


class Sweep:
    """Rows as given; each frame takes the mean work, more or less."""

    def __init__(self, rows):
        self.given = [Row(*row) for row in rows]
        self.work = {row.t: [row.work * part for part in np.linspace(0.5, 1.5, 101)] for row in self.given if row.work}

    def rows(self, without):
        return self.given


def test_the_cheapest_that_keeps_95_percent_of_the_gain() -> None:
    sweep = Sweep([(0.1, 0.0100, 0.4), (0.5, 0.0099, 0.2), (0.7, 0.0095, 0.1), (0.9, 0.0094, 0.05)])
    found = propose(sweep, 0.5)
    assert (found.t, found.gain, found.work, found.flagged) == (0.7, 0.0095, 0.1, 0.05)
    assert found.budget == pytest.approx(0.1 * 1.45)
    assert np.mean(np.array(sweep.work[0.7]) <= found.budget + 1e-12) >= 0.95


def test_a_gain_that_falls_again_is_left_aside() -> None:
    found = propose(Sweep([(0.1, -0.02, 0.4), (0.5, 0.01, 0.2), (0.9, 0.001, 0.05)]), 0.5)
    assert found.t == 0.5


@pytest.mark.parametrize(
    "rows", [[], [(0.5, 0.0, 0.2)], [(0.3, -0.1, 0.3), (0.5, -0.2, 0.2)], [(0.5, None, 0.2)], [(0.5, None, None)]]
)
def test_where_nothing_gains_nothing_is_proposed(rows) -> None:
    assert propose(Sweep(rows), 0.5) is None
