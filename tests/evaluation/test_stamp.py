"""Stamps say where figures come from."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from importlib import metadata
from pathlib import Path

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.evaluation import stamp


def test_the_machine() -> None:
    found = json.loads(json.dumps(stamp.machine_stamp()))
    assert date.fromisoformat(found["date"]) <= date.today()
    assert found["cores"] >= 1
    assert found["packages"]["scikit-learn"] == metadata.version("scikit-learn")


def test_a_package_that_is_missing(monkeypatch) -> None:
    monkeypatch.setattr(stamp, "_PACKAGES", ("no-such-package",))
    assert stamp.machine_stamp()["packages"] == {"no-such-package": None}


def test_a_bundle_is_known_by_its_manifest(tiny_bundle: Path) -> None:
    found = stamp.bundle_stamp(Bundle.open(tiny_bundle))
    assert found == {"name": "tiny", "sha256": hashlib.sha256((tiny_bundle / "manifest.json").read_bytes()).hexdigest()}
