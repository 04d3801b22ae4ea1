"""Reading image files, and label files beside them: one rule for whatever reads them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.errors import FrameError
from errseg_rt.frames.decode import CLASS_IDS, INSTANCE_IDS, IdKind, decode, decode_bytes
from errseg_rt.frames.turn import turned
from errseg_rt.system.lines import escaped, one_line

Pixels = npt.NDArray[np.uint8]
InstanceIds = npt.NDArray[np.int32]
Colors = Mapping[int, tuple[int, int, int]]
_NO_COLORS: Colors = MappingProxyType({})
_MOST_NAMED = 5  # colours that a message lists

_LOG = logging.getLogger(__name__)
_NOTED: set[str] = set()  # rules that were said, once in a process


@dataclass(frozen=True)
class Reading:
    """What is taken of image files.

    Attributes:
        max_pixels: Largest image, height times width.
        allow_damaged: Whether what can be decoded of a damaged file is taken; else that is an error.
        ignore_orientation: Whether images are taken as they are stored; else they are turned as their EXIF says.
    """

    max_pixels: int = MAX_PIXELS
    allow_damaged: bool = False
    ignore_orientation: bool = False


@dataclass(frozen=True, eq=False)
class Picture:
    """An image that was read.

    Attributes:
        frame: BGR `uint8 [H, W, 3]`.
        labels: Ids as they are in its label file, `uint8 [H, W]`; None without one.
        damage: What is wrong with its files, each named; they were taken all the same.
    """

    frame: Pixels
    labels: Pixels | None = None
    damage: tuple[str, ...] = ()


def read_frame(path: Path, reading: Reading = Reading()) -> Pixels:
    """Read an image file as a frame.

    Grey becomes three equal channels, palettes become colours, alpha is dropped.

    Returns:
        BGR `uint8 [H, W, 3]`, turned as EXIF says in every format that has it.

    Raises:
        FrameError: The file cannot be read, is empty, damaged, too large, no image, or has more than 8 bits a channel.
    """
    return read_picture(path, None, reading).frame


def frame_of(data: bytes, reading: Reading = Reading(), name: str = "the image") -> Pixels:
    """The frame of an image file's content, as `read_frame` gives it; `name` is what messages call it.

    Raises:
        FrameError: It is empty, damaged, too large, no image, or has more than 8 bits a channel.
    """
    decoded = decode_bytes(name, data, reading.max_pixels)
    return turned(decoded.pixels, 1 if reading.ignore_orientation else decoded.orientation)


def read_labels(path: Path, size: tuple[int, int], reading: Reading = Reading(), colors: Colors = _NO_COLORS) -> Pixels:
    """Read a label file: a PNG of 8-bit class ids, or of a palette, whose indices are the class ids.

    Args:
        path: The file.
        size: Height and width of the frame that it belongs to.
        reading: What is taken.
        colors: RGB colour of each id; with it, files of these colours are taken, too.

    Returns:
        Ids as they are in the file, `uint8 [H, W]`.

    Raises:
        FrameError: It is no such file, is damaged, or of another size.
    """
    labels, damage = _ids(path, reading, colors)
    _check_size(path, labels, [size])
    _say_damage(damage)
    return labels


def read_pair(
    image: Path, label: Path, reading: Reading = Reading(), colors: Colors = _NO_COLORS
) -> tuple[Pixels, Pixels]:
    """Read a frame and its labels, so that they agree about EXIF.

    Both are turned as EXIF says; where the labels fit the image only as it is stored, it is left so. Where sizes cannot
    tell, as with half turns and mirrored ones, it is turned, and that is logged: labels that were drawn on the stored
    pixels want `ignore_orientation`.

    Returns:
        Frame as `read_frame` gives it, labels as `read_labels` does.

    Raises:
        FrameError: As these two.
    """
    picture = read_picture(image, label, reading, colors)
    assert picture.labels is not None
    return picture.frame, picture.labels


def read_instance_ids(
    path: Path, size: tuple[int, int], reading: Reading = Reading(), *, packed: bool = False
) -> InstanceIds:
    """Read an instance map: a PNG of 8 or 16 bits, or of indices into a palette.

    Args:
        path: The file.
        size: Height and width of the frame that it belongs to.
        reading: What is taken.
        packed: Whether an id is R + 256 G + 65536 B of a colour, as COCO panoptic has it.

    Returns:
        Ids as they are in the file, `int32 [H, W]`.

    Raises:
        FrameError: It is no such file, is damaged, or of another size.
    """
    ids, damage = _instance_ids(path, reading, packed)
    _check_size(path, ids, [size], INSTANCE_IDS)
    _say_damage(damage)
    return ids


def read_with_instance_ids(
    image: Path, path: Path, reading: Reading = Reading(), *, packed: bool = False
) -> tuple[Pixels, InstanceIds]:
    """Read a frame and its instance map, so that they agree about EXIF, as `read_pair` does.

    Returns:
        Frame as `read_frame` gives it, ids as `read_instance_ids` does.

    Raises:
        FrameError: As these two.
    """
    decoded = decode(image, reading.max_pixels, reading.allow_damaged)
    ids, damage = _instance_ids(path, reading, packed)
    orientation = 1 if reading.ignore_orientation else decoded.orientation
    orientation = _agreed(image, path, decoded.pixels, orientation, ids, INSTANCE_IDS)
    _say_damage([f"{image}: {decoded.damage}"] * bool(decoded.damage) + damage)
    return turned(decoded.pixels, orientation), ids


def read_picture(image: Path, label: Path | None, reading: Reading, colors: Colors = _NO_COLORS) -> Picture:
    """Read an image file and, where there is one, its label file; as `read_frame` and `read_pair`."""
    decoded = decode(image, reading.max_pixels, reading.allow_damaged)
    damage = [f"{image}: {decoded.damage}"] if decoded.damage else []
    stored, orientation = decoded.pixels, 1 if reading.ignore_orientation else decoded.orientation
    labels: Pixels | None = None
    if label is not None:
        labels, more = _ids(label, reading, colors)
        damage += more
        orientation = _agreed(image, label, stored, orientation, labels)
    _say_damage(damage)
    return Picture(turned(stored, orientation), labels, tuple(damage))


def _agreed(
    image: Path,
    label: Path,
    stored: Pixels,
    orientation: int,
    labels: Pixels | InstanceIds,
    kind: IdKind = CLASS_IDS,
) -> int:
    """The orientation in which the labels fit the image."""
    as_stored, as_seen = stored.shape[:2], turned(stored[..., 0], orientation).shape
    _check_size(label, labels, [as_seen, as_stored], kind)
    if orientation == 1:
        return 1
    if labels.shape != as_seen:
        _note(image, "the labels fit the image as it is stored, so it is not turned as its EXIF says")
        return 1
    if as_seen == as_stored:
        _note(
            image,
            "turned as its EXIF says, and its labels are taken to be drawn so; if they are drawn on the image as it is "
            "stored, give --ignore-orientation",
        )
    return orientation


def _ids(path: Path, reading: Reading, colors: Colors) -> tuple[Pixels, list[str]]:
    decoded = decode(path, reading.max_pixels, reading.allow_damaged, ids=CLASS_IDS, colors=bool(colors))
    orientation = 1 if reading.ignore_orientation else decoded.orientation
    ids = decoded.pixels if decoded.pixels.ndim == 2 else _ids_of_colors(path, decoded.pixels, colors)
    return turned(ids, orientation), [f"{path}: {decoded.damage}"] if decoded.damage else []


def _instance_ids(path: Path, reading: Reading, packed: bool) -> tuple[InstanceIds, list[str]]:
    decoded = decode(path, reading.max_pixels, reading.allow_damaged, ids=INSTANCE_IDS, colors=packed)
    ids = decoded.pixels.astype(np.int32)
    if packed:
        if ids.ndim == 2:
            raise FrameError(f"{path}: instance ids of one channel, wanted the colours of COCO panoptic")
        ids = ids @ np.array([1 << 16, 1 << 8, 1], np.int32)  # BGR
    orientation = 1 if reading.ignore_orientation else decoded.orientation
    return turned(ids, orientation), [f"{path}: {decoded.damage}"] if decoded.damage else []


def _ids_of_colors(path: Path, picture: Pixels, colors: Colors) -> Pixels:
    """The id of each pixel's colour, in BGR."""
    code = np.array([1, 1 << 8, 1 << 16])
    codes = picture.astype(np.int64) @ code
    known = np.array([color[::-1] for color in colors.values()]) @ code
    if len(set(known.tolist())) < len(known):
        raise FrameError(f"{path}: labels in colours, of which two ids share one; save the class ids as an 8-bit PNG")
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known[order], codes), len(known) - 1)
    strange = np.unique(codes[known[order][at] != codes])
    if strange.size:
        listed = ", ".join(
            str((value >> 16, value >> 8 & 255, value & 255)) for value in strange[:_MOST_NAMED].tolist()
        )
        more = f" and {strange.size - _MOST_NAMED} more" if strange.size > _MOST_NAMED else ""
        raise FrameError(f"{path}: the label map has no colour {listed}{more} (red, green, blue)")
    ids: Pixels = np.array([*colors], np.uint8)[order][at]
    return ids


def _check_size(
    path: Path, labels: Pixels | InstanceIds, sizes: list[tuple[int, ...]], kind: IdKind = CLASS_IDS
) -> None:
    if labels.shape not in sizes:
        wanted = " or ".join(dict.fromkeys(f"{height}x{width}" for height, width in sizes))
        height, width = labels.shape
        raise FrameError(f"{path}: {kind.what} of {height}x{width} pixels, wanted {wanted} as the frame")


def _say_damage(damage: list[str]) -> None:
    for fault in damage:
        _LOG.warning("damaged, and taken as far as it goes: %s", one_line(fault))


def _note(image: Path, rule: str) -> None:
    """Log which rule applies: a warning with the first image that it applies to, the others as info."""
    _LOG.log(logging.INFO if rule in _NOTED else logging.WARNING, "%s: %s", escaped(image), rule)
    _NOTED.add(rule)
