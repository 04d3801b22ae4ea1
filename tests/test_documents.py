"""What documents point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = {"benchmarks/results/gpu.json"}  # by a benchmark, once there is a GPU
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (document.parent / link).exists()]
    paths = re.findall(r"`((?:errseg_rt|kernels|export|benchmarks|tests|docs)/[\w./-]+)`", text)
    assert missing + [path for path in paths if path not in WRITTEN and not (ROOT / path).exists()] == []


def anchors(document: Path) -> set[str]:
    """Of its headings, as renderers of Markdown make them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_headings(document: Path) -> None:
    links = re.findall(r"\]\(([\w./-]*\.md)?#([^)\s]+)\)", document.read_text(encoding="utf-8"))
    targets = [(document.parent / path if path else document, anchor) for path, anchor in links]
    assert [(path.name, anchor) for path, anchor in targets if anchor not in anchors(path)] == []


def test_nothing_is_left_of_a_merge() -> None:
    files = [path for kind in ("*.md", "*.py", "*.toml", "*.yaml", "*.html", "*.css", "*.js", "*.json")
             for folder in ("errseg_rt", "kernels", "export", "benchmarks", "tests", "docs")
             for path in (ROOT / folder).rglob(kind)]  # fmt: skip
    left = re.compile(r"^(<{7} |>{7} |={7}$)", re.M)
    assert len(files) > 500
    found = [path for path in [*files, *DOCUMENTS] if left.search(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tests_that_are_named_are_there(document: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)", document.read_text(encoding="utf-8"))
    missing = [
        (path, test)
        for path, test in named
        if not (ROOT / path).is_file()
        or not re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.M)
    ]
    assert missing == []


def test_every_fault_has_a_test() -> None:
    lines = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith(("| fault", "| ---"))]
    assert len(rows) > 60
    assert [row for row in rows if not re.search(r"\| `tests/[\w/]+\.py::test_\w+`", row)] == []
