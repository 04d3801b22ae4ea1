"""Which image and video files a user's inputs name, what their results are called, and which labels are theirs."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from errseg_rt.datasets.input_trees import DataSets, holds_ids, is_result, is_truth
from errseg_rt.datasets.pairing import plain_name
from errseg_rt.errors import DataError
from errseg_rt.frames.files import find_files, may_be, walk
from errseg_rt.frames.formats import IMAGE_ENDS, UNREAD_ENDS, VIDEO_ENDS

_LIST = ".txt"  # how a list of files ends


@dataclass(frozen=True)
class Item:
    """An image file of an input, or a video.

    Attributes:
        path: The file.
        name: What its results are called: its path below what all inputs have in common, without suffix; differs from
            item to item.
        truth: Its label file, where it has one.
        fault: Why it cannot be read, where that is known already.
    """

    path: Path
    name: str
    truth: Path | None = None
    fault: str | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its name."""
        return self.path.name.lower().endswith(VIDEO_ENDS)


@dataclass(frozen=True)
class Inputs:
    """What inputs name.

    Attributes:
        items: The files, each name of a file once.
        notes: What was passed over, for the user to read.
    """

    items: list[Item]
    notes: list[str]


@dataclass(frozen=True)
class _Found:
    """A file, on its way to be an item.

    Attributes:
        path: The file.
        base: Folder of the input that names it.
        inner: Where it lies in that, but for the folders of a data set's layout.
        within: Where it lies among the images of its data set, and its labels among the labels.
        labels: Folder of these labels, in a data set.
        fault: As `Item.fault`.
    """

    path: Path
    base: Path
    inner: Path
    within: Path
    labels: Path | None = None
    fault: str | None = None


def find_images(
    inputs: Sequence[str],
    labels: Path | None = None,
    out: Path | None = None,
    exclude: Sequence[str] = (),
    *,
    of_batch: bool = False,
) -> Inputs:
    """The image files that files, folders and globs name.

    A folder is searched through and through, links too, for images by their suffixes. Of a data set in it, in one of
    the layouts that `open_dataset` knows, the images alone are taken; in the plain layout its labels are their truth.
    Hidden files, results of this program, and what lies in `out` are passed over.

    Args:
        inputs: Files, folders, or globs (also with `**`).
        labels: Folder of true labels, PNG files that lie and are named as the images; None: only those of data sets.
        out: Folder of results.
        exclude: Globs of what is passed over in folders: of names, or of paths below the folder.
        of_batch: Whether videos are taken, too, and a `.txt` file lists files: a path in each line, below the list's
            own folder where it does not begin at the root.

    Raises:
        DataError: An input names nothing, or is the folder of results itself; two images have one label file; or
            `labels` is no folder, or holds labels of none of the images.
    """
    if labels is not None and not labels.is_dir():
        raise DataError(f"{labels}: no such folder of labels")
    notes: list[str] = []
    found: dict[str, _Found] = {}
    ends = IMAGE_ENDS + VIDEO_ENDS if of_batch else IMAGE_ENDS
    for text in inputs:
        is_list = of_batch and text.lower().endswith(_LIST) and Path(text).is_file()
        for each in _listed(Path(text)) if is_list else _expand(text, out, exclude, notes, ends):
            found.setdefault(os.path.abspath(each.path), each)
    items = _named(list(found.values()), labels)
    _check_labels(items, labels)
    if labels is None:
        beside = {each.labels for each in found.values() if each.labels is not None}
        named = {folder for item in items if item.truth is not None for folder in item.truth.parents}
        bare = sorted(beside - named)
        notes += [f"{folder}: holds no .png named as an image beside it, so that none is scored" for folder in bare]
    return Inputs(items, notes)


