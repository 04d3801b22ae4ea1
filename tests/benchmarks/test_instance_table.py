"""The table of what each part is worth, of runs that stand for trainings: each recipe sees more than the one before."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import instance_table
from errseg_rt.frames.instances import Instances
from tests.benchmarks.cells import CLASSES, Seer, write_cells

SEEN = {"cells-plain": 2, "cells-bootstrapped": 4, "cells": 5}
"""Cells of the six of a frame that the bundle of a recipe finds; with its cascade, the last one finds all."""


class Seeing(Seer):
    """A bundle's runtime."""

    def __init__(self, bundle: Path, budget: float | None, threads: int) -> None:
        assert (bundle / "manifest.json").exists()
        self.count = SEEN[bundle.name.rpartition("-")[0]] if budget == 0 else 6

    def segment(self, frame, *, confidence):
        whole = super().segment(frame, confidence=confidence)
        index = whole.instances.map
        found = np.where(index <= self.count, index, 0)
        errors = np.full(index.shape, 0.25, np.float32)
        made = Instances.of(found, np.ones(self.count, int), np.ones(self.count), CLASSES, errors)
        return replace(whole, instances=made)


@pytest.fixture
def commands(monkeypatch) -> list[tuple[str, ...]]:
    given: list[tuple[str, ...]] = []

    def command(*words: str) -> None:
        given.append(words)
        if words[0] == "export":
            bundle = Path(words[words.index("-o") + 1])
            bundle.mkdir(parents=True)
            (bundle / "manifest.json").write_text("{}")

    monkeypatch.setattr(instance_table, "_command", command)
    monkeypatch.setattr(instance_table, "Runtime", Seeing)
    return given


def test_each_part_has_a_row(commands, tmp_path: Path, monkeypatch, capsys) -> None:
    for part in ("train", "val"):
        write_cells(tmp_path / "split" / part)
    told = tmp_path / "told.json"
    arguments = ["cells", "--data", str(tmp_path / "split"), "--runs", str(tmp_path / "runs"), "--seeds", "4", "7"]
    monkeypatch.setattr(sys, "argv", ["table", *arguments, "--set", "semantic.batch=2", "--json", str(told)])
    instance_table.main()
    rows = {row["name"]: row for row in json.loads(told.read_text())["rows"]}
    # Where all that is found is true, AP is the share of the true ones that are found.
    wanted = {"plain": 2, "+ bootstrapping": 4, "+ weighted loss": 5, "+ fused class maps": 6}
    for name, count in wanted.items():
        assert rows[name]["map_r_0.5"]["seeds"] == pytest.approx([100 * count / 6] * 2, abs=0.1), name
    gain = rows["+ bootstrapping"]["gain"]
    assert gain["over"] == "plain"
    assert gain["map_r_0.5"] == pytest.approx([100 / 3] * 2, abs=0.1)
    assert all(low <= 1 / 3 + 1e-3 and high >= 1 / 3 - 1e-3 for low, high in gain["intervals"])
    assert rows["components of its labels"]["gain"]["map_r_0.5"][0] < 0
    assert rows["+ ranked by the error map"]["gain"]["map_r_0.5"] == [0, 0]
    assert rows["watershed of its labels"]["map_r_0.5"]["mean"] > 95
    assert "| + bootstrapping | 66.7 (66.7 to 66.7) | 66.7 (66.7 to 66.7)" in (said := capsys.readouterr().out)
    assert "| +33.3 (" in said

    trained = [words for words in commands if words[0] == "train"]
    assert [(words[1], words[words.index("--seed") + 1]) for words in trained] == [
        (recipe, seed) for seed in "47" for recipe in SEEN
    ]
    assert all("semantic.batch=2" in words for words in trained)
    # Rows without the cascade do not train it.
    assert ["detail.iterations=1" in words for words in trained] == [True, True, False] * 2
    done = len(commands)
    instance_table.main()  # what is there is not made again
    assert len(commands) == done
