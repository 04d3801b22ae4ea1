"""Which files of a tree belong together: images and labels under the same names."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from errseg_rt.errors import DataError
from errseg_rt.frames.files import find_files
from errseg_rt.frames.formats import IMAGE_ENDS


def pair_files(
    images: Path,
    labels: Path,
    image_ends: Sequence[str] = IMAGE_ENDS,
    label_ends: Sequence[str] = (".png",),
    *,
    is_partial: bool = False,
    is_whole: bool = True,
) -> dict[str, tuple[Path, Path]]:
    """Image and label file of each frame, by its name, in the order of the names.

    A frame's name is the path of its file below the folder, without the end.

    Args:
        images: Folder of images, searched through and through, links to folders too; hidden files are passed over.
        labels: Folder of labels, with the same folders in it.
        image_ends: How file names of images end, in any case.
        label_ends: The same of labels.
        is_partial: Whether images may lack labels; those are left out, then.
        is_whole: Whether each image must have labels; else those that lack them have the name of a file that is not
            there, to be told of when they are read.

    Raises:
        DataError: There is no image, two files have one name, images and labels do not pair, or a link to what may be a
            folder leads nowhere.
    """
    frames, truths = _by_name(images, image_ends), _by_name(labels, label_ends)
    if not frames:
        raise DataError(f"{images}: holds no image ({', '.join(image_ends)})")
    if not is_partial and is_whole:
        _check_all_in(frames, truths, f"{labels}: no {' or '.join(label_ends)} for", "images")
    _check_all_in(truths, frames, f"{images}: no image for", "labels")
    if not truths:
        raise DataError(f"{labels}: holds no {' or '.join(label_ends)}")
    if not is_whole:
        truths = {name: truths.get(name, labels / f"{name}{label_ends[0]}") for name in frames}
    return {name: (frames[name], truths[name]) for name in sorted(truths)}


def plain_name(name: str) -> str:
    """A name under which files meet: macOS writes accents as characters of their own, others do not."""
    return unicodedata.normalize("NFC", name)


def check_split(folder: Path, split: str, layout: str) -> None:
    """Raises DataError unless `folder`, which `layout` describes, has a folder for the split; lists those it has."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {layout}")
    splits = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if split not in splits:
        raise DataError(f"{folder}: no split {split!r}; it has {', '.join(splits) or 'none'}; {layout}")


def _by_name(folder: Path, ends: Sequence[str]) -> dict[str, Path]:
    files, broken = find_files(folder, ends)
    wanted = tuple(end.lower() for end in ends)
    # A link of such a name that leads nowhere is a file of its frame, and named with it when that is read.
    files += [path for path in broken if path.name.lower().endswith(wanted)]
    for path, why in broken.items():
        if path not in files:
            raise DataError(f"{path}: {why}; mend or remove it, as frames may lie there")
    found: dict[str, Path] = {}
    for path in sorted(files):
        end = next(end for end in wanted if path.name.lower().endswith(end))
        name = plain_name(path.relative_to(folder).as_posix()[: -len(end)])
        if name in found:
            raise DataError(f"{path}: has the name of {found[name].name}; rename one of them, and its labels")
        found[name] = path
    return found


def _check_all_in(these: dict[str, Path], others: dict[str, Path], what: str, kind: str) -> None:
    bare = [name for name in these if name not in others]
    if bare:
        near = next((path.name for name, path in others.items() if name.casefold() == bare[0].casefold()), None)
        hint = f"; {near} differs from it by case" if near else ""
        raise DataError(f"{what} {len(bare)} of the {len(these)} {kind}, first {these[bare[0]].name}{hint}")
