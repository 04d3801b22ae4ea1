"""A Ray cluster of this machine for the tests here; they skip where Ray is not, unless it is promised."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session", autouse=True)
def ray_is_here() -> None:
    if find_spec("ray") is not None:
        return
    if os.environ.get("ERRSEG_REQUIRE_RAY") == "1":
        pytest.fail("ERRSEG_REQUIRE_RAY=1 promises Ray", pytrace=False)
    pytest.skip("needs Ray: pip install 'errseg-rt[ray]'")
