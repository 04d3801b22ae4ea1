"""Tables on the screen and in files."""

from __future__ import annotations

import pytest

from errseg_rt.cli.options import print_table

COLUMNS = ["", *(f"precision\n{index}" for index in range(12))]
ROWS = [["a name of a row", *(f"{index}.{index:04d}" for index in range(12))]]


@pytest.mark.parametrize("columns", ["60", "20"])
def test_nothing_is_cut_in_a_file(capsys, monkeypatch, columns) -> None:
    """Where stdout is no terminal, its width says nothing."""
    monkeypatch.setenv("COLUMNS", columns)
    print_table("Thresholds", COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip(" │") for cell in next(line for line in lines if "a name" in line).split("│")][1:-1] == ROWS[0]
    assert sum("precision" in line for line in lines) == 1


def test_no_digit_is_lost_on_a_narrow_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_table("Thresholds", COLUMNS, ROWS)
    out = capsys.readouterr().out
    assert "…" not in out
    assert sum(character == "1" for character in out) >= sum(cell.count("1") for cell in ROWS[0])
