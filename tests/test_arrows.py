"""Arrows between rooms point one way, those of lazy imports included, and are those that docs/architecture.md draws."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"errseg_rt": ROOT / "errseg_rt", "errseg_rt.kernels": ROOT / "kernels", "errseg_rt.export": ROOT / "export"}


def sources() -> Iterator[tuple[str, Path]]:
    """Every module's name, and its file."""
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder).with_suffix("")
            if package == "errseg_rt" and inside.parts[0] in ("kernels", "export"):
                continue  # links, for type checkers
            yield ".".join([package, *(part for part in inside.parts if part != "__init__")]), path


MODULES = dict(sources())


def imports(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "errseg_rt")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "errseg_rt":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


def room(module: str) -> str:
    """Which room a module is in: a folder of the package, or a file that lies beside these."""
    parts = module.split(".")[1:]
    if not parts:
        return "errseg_rt"
    return "export.engines" if parts[:2] == ["export", "engines"] else parts[0]


def arrows() -> set[tuple[str, str]]:
    found = {(room(module), room(other)) for module, path in MODULES.items() for other in imports(path)}
    return {(a, b) for a, b in found if a != b and "errseg_rt" not in (a, b)}


def drawn() -> set[tuple[str, str]]:
    """The arrows of the document's table, which has a row for each room."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| [^|]+ \| ([^|]*) \|$", text, re.MULTILINE)
    return {(name, other) for name, others in rows for other in re.findall(r"`([\w.]+)`", others)}


def test_the_document_draws_the_arrows_that_there_are() -> None:
    assert sorted(arrows() - drawn()) == [], "imports that docs/architecture.md does not draw"
    assert sorted(drawn() - arrows()) == [], "arrows in docs/architecture.md that nothing imports"


def test_every_arrow_points_down_in_the_picture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = re.search(r"Each line of this picture .*?```\n(.*?)```", text, re.DOTALL)
    assert picture
    lines = [re.split(r"\s{2,}", line)[0].split(", ") for line in picture[1].splitlines()]
    depth = {name: index for index, names in enumerate(lines) for name in names}
    assert set(depth) == {name for arrow in arrows() for name in arrow}
    assert [(a, b) for a, b in sorted(arrows()) if depth[a] >= depth[b]] == []
