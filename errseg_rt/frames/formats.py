"""Formats of image files, told by their first bytes, and what their headers say before a pixel is decoded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from threading import RLock
from typing import IO, TYPE_CHECKING, Any
from warnings import catch_warnings, filterwarnings

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

IMAGE_ENDS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".webp", ".bmp", ".dib", ".gif", ".avif"),
    *(".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".ras", ".sr"),
)
"""How names of image files end, in lower case."""
VIDEO_ENDS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
"""How names of video files end, in lower case."""
UNREAD_ENDS = (
    *(".heic", ".heif", ".hif", ".jxl", ".svg", ".psd", ".exr", ".hdr", ".pfm", ".pic", ".tga", ".ico", ".pdf"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".raw", ".npy", ".npz"),
    *VIDEO_ENDS,
)
"""How names of files end that hold pictures which are not read here."""

_ORIENTATION = 0x112  # tag of EXIF and TIFF
_BITS = 0x102  # tag of TIFF: bits of each channel
_PNG_BITS = 24  # offset in a PNG
_AV1 = b"av1C"  # the box that says how an AVIF is coded; its third byte has a bit for more than 8 bits, one for 12
_LONGEST_TEXT = 1 << 26  # bytes of metadata, unpacked; Pillow's own limit is less than profiles and texts have
_J2K_START, _J2K_BITS = b"\xff\x4f\xff\x51", 42  # of its codestream; offset in that of the first component's bits - 1


@dataclass(frozen=True)
class Format:
    """A format of image files.

    Attributes:
        name: What people call it.
        start: What its first bytes match.
        reader: Module and class of Pillow that read it; empty where it is not read.
    """

    name: str
    start: bytes
    reader: str = ""


FORMATS = (
    Format("JPEG", rb"\xff\xd8", "JpegImagePlugin.JpegImageFile"),
    Format("PNG", rb"\x89PNG\r\n\x1a\n", "PngImagePlugin.PngImageFile"),
    Format("TIFF", rb"II[*+]\0|MM\0[*+]", "TiffImagePlugin.TiffImageFile"),
    Format("WebP", rb"RIFF.{4}WEBP", "WebPImagePlugin.WebPImageFile"),
    Format("BMP", rb"BM", "BmpImagePlugin.BmpImageFile"),
    Format("GIF", rb"GIF8[79]a", "GifImagePlugin.GifImageFile"),
    Format("PPM", rb"P[1-6]\s", "PpmImagePlugin.PpmImageFile"),
    Format("JPEG 2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "Jpeg2KImagePlugin.Jpeg2KImageFile"),
    # Its brand may be that of the container, and AVIF's among those that follow.
    Format("AVIF", rb".{4}ftyp((mif1|msf1|miaf).{4}(.{4})*?)?avi[fs]", "AvifImagePlugin.AvifImageFile"),
    Format("Sun raster", rb"\x59\xa6\x6a\x95", "SunImagePlugin.SunImageFile"),
    Format("HEIC", rb".{4}ftyp(hei|hev|mif1|msf1)"),
    Format("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL "),
)

HEAD = 64
"""Bytes that tell a format."""

_ALONE = RLock()
if hasattr(os, "register_at_fork"):  # a child would wait for ever for another thread of its parent, which it has not
    os.register_at_fork(before=_ALONE.acquire, after_in_parent=_ALONE.release, after_in_child=_ALONE.release)


def format_of(data: bytes) -> Format | None:
    """The format of a file's bytes; None where it is none of `FORMATS`."""
    return next((each for each in FORMATS if re.match(each.start, data[:HEAD], re.DOTALL)), None)


@contextmanager
def pillow(lenient: bool) -> Iterator[None]:
    """Pillow set up to take what it can (`lenient`) or nothing that is cut, without limits and warnings of its own.

    These settings are the process's, not an image's, so this is one thread's at a time, and no process forks meanwhile.
    What Pillow warns of is metadata.
    """
    from PIL import Image, ImageFile, PngImagePlugin

    with _ALONE, catch_warnings():
        filterwarnings("ignore", module=r"PIL\.")
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        longest = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
        try:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, lenient
            PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _LONGEST_TEXT
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before
            PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = longest


def open_header(kind: Format, data: bytes | IO[bytes]) -> ImageFile:
    """The header of a file as Pillow reads it, within `pillow`; raises what that raises where it is none."""
    module, _, name = kind.reader.partition(".")
    reader: Any = getattr(import_module(f"PIL.{module}"), name)
    image: ImageFile = reader(BytesIO(data) if isinstance(data, bytes) else data)
    return image


def bits_of(kind: Format, image: Any, data: bytes) -> int:
    """Bits of a channel, or of an index into a palette; Pillow would reduce some deeper pictures without a word."""
    if kind.name == "PNG":
        return data[_PNG_BITS]
    if kind.name == "TIFF":
        return int(max(image.tag_v2.get(_BITS, (1,))))
    if kind.name == "JPEG 2000":
        return (data[data.index(_J2K_START) + _J2K_BITS] & 0x7F) + 1
    if kind.name == "AVIF":
        coding = data[data.index(_AV1) + 6]
        return 8 if not coding & 0x40 else 12 if coding & 0x20 else 10
    if kind.name == "PPM" and image.tile and not isinstance(image.tile[0].args, str):
        return max(8, int(image.tile[0].args[-1]).bit_length())
    return 8


def orientation_of(image: ImageFile) -> int:
    """How EXIF, or TIFF, says that a picture is to be turned: 1 (not at all) to 8; a value that is none counts as 1."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF that is damaged raises many kinds, and the picture is whole without it
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
