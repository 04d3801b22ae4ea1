"""Fixtures of the tests of the service."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from errseg_rt.runtime import Runtime
from tests.service.serving import Serving, png, serving


@pytest.fixture(scope="module")
def served(runtime: Runtime, kernels_are_compiled: None) -> Iterator[Serving]:
    """A service that no test ends or fills."""
    with serving(runtime) as found:
        yield found


@pytest.fixture
def client(served: Serving) -> Iterator[httpx.Client]:
    """A client of that service."""
    with httpx.Client(base_url=served.url, timeout=30) as found:
        yield found


@pytest.fixture
def image(frame: np.ndarray) -> bytes:
    """A street of 96x128 pixels, as a PNG."""
    return png(frame)
