"""What a user may import is what docs/architecture.md lists."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
LISTED = {
    package: set(re.findall(r"`(\w+)`", names))
    for package, names in re.findall(r"^From `([\w.]+)`: (.*?)\.$", TEXT, re.MULTILINE | re.DOTALL)
}


def test_every_public_package_is_listed() -> None:
    assert set(LISTED) == {
        "errseg_rt",
        *(f"errseg_rt.{name}" for name in ("kernels", "datasets", "evaluation", "networks", "scenes")),
    }


@pytest.mark.parametrize("package", LISTED)
def test_its_names_are_those_of_the_list(package: str) -> None:
    assert set(import_module(package).__all__) == LISTED[package]
