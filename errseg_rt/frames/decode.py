"""From an image file to pixels, by libraries that raise where something is wrong, and print nothing."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.errors import FrameError
from errseg_rt.frames.formats import FORMATS, HEAD, Format, bits_of, format_of, open_header, orientation_of, pillow
from errseg_rt.frames.jpeg import decode_jpeg
from errseg_rt.frames.tiff import load_tiff
from errseg_rt.frames.turn import turned_back

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class IdKind:
    """What the pixels of a file are ids of, for what is taken and for messages.

    Attributes:
        what: What the file holds.
        ids: What is to be saved.
        file: As what.
        bits: Of a pixel, where it is no index into a palette.
        colors: What is to be done where its colours are meant.
    """

    what: str
    ids: str
    file: str
    bits: tuple[int, ...]
    colors: str = ""


CLASS_IDS = IdKind(
    "labels", "class ids", "8-bit PNG", (8,), ", or say what the colours mean by --label-map labelmap.txt"
)
INSTANCE_IDS = IdKind("instance ids", "instance ids", "8- or 16-bit PNG of one channel", (8, 16))

_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}  # Pillow's of 8 bits a channel at most
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # of more
_LARGE = 1 << 26  # bytes of a file whose size in pixels is looked at first
_COLORED = ("RGB", "RGBA")


class _DamageError(Exception):
    """A file is not what its format wants it to be."""

    remedy = "copy it again, or take what is there of it by --allow-damaged"


class _HeaderError(_DamageError):
    """A header that says nothing, or something that no library here knows."""

    remedy = "copy it again, or if it is whole, convert it to an 8-bit PNG"


@dataclass(frozen=True)
class Decoded:
    """A picture as it is stored.

    Attributes:
        pixels: BGR `uint8 [H, W, 3]`, or ids `uint8 [H, W]`, of 16 bits `uint16 [H, W]`.
        orientation: How it is to be turned, 1..8 as EXIF counts.
        damage: What is wrong with the file; None where nothing is.
    """

    pixels: npt.NDArray[Any]
    orientation: int
    damage: str | None = None


def decode(
    path: Path, max_pixels: int, allow_damaged: bool = False, *, ids: IdKind | None = None, colors: bool = False
) -> Decoded:
    """Decode an image file.

    Args:
        path: The file.
        max_pixels: Most pixels that it may have, which its header tells before they take memory.
        allow_damaged: Take what can be decoded of a damaged file.
        ids: It holds ids of this kind: a PNG of one channel, or of indices into a palette.
        colors: It may hold colours in their stead, which are given as they are.

    Raises:
        FrameError: It cannot be read, is empty, damaged, no image, too large, or of another kind.
    """
    kind, data = _read(path, max_pixels, ids)
    try:
        return _decoded(path, kind, data, max_pixels, ids, colors)
    except _DamageError as error:
        if not allow_damaged:
            raise FrameError(f"{path}: damaged ({error}); {error.remedy}") from error
        damage = str(error)
    try:
        return replace(_decoded(path, kind, data, max_pixels, ids, colors, lenient=True), damage=damage)
    except _DamageError as error:
        raise FrameError(f"{path}: damaged, with nothing to be seen of it ({error}); copy it again") from error


def decode_bytes(name: str, data: bytes, max_pixels: int) -> Decoded:
    """Decode an image that lies in memory, as `decode` does a file.

    Args:
        name: What messages call it.
        data: What a file of it would hold.
        max_pixels: Most pixels that it may have, which its header tells before they take memory.

    Raises:
        FrameError: It is empty, damaged, no image, too large, or of another kind.
    """
    kind = _known(name, data[:HEAD], ids=None)
    try:
        return _decoded(name, kind, data, max_pixels, ids=None, colors=False)
    except _DamageError as error:
        raise FrameError(f"{name}: damaged ({error}); send it again, or convert it to an 8-bit PNG") from error


def _read(path: Path, max_pixels: int, ids: IdKind | None) -> tuple[Format, bytes]:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            kind = _known(path, head, ids)
            if os.fstat(file.fileno()).st_size > _LARGE:  # before it takes memory itself
                file.seek(0)
                with pillow(lenient=False), suppress(_DamageError):
                    _check_size(path, _sound(lambda: open_header(kind, file)).size, max_pixels)
                file.seek(HEAD)
            return kind, head + file.read()
    except OSError as error:
        raise FrameError(f"{path}: cannot be read ({error.strerror})") from error


def _known(path: Path | str, head: bytes, ids: IdKind | None) -> Format:
    if not head:
        raise FrameError(f"{path}: the file is empty; copy it again")
    kind = format_of(head)
    if ids and (kind is None or kind.name != "PNG"):
        what = f"{kind.name} by what is in it" if kind else "no image"
        raise FrameError(f"{path}: {ids.what} are PNG, this is {what}; save the {ids.ids} as an {ids.file}")
    if kind is None:
        known = ", ".join(each.name for each in FORMATS if each.reader)
        raise FrameError(f"{path}: not an image of a kind that is read ({known}); convert it to PNG or JPEG")
    if not kind.reader:
        raise FrameError(f"{path}: {kind.name} is not read; convert it to PNG or JPEG")
    return kind


def _decoded(
    path: Path | str,
    kind: Format,
    data: bytes,
    max_pixels: int,
    ids: IdKind | None,
    colors: bool,
    lenient: bool = False,
) -> Decoded:
    with pillow(lenient):
        image: Any = _sound(lambda: open_header(kind, data), _HeaderError)
        _check_size(path, image.size, max_pixels)
        ids = None if colors and image.mode in _COLORED else ids
        bits = _sound(lambda: bits_of(kind, image, data))
        if ids:
            _check_ids(path, image.mode, bits, ids)
        else:
            _check_colors(path, image.mode, bits)
        orientation = 1 if kind.name == "PNG" else orientation_of(image)
        if kind.name != "JPEG":
            pixels = _sound(lambda: _by_pillow(kind, image, data, ids is not None, lenient))
        if kind.name == "PNG":  # where EXIF may follow the pixels
            orientation = orientation_of(image)
    if kind.name == "JPEG":
        pixels = _sound(lambda: decode_jpeg(data, lenient))
    if ids:
        _check_palette(path, image, pixels)
    return Decoded(pixels, orientation)


def _sound(step: Callable[[], T], fault: type[_DamageError] = _DamageError) -> T:
    """What a step gives; raises `fault` for what the libraries raise, which is of a dozen kinds."""
    try:
        return step()
    except (MemoryError, _DamageError):
        raise
    except (struct.error, IndexError, EOFError) as error:
        raise fault("it breaks off") from error
    except Exception as error:
        raise fault(" ".join(str(error).split()) or type(error).__name__) from error


def _check_size(path: Path | str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height == 0:
        raise FrameError(f"{path}: not an image: it has no pixels")
    if width * height > max_pixels:
        raise FrameError(
            f"{path}: {height}x{width} pixels are over the limit of {max_pixels}; shrink it, or raise --max-pixels"
        )


def _check_colors(path: Path | str, mode: str, bits: int) -> None:
    if bits > 8 or mode in _DEEP:
        raise FrameError(f"{path}: {max(bits, 16)} bits a channel ({mode}); convert it to 8 bits a channel")
    if mode not in _MODES:
        raise FrameError(f"{path}: colours as {mode} are not read; convert it to RGB")


def _check_ids(path: Path | str, mode: str, bits: int, kind: IdKind) -> None:
    if mode in (*_COLORED, "LA"):
        raise FrameError(
            f"{path}: {kind.what} in {mode}; save the {kind.ids}, not their colours, as an {kind.file}{kind.colors}"
        )
    if mode != "P" and bits not in kind.bits:
        raise FrameError(f"{path}: {kind.what} of {bits} bits a pixel; save the {kind.ids} as an {kind.file}")


def _check_palette(path: Path | str, image: Any, ids: Pixels) -> None:
    """A palette of nothing but greys may be how a tool packed grey ids, whose index then is no id."""
    if image.mode != "P":
        return
    used = np.unique(ids)
    palette = np.zeros((256, 3), np.uint8)
    given = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
    palette[: len(given)] = given
    colors = palette[used]
    is_grey = (given == given[:, :1]).all()
    is_mask = set(used.tolist()) <= {0, 1} and set(colors.ravel().tolist()) <= {0, 255}
    if is_grey and not is_mask and (colors[:, 0] != used).any():
        raise FrameError(
            f"{path}: a palette of greys that differ from their indices, so that either may be the class id; save the "
            "ids as an 8-bit grey PNG"
        )


def _by_pillow(kind: Format, image: Any, data: bytes, ids: bool, lenient: bool) -> npt.NDArray[Any]:
    if kind.name == "TIFF":
        orientation = orientation_of(image)
        load_tiff(image, data, lenient)
        return turned_back(_bgr(image), orientation)  # Pillow has turned it
    image.load()
    if kind.name == "PNG" and not lenient:
        open_header(kind, data).verify()  # checksums, which loading leaves out
    return np.array(image) if ids else _bgr(image)


def _bgr(image: Any) -> Pixels:
    image = image if image.mode == "RGB" else image.convert("RGB")
    return np.asarray(cv2.cvtColor(np.asarray(image, np.uint8), cv2.COLOR_RGB2BGR), np.uint8)
