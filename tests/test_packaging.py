"""The wheel holds all of the package and nothing else, with or without the symbolic links of the checkout."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import errseg_rt

ROOT = Path(__file__).resolve().parents[1]
# Folder in the checkout by package.
FOLDERS = {"errseg_rt": ROOT / "errseg_rt", "errseg_rt.export": ROOT / "export", "errseg_rt.kernels": ROOT / "kernels"}


def without_links(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__" or (Path(folder) / name).is_symlink()}


def real_files(folder: Path) -> list[Path]:
    """Files below a folder, relative to it; links are not followed."""
    below = [path for path in folder.rglob("*") if not any(part.is_symlink() for part in (path, *path.parents))]
    return [path.relative_to(folder) for path in below if path.is_file() and "__pycache__" not in path.parts]


def source_packages() -> set[str]:
    """Every package in the checkout, by its dotted name."""
    return {
        ".".join([package, *path.parent.parts])
        for package, folder in FOLDERS.items()
        for path in real_files(folder)
        if path.name == "__init__.py"
    }


def listed_packages() -> list[str]:
    """`packages` of pyproject.toml; read by hand, since Python 3.10 has no TOML reader."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r"^packages = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    assert found
    return re.findall(r'"([^"]+)"', found[1])


def test_every_package_is_listed_and_nothing_more() -> None:
    listed = listed_packages()
    assert len(listed) == len(set(listed))
    assert set(listed) == source_packages()


def test_the_lowest_versions_are_those_that_are_tried() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pattern = r"^{} = \[(.*?)\]\n"
    dependencies, build = (re.search(pattern.format(name), text, re.M | re.S) for name in ("dependencies", "build"))
    assert dependencies
    assert build
    wanted = re.findall(r'"([^"]+)"', dependencies[1] + build[1])
    allowed = {}
    for requirement in wanted:
        name, version, _ = re.fullmatch(r"([\w-]+)>=([\d.]+)(; python_version < '3\.11')?", requirement).groups()
        allowed[name] = version
    tried = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "lowest.txt").read_text(encoding="utf-8"), re.M))
    assert len(allowed) == len(wanted)
    assert set(tried) == set(allowed)
    for name, version in allowed.items():
        assert f"{tried[name]}.".startswith(f"{version}.")


@pytest.mark.parametrize("name", ["kernels", "export"])
def test_links_for_type_checkers_are_relative(name) -> None:
    link = ROOT / "errseg_rt" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
    assert link.resolve() == ROOT / name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in a wheel that was built from a copy without the links."""
    pytest.importorskip("build", reason="needs the package build")
    source = tmp_path_factory.mktemp("source")
    for folder in {path.relative_to(ROOT).parts[0] for path in FOLDERS.values()}:
        shutil.copytree(ROOT / folder, source / folder, ignore=without_links)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (source / "out").iterdir()
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


@pytest.mark.parametrize("links", ["text_files", "nothing"])
def test_a_checkout_without_links_runs_as_it_lies(tmp_path: Path, links: str) -> None:
    """What git leaves with core.symlinks=false, as on Windows, and what a source archive unpacks to."""
    for folder in {path.relative_to(ROOT).parts[0] for path in FOLDERS.values()}:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=without_links)
    if links == "text_files":
        for name in ("export", "kernels"):
            (tmp_path / "errseg_rt" / name).write_text(f"../{name}")
    code = (
        "import errseg_rt, errseg_rt.export.engines.builds as builds\n"
        "errseg_rt.Runtime(threads=1)\n"
        "print(errseg_rt.__file__, builds.__file__)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    files = (tmp_path / "errseg_rt" / "__init__.py", tmp_path / "export" / "engines" / "builds.py")
    assert done.stdout.split() == [str(path) for path in files]


def test_an_installed_package_does_not_look_beside_itself() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"errseg_rt\.numpy"):
        importlib.import_module("errseg_rt.numpy")
    assert [Path(path).name for path in errseg_rt.__path__] == ["errseg_rt"]


def test_the_wheel_holds_every_file(wheel: list[str]) -> None:
    wanted = {
        "/".join([*package.split("."), *path.parts])
        for package, folder in FOLDERS.items()
        for path in real_files(folder)
    }
    assert {"errseg_rt/py.typed", "errseg_rt/training/recipes/camvid.toml"} <= wanted
    assert {"errseg_rt/kernels/fuse_labels/cpu.py", "errseg_rt/export/graphs.py"} <= wanted
    assert {name for name in wheel if ".dist-info/" not in name} == wanted


def test_only_one_name_goes_to_site_packages(wheel: list[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel}
    (info,) = tops - {"errseg_rt"}
    assert re.fullmatch(r"errseg_rt-[\d.]+\.dist-info", info)
    assert f"{info}/licenses/LICENSE" in wheel
    assert f"{info}/entry_points.txt" in wheel


def test_what_the_service_stands_on_is_pinned() -> None:
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = re.search(r"^serve = \[(.*?)\]\n", text, re.M)
    assert wanted
    direct = set(re.findall(r'"([\w-]+)(?:\[\w+\])?>=', wanted[1]))
    assert direct == {"fastapi", "prometheus-client", "uvicorn"}
    assert direct | {"starlette", "pydantic", "h11", "uvloop", "websockets"} <= pinned
