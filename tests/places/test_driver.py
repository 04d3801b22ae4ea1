"""What the NVIDIA driver says, and what is said in its stead where there is none."""

from __future__ import annotations

import pytest

from errseg_rt.errors import EngineError
from errseg_rt.places import driver


def test_without_a_driver_there_is_no_name(monkeypatch) -> None:
    monkeypatch.setattr(driver, "_LIBRARIES", ("libno-such-driver.so",))
    with pytest.raises(EngineError, match="there is no NVIDIA driver on this machine"):
        driver.find_gpu()
    assert driver.gpu_name() is None


def test_the_name_is_that_of_the_first_gpu(monkeypatch) -> None:
    monkeypatch.setattr(driver, "find_gpu", lambda: driver.Gpu("NVIDIA H200", (9, 0), 1 << 37, (13, 0), 2))
    assert driver.gpu_name() == "NVIDIA H200"
