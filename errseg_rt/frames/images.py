"""Image files: which ones an input names."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from errseg_rt.errors import DataError
from errseg_rt.frames.formats import IMAGE_ENDS


@dataclass(frozen=True)
class Item:
    """An image file of an input.

    Attributes:
        path: The file.
        name: What its results are called: its path within the input, without suffix; differs from item to item.
        truth: Its true labels, where they are known.
    """

    path: Path
    name: str
    truth: Path | None = None


def find_images(inputs: Sequence[str], labels: Path | None = None, out: Path | None = None) -> list[Item]:
    """The image files that files, folders and globs name, each once.

    A folder is searched through and through; one that holds `images/` and `labels/` is a data set, whose images are
    taken and whose labels are their truth.

    Args:
        inputs: Files, folders, or globs (also with `**`).
        labels: Folder of true labels, PNG files named as the images, by their paths within the input; None: only those
            of data sets.
        out: Folder of results; what lies in it is not found when a folder is searched.

    Raises:
        DataError: An input names nothing, or is the folder of results itself; or `labels` is no folder, or holds
            labels of none of the images.
    """
    if labels is not None and not labels.is_dir():
        raise DataError(f"{labels}: no such folder of labels")
    items: dict[Path, Item] = {}
    taken: set[str] = set()
    for text in inputs:
        for path, stem, truths in _expand(text, out):
            key = path.resolve()
            if key in items:
                continue
            name = _free_name(stem, path, taken)
            taken.add(name)
            folder = labels or truths
            truth = folder / stem.with_suffix(".png") if folder else None
            items[key] = Item(path, name, truth if truth and truth.is_file() else None)
    if labels is not None and not any(item.truth for item in items.values()):
        raise DataError(f"{labels}: holds no .png named as one of the {len(items)} images")
    return list(items.values())


def _expand(text: str, out: Path | None) -> list[tuple[Path, Path, Path | None]]:
    """Files of one input, with the path their results shall have and the folder of their labels."""
    path = Path(text)
    if path.is_dir():
        is_dataset = (path / "images").is_dir() and (path / "labels").is_dir()
        root = path / "images" if is_dataset else path
        results = out.resolve() if out else None
        if results == root.resolve():
            raise DataError(f"{text}: the results would lie among the images; give another --out")
        found = sorted(
            file
            for file in root.rglob("*")
            if file.suffix.lower() in IMAGE_ENDS and file.is_file() and results not in file.resolve().parents
        )
        if not found:
            raise DataError(f"{path}: the folder holds no image ({', '.join(IMAGE_ENDS)})")
        return [(file, file.relative_to(root), path / "labels" if is_dataset else None) for file in found]
    if path.exists():
        return [(path, Path(path.name), None)]
    matches = sorted(Path(match) for match in glob.glob(text, recursive=True))
    found = [match for match in matches if match.is_file()]
    if not found:
        raise DataError(f"{text}: no such file or folder, and no file matches it as a glob")
    return [(file, Path(file.name), None) for file in found]


def _free_name(stem: Path, path: Path, taken: set[str]) -> str:
    """The name without suffix; where another file has it, with its suffix, then with a number."""
    plain = stem.with_suffix("").as_posix()
    names = [plain, f"{plain}_{path.suffix[1:].lower()}"]
    number = 2
    while names[0] in taken:
        names.pop(0)
        if not names:
            names.append(f"{plain}_{number}")
            number += 1
    return names[0]
