"""Progress in a log: a line at the start, then one every half minute at most."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from errseg_rt.system.progress import LogLines, track


def test_lines_are_half_a_minute_apart(capsys) -> None:
    now = [100.0]
    lines = LogLines("train", 50, clock=lambda: now[0])
    for step in range(50):
        lines.at(step, f", loss {step}")
        now[0] += 7.0
    lines.at(50, is_due=True)
    found = capsys.readouterr().err.splitlines()
    # Every fifth step of 7 seconds is the first after 30.
    assert found == [*(f"train: {step}/50, loss {step}" for step in range(0, 50, 5)), "train: 50/50"]


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_where_colours_are_forced_a_log_is_still_a_log(variable) -> None:
    code = "from errseg_rt.system.progress import track; list(track(range(3), 'look', 3, logged=True))"
    environment = {**os.environ, variable: "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == ("", "look: 0/3\n")


def test_items_pass_and_a_line_says_what_goes_on(capsys) -> None:
    assert list(track(iter("abc"), "frames", 3, logged=True)) == ["a", "b", "c"]
    assert capsys.readouterr().err == "frames: 0/3\n"
    assert list(track([], "frames", 0, logged=True)) == []
    assert list(track("abc", "frames", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