def _listed(path: Path) -> Iterator[_Found]:
    """The files that a list names; what is wrong with one of them ends nothing but itself."""
    try:
        lines = [os.fsdecode(line.rstrip(b"\r")) for line in path.read_bytes().split(b"\n")]
    except OSError as error:
        raise DataError(f"{path}: the list cannot be read ({error.strerror})") from error
    if not any(lines):
        raise DataError(f"{path}: the list names no file; give the path of one in each line")
    for each in (path.parent / line for line in lines if line):
        fault = "is a folder, and a list names files" if each.is_dir() else None
        if fault is None and not os.path.exists(each):
            fault = "no such file; a list names files from its own folder on"
        yield _Found(each, each.parent, Path(each.name), Path(each.name), None, fault)


def _expand(
    text: str, out: Path | None, exclude: Sequence[str], notes: list[str], ends: tuple[str, ...]
) -> Iterator[_Found]:
    path = Path(text)
    if path.is_dir():
        yield from _in_folder(path, out, exclude, notes, ends)
    elif path.exists() or path.is_symlink():
        yield _Found(path, path.parent, Path(path.name), Path(path.name))
    else:
        known, pattern = _pattern(text)
        matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
        files = [match for match in matches if not match.is_dir() and not _is_excluded(match, exclude)]
        if matches and not files:
            raise DataError(
                f"{text}: matches folders alone, first {matches[0]}; name the folder, or add /* to the glob"
            )
        if not files:
            raise DataError(f"{text}: no such file or folder, and no file matches it as a glob")
        beside = {match for match in files if is_truth(match, known)}
        results = out.resolve() if out else None
        below = {folder for match in files for folder in match.relative_to(known).parents[:-1]}
        written = {folder for folder in below if holds_ids(known / folder) or (known / folder).resolve() == results}
        old = {match for match in files if is_result(match) or not written.isdisjoint(match.relative_to(known).parents)}
        if beside:
            notes.append(f"{text}: passed over {len(beside)} files of ground truth beside images")
        if old - beside:
            notes.append(f"{text}: passed over {len(old - beside)} results of earlier runs")
        taken = [match for match in files if match not in beside and match not in old]
        if not taken:
            raise DataError(f"{text}: matches no image but results of earlier runs and ground truth")
        yield from (_Found(match, match.parent, Path(match.name), Path(match.name)) for match in taken)


def _pattern(text: str) -> tuple[Path, str]:
    """The first folders of a glob, as far as there are folders of just these names, and a glob where they are none."""
    parts = Path(text).parts
    known = 0
    while known < len(parts) - 1 and Path(*parts[: known + 1]).is_dir():
        known += 1
    folder = Path(*parts[:known])
    return folder, os.path.join(glob.escape(str(folder)) if known else "", *parts[known:])


def _is_excluded(inner: Path, exclude: Sequence[str]) -> bool:
    """Whether a path below an input, or one of its parents, is to be passed over."""
    return any(
        fnmatchcase(part.as_posix(), pattern) or fnmatchcase(part.name, pattern)
        for pattern in exclude
        for part in (inner, *inner.parents[:-1])
    )


