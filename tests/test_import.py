"""Importing the package is cheap, and gives the public names."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import errseg_rt

HEAVY = {
    "torch", "onnx", "onnxruntime", "onnxscript", "tensorrt", "numba", "cv2", "av", "triton", "lightning", "rich",
    "sklearn", "scipy", "matplotlib", "safetensors", "fastapi", "uvicorn", "prometheus_client",
    "ray", "pyarrow", "grpc",
}  # fmt: skip


HOMES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after running `code`."""
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())


@pytest.mark.parametrize("own", [None, "0", "1"])
def test_nothing_phones_home_unless_the_user_says_so(tmp_path: Path, own: str | None) -> None:
    code = (
        "import os, errseg_rt, errseg_rt.engines.onnxruntime, onnxruntime.quantization\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", *HOMES)}
    environment |= dict.fromkeys(("HOME", "USERPROFILE", "LOCALAPPDATA"), str(tmp_path))
    if own is not None:
        environment["ORT_DISABLE_TELEMETRY"] = own
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == f"{own or '1'}\n"
    if own != "0":
        assert list(tmp_path.rglob("*[Mm]icrosoft*")) == list(tmp_path.rglob("*onnxruntime*")) == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_by(
        "import errseg_rt, errseg_rt.errors, errseg_rt.kernels, errseg_rt.datasets, errseg_rt.evaluation"
    )
    assert "errseg_rt" in loaded
    assert not loaded & HEAVY


def test_a_runtime_on_the_cpu_loads_no_training_library() -> None:
    loaded = loaded_by(
        "import errseg_rt, numpy\nerrseg_rt.Runtime(threads=1).segment(numpy.zeros((9, 9, 3), numpy.uint8))"
    )
    assert {"onnxruntime", "numba", "cv2"} <= loaded
    assert not loaded & {
        "torch",
        "onnx",
        "onnxscript",
        "tensorrt",
        "triton",
        "lightning",
        "sklearn",
        "matplotlib",
        "fastapi",
        "uvicorn",
    }


@pytest.mark.parametrize("name", errseg_rt.__all__)
def test_public_names_resolve(name) -> None:
    value = getattr(errseg_rt, name)
    assert value.__name__ == name
    assert value.__doc__
    assert name in dir(errseg_rt)


@pytest.mark.parametrize("package", ["datasets", "evaluation", "kernels", "scenes"])
def test_public_names_of_the_packages_resolve(package) -> None:
    public = import_module(f"errseg_rt.{package}")
    assert public.__all__
    for name in public.__all__:
        assert getattr(public, name).__doc__
    with pytest.raises(AttributeError, match=f"module 'errseg_rt.{package}' has no attribute 'nothing'"):
        _ = public.nothing


def test_the_version_is_that_of_the_installed_package() -> None:
    assert errseg_rt.__version__ == metadata.version("errseg-rt")


@pytest.mark.parametrize("name", ["nothing", "_private", "numpy"])
def test_an_unknown_name(name) -> None:
    with pytest.raises(AttributeError, match=f"module 'errseg_rt' has no attribute '{name}'"):
        getattr(errseg_rt, name)
