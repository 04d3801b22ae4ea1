"""The comparison of instances with what needs no network for them, on cells whose number is known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from benchmarks import instance_methods as module
from errseg_rt.frames.instances import Instances
from tests.benchmarks.cells import CLASSES, Seer, write_cells


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_cells(tmp_path)


def test_what_touches_is_one_piece(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(module, "Runtime", Seer)
    monkeypatch.setattr(sys, "argv", ["instance_methods", "seer", "--data", str(data), "--tune", str(data),
                                      "--json", str(tmp_path / "told.json")])  # fmt: skip
    module.main()
    told = json.loads((tmp_path / "told.json").read_text())
    methods = told["methods"]
    assert methods["bundle"]["map_r_0.5"] == 1
    assert methods["watershed"]["map_r_0.5"] > 0.95
    # A pair's piece has an IoU of about a half with each of the two.
    assert methods["components"]["map_r_0.7"] == methods["components, true labels"]["map_r_0.7"] == 0
    assert told["bundle_minus"]["components"]["map_r_0.5"] > 0
    assert told["watershed"].keys() == {"sigma", "apart"}
    assert "watershed, true labels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("second", "touches"),
    [((3, 3), True), ((3, 4), True), ((4, 4), True), ((4, 2), True), ((3, 5), False), ((5, 5), False)],
)
def test_instances_that_touch_corner_to_corner_at_least(second: tuple[int, int], touches: bool) -> None:
    numbers = np.zeros((7, 7), np.int32)
    numbers[2:4, 3] = 1
    numbers[second] = 2
    numbers[0, 0] = -1  # of no instance in particular
    assert module._touch(numbers) is touches


def test_ranked_by_errors_the_surest_comes_first() -> None:
    index = np.zeros((4, 6), np.int32)
    index[0, :2], index[2, 2:], index[3, :3] = 1, 2, 3
    errors = np.where(index == 2, 0.125, 0.5).astype(np.float32)
    errors[3, :3] = 0.25
    found = Instances.of(index, [1, 1, 1], [0.9, 0.8, 0.7], CLASSES, errors)
    other = module.ranked(found)
    assert other.scores.tolist() == [0.875, 0.75, 0.5]
    assert other.areas.tolist() == [4, 3, 2]
    assert (other.map == 1).sum() == 4
    assert (other.map[2, 2:] == 1).all()


def test_frames_in_which_nothing_touches_are_left_out(data: Path, tmp_path: Path, monkeypatch) -> None:
    alone = cv2.imread(str(data / "instances/f3.png"), -1)
    alone[alone % 2 == 0] = 0
    cv2.imwrite(str(data / "instances/f3.png"), alone)
    monkeypatch.setattr(module, "Runtime", Seer)
    told = str(tmp_path / "told.json")
    monkeypatch.setattr(sys, "argv", ["instance_methods", "seer", "--data", str(data), "--touching", "--json", told])
    module.main()
    found = json.loads(Path(told).read_text())
    assert (found["frames"], found["touching"]) == (10, True)


def test_a_bundle_without_instances(monkeypatch) -> None:
    plain = SimpleNamespace(manifest=SimpleNamespace(name="plain", things=(), classes=CLASSES))
    with pytest.raises(SystemExit, match="plain: the bundle finds no instances"):
        module.scored(plain, [], {})
