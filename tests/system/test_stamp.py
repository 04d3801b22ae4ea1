"""Stamps say where figures come from."""

from __future__ import annotations

import json
from datetime import date
from importlib import metadata

import pytest

from errseg_rt.system import stamp


@pytest.mark.parametrize("gpu", [None, "NVIDIA H200"])
def test_the_machine(gpu) -> None:
    found = json.loads(json.dumps(stamp.machine_stamp(gpu)))
    assert date.fromisoformat(found["date"]) <= date.today()
    assert found["cores"] >= 1
    assert found["gpu"] == gpu
    assert found["packages"]["scikit-learn"] == stamp.version_of("scikit-learn") == metadata.version("scikit-learn")


@pytest.mark.parametrize(
    ("installed", "versions"),
    [
        ({"opencv-python": "5.0"}, {"opencv-python": "5.0"}),
        ({"opencv-contrib-python-headless": "4.9"}, {"opencv-contrib-python-headless": "4.9"}),
        (
            {"opencv-python": "5.0", "opencv-python-headless": "4.9"},
            {"opencv-python": "5.0", "opencv-python-headless": "4.9"},
        ),
        ({}, {"opencv-python-headless": None}),
    ],
    ids=["qt", "contrib", "two", "none"],
)
def test_whichever_opencv_is_there(monkeypatch, installed, versions) -> None:
    monkeypatch.setattr(stamp, "version_of", installed.get)
    assert stamp.opencv_versions() == versions
    packages = stamp.machine_stamp(None)["packages"]
    assert {name: version for name, version in packages.items() if "opencv" in name} == versions


def test_a_package_that_is_missing(monkeypatch) -> None:
    assert stamp.version_of("no-such-package") is None
    monkeypatch.setattr(stamp, "_PACKAGES", ("no-such-package",))
    assert stamp.machine_stamp(None)["packages"] == {"no-such-package": None, **stamp.opencv_versions()}
