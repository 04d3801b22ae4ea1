"""Rendered streets on disk are read as the scenes that they were made of."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks import rendered_frames as module
from errseg_rt.bundle.classes import CAMVID
from errseg_rt.datasets import open_labelled
from errseg_rt.scenes import StreetScene


def test_they_are_labelled_data_with_instances(tmp_path: Path, monkeypatch) -> None:
    words = ["rendered_frames", "-o", str(tmp_path), "--frames", "2", "--size", "97", "129", "--first-seed", "70"]
    monkeypatch.setattr(sys, "argv", words)
    module.main()
    things = (8, 9, 10)
    frames = open_labelled(tmp_path, CAMVID, things=things)
    assert [Path(name).stem for name in frames.names] == ["70", "71"]
    for index, seed in enumerate((70, 71)):
        view = StreetScene(seed, 97, 129).frame(module.SHOWN)
        frame, labels = frames[index]
        true = frames.instances(index, labels)
        assert np.array_equal(frame, view.frame)
        assert np.array_equal(labels, view.labels)
        assert np.array_equal(true.map > 0, view.instances > 0)
        for number, label in enumerate(true.classes, start=1):
            assert len(set(view.instances[true.map == number])) == 1
            assert set(view.labels[true.map == number]) <= set(things)
            assert label in things