def _in_folder(
    root: Path, out: Path | None, exclude: Sequence[str], notes: list[str], ends: tuple[str, ...]
) -> list[_Found]:
    sets, results = DataSets(), out.resolve() if out else None
    if results == root.resolve():
        raise DataError(f"{root}: the results would lie among the images; give another --out")

    def is_entered(folder: Path) -> bool:
        if _is_excluded(folder.relative_to(root), exclude) or results == folder.resolve():
            return False
        if holds_ids(folder):
            notes.append(f"{folder}: passed over, as it holds label ids of an earlier run")
            return False
        return True

    tree = walk(root, lambda folder, names: [name for name in sets.entered(folder, names) if is_entered(folder / name)])
    if root in tree.broken:
        raise DataError(f"{root}: {tree.broken[root]}")
    files = [path for path in tree.files if not _is_excluded(path.relative_to(root), exclude)]
    kinds = {*UNREAD_ENDS} - {*ends}
    unread = Counter(path.suffix.lower() for path in files if path.suffix.lower() in kinds)
    listed = ", ".join(f"{count} {end}" for end, count in sorted(unread.items()))
    images = [path for path in files if path.name.lower().endswith(ends) and not sets.is_beside(path)]
    old = {path for path in images if is_result(path)}
    if old:
        notes.append(f"{root}: passed over {len(old)} results of earlier runs")
    if unread:
        notes.append(f"{root}: passed over {listed}, of kinds that are not read; convert them to PNG or JPEG")
    notes += sets.notes()
    faults = {
        path: why
        for path, why in tree.broken.items()
        if may_be(path, ends) and not _is_excluded(path.relative_to(root), exclude)
    }
    taken = sorted({*images, *faults} - old)
    if not taken:
        what = f"; {listed} are not read" if unread else ""
        wanted = "image" if ends == IMAGE_ENDS else "image or video"
        raise DataError(f"{root}: the folder holds no {wanted} ({', '.join(ends)}){what}")
    return [_Found(path, root, *sets.place(path, root), faults.get(path)) for path in taken]


def _named(found: Sequence[_Found], labels: Path | None) -> list[Item]:
    """Names that differ, below what all have in common, and the labels that lie under them."""
    bases = [os.path.abspath(each.base) for each in found]
    try:
        common = os.path.commonpath(bases)
    except ValueError:  # several drives
        common = ""
    truths = {folder: _by_name(folder) for folder in {labels or each.labels for each in found} if folder}
    items: list[Item] = []
    taken: set[str] = set()
    for each, base in zip(found, bases, strict=True):
        below = Path(os.path.relpath(base, common)) if common else Path(base.lstrip("/\\").replace(":", ""))
        full = below / each.inner
        name = _free_name(full, taken)
        taken.add(name)
        known = truths.get(labels or each.labels or Path(), {})
        # A folder of labels for several inputs holds what these do, or all of it together.
        keys = (full, each.inner, each.within) if labels else (each.within,)
        truth = next((known[key] for key in map(_key, keys) if key in known), None)
        items.append(Item(each.path, name, truth, each.fault))
    return items


def _stem(path: Path) -> str:
    return path.as_posix().removesuffix(path.suffix)  # `with_suffix` takes no name of dots, nor a folder without one


def _key(path: Path) -> str:
    """The name under which image and labels meet."""
    return plain_name(_stem(path))


def _free_name(path: Path, taken: set[str]) -> str:
    """The name without suffix; where another file has it, with its suffix, then with a number."""
    plain = _stem(path)
    names = [plain, f"{plain}_{path.suffix[1:].lower()}"]
    number = 2
    while names[0] in taken:
        names.pop(0)
        if not names:
            names.append(f"{plain}_{number}")
            number += 1
    return names[0]


def _by_name(folder: Path) -> dict[str, Path]:
    """Label files of a folder, by their path in it without suffix; those that cannot be read are named when read."""
    files, broken = find_files(folder, (".png",))
    known: dict[str, Path] = {}
    for path, why in broken.items():
        if not path.name.lower().endswith(".png"):
            raise DataError(f"{path}: {why}; mend or remove it, as labels may lie there")
    for path in sorted([*files, *broken]):
        name = _key(path.relative_to(folder))
        if name in known:
            raise DataError(f"{path}: has the name of {known[name].name}; rename one of them, and its image")
        known[name] = path
    return known


def _check_labels(items: Sequence[Item], labels: Path | None) -> None:
    owners: dict[Path, Path] = {}
    for item in items:
        if item.truth is None:
            continue
        owner = owners.setdefault(item.truth, item.path)
        if owner != item.path:
            raise DataError(
                f"{item.truth}: is named as two images, {owner} and {item.path}; name each image's labels as the image"
            )
    if labels is not None and not owners:
        raise DataError(f"{labels}: holds no .png named as one of the {len(items)} images")
