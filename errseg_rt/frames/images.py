"""Image files: which ones an input names, and reading them as frames with every fault named."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.errors import DataError, FrameError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA  # marker of a JPEG's start-of-scan segment
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of its start-of-frame segments
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_PNG_DEPTH = 24  # offset of the bits a channel in a PNG


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
            if file.suffix.lower() in SUFFIXES and file.is_file() and results not in file.resolve().parents
        )
        if not found:
            raise DataError(f"{path}: the folder holds no image ({', '.join(SUFFIXES)})")
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


def read_frame(path: Path, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Read an image file as a frame.

    Args:
        path: The file.
        max_pixels: Largest frame, height times width; told from the file's header where the format allows, so that a
            huge file is refused before it takes memory.

    Returns:
        BGR, `uint8 [H, W, 3]`.

    Raises:
        FrameError: The file cannot be read, is empty, truncated, too large, or no 8-bit colour image.
    """
    image = read_image(path, max_pixels)
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels != 3:
        kind = {1: "a grey image", 4: "an image with alpha"}.get(channels, f"an image of {channels} channels")
        raise FrameError(f"{path}: {kind}, wanted three colour channels; convert it to RGB")
    return image


def read_image(path: Path, max_pixels: int | None = None) -> npt.NDArray[np.uint8]:
    """An image file with the channels that it has, `uint8 [H, W]` or `[H, W, C]`; see `read_frame`."""
    return _decode(path, _read_whole(path), max_pixels)


def read_labels(path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Read label ids as they are in the file.

    Args:
        path: An 8-bit, one-channel PNG of ids.
        size: Height and width of the frame.

    Returns:
        `uint8 [H, W]`.

    Raises:
        FrameError: The file cannot be read, holds no 8-bit ids, or is not of the frame's size.
    """
    data = _read_whole(path)
    labels = _decode(path, data)
    if labels.shape != size:
        hint = "; these are colours (or a palette), not class ids" if labels.ndim == 3 else ""
        raise FrameError(f"{path}: labels are {labels.dtype} {labels.shape}, wanted uint8 {size} as the frame{hint}")
    # OpenCV stretches fewer bits to 0..255, which turns the 1 of one bit into `IGNORE`.
    if data.startswith(_PNG_START) and data[_PNG_DEPTH] < 8:
        raise FrameError(f"{path}: labels of {data[_PNG_DEPTH]} bits a pixel; save the ids as an 8-bit PNG")
    return labels


def read_truth(path: Path, size: tuple[int, int], classes: int) -> npt.NDArray[np.uint8]:
    """Read true labels, as `read_labels` does; ids that are no class become `IGNORE`."""
    labels = read_labels(path, size)
    return np.where(labels < classes, labels, IGNORE).astype(np.uint8)


def _read_whole(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FrameError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise FrameError(f"{path}: the file is empty; copy it again")
    if _is_truncated(data):
        raise FrameError(f"{path}: the file is truncated; copy it again")
    return data


def _decode(path: Path, data: bytes, max_pixels: int | None = None) -> npt.NDArray[np.uint8]:
    size = _header_size(data)
    if max_pixels and size and size[0] * size[1] > max_pixels:
        raise FrameError(
            f"{path}: {size[0]}x{size[1]} pixels are over the limit of {max_pixels}; shrink it, or raise max_pixels"
        )
    try:
        # Only for a JPEG, which has no alpha to lose, can OpenCV turn the picture as its EXIF says.
        flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH if data.startswith(_JPEG_START) else cv2.IMREAD_UNCHANGED
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise FrameError(
            f"{path}: OpenCV refuses it ({error.err}); convert it to an 8-bit colour PNG or JPEG"
        ) from error
    if image is None:
        raise FrameError(f"{path}: not an image that OpenCV reads; convert it to PNG or JPEG")
    if image.dtype != np.uint8:
        raise FrameError(f"{path}: {8 * image.dtype.itemsize}-bit {image.dtype}; convert it to 8 bits a channel")
    return np.asarray(image, np.uint8)


def _is_truncated(data: bytes) -> bool:
    if data.startswith(_JPEG_START):
        # The header may hold a thumbnail with an end of its own; the end that counts follows the main picture's scan.
        scan = next((at for marker, at in _jpeg_segments(data) if marker == _SCAN), None)
        return scan is None or data.find(_JPEG_END, scan) < 0
    return data.startswith(_PNG_START) and _PNG_END not in data


def _header_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a PNG or JPEG by its header; None for other formats."""
    if data.startswith(_PNG_START) and len(data) >= 24:
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    for marker, at in _jpeg_segments(data):
        if marker in _FRAMES:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and offset of each segment of a JPEG's header, the first scan included."""
    at = len(_JPEG_START)
    while data.startswith(_JPEG_START) and at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        yield marker, at
        if marker == _SCAN:
            return
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
