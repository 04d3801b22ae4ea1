"""Image files that are no frames: each fault is named, and none goes through."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from PIL.PngImagePlugin import PngInfo

from errseg_rt.errors import FrameError
from errseg_rt.frames.reading import Reading, read_frame

NOISE = np.random.default_rng(0).integers(0, 256, (43, 57, 3), np.uint8)


def encoded(suffix: str, picture: np.ndarray = NOISE, *options: int) -> bytes:
    good, data = cv2.imencode(suffix, picture, options)
    assert good
    return data.tobytes()


def png(width: int, height: int, *, depth: int = 8, kind: int = 2, palette: bytes = b"", pixels: bytes = b"") -> bytes:
    """A PNG from its chunks; `kind` is the colour type: 2 colour, 3 palette."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    table = chunk(b"PLTE", palette) if palette else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + table
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def jpeg(height: int, width: int) -> bytes:
    """Headers of a JPEG of any size, with the end marker and nothing between."""
    frame = struct.pack(">BBHBHHB", 0xFF, 0xC0, 17, 8, height, width, 3) + bytes([1, 17, 0, 2, 17, 0, 3, 17, 0])
    scan = b"\xff\xda" + struct.pack(">HB", 12, 3) + bytes([1, 0, 2, 0, 3, 0, 0, 63, 0])
    return b"\xff\xd8" + frame + scan + b"\xff\xd9"


def with_thumbnail(main: bytes, thumbnail: bytes) -> bytes:
    """A JPEG that carries another one in its Exif segment, as cameras write it."""
    body = b"Exif\0\0" + thumbnail
    return main[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + main[2:]


def refused(tmp_path: Path, data: bytes, name: str, match: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(FrameError, match=match) as error:
        read_frame(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_path_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"none\.png: cannot be read \(No such file"):
        read_frame(tmp_path / "none.png")
    with pytest.raises(FrameError, match=r"cannot be read \(Is a directory\)"):
        read_frame(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    refused(tmp_path, b"", "a.png", "the file is empty")


@pytest.mark.parametrize("cut", [9, 20, 33, 60, 0.3, 0.9, -13, -8], ids=str)
def test_a_truncated_png(tmp_path: Path, cut) -> None:
    data = encoded(".png")
    refused(tmp_path, data[: int(cut * len(data)) if isinstance(cut, float) else cut], "a.png", "damaged")


@pytest.mark.parametrize("progressive", [0, 1], ids=["baseline", "progressive"])
@pytest.mark.parametrize("cut", [3, 20, 200, 0.5, 0.95, -2, -1], ids=str)
def test_a_truncated_jpeg(tmp_path: Path, cut, progressive) -> None:
    data = encoded(".jpg", NOISE, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    refused(tmp_path, data[: int(cut * len(data)) if isinstance(cut, float) else cut], "a.jpg", "damaged")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", [".bmp", ".tiff", ".webp"])
def test_other_formats_truncated(tmp_path: Path, suffix, share) -> None:
    data = encoded(suffix)
    refused(tmp_path, data[: int(share * len(data))], f"a{suffix}", "damaged")


@pytest.mark.parametrize("cut", [1, 2, 5])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_few_bytes(tmp_path: Path, suffix, cut) -> None:
    refused(tmp_path, encoded(suffix)[:cut], f"a{suffix}", "not an image|damaged")


def test_a_jpeg_with_a_thumbnail(tmp_path: Path) -> None:
    main, thumbnail = encoded(".jpg"), encoded(".jpg", NOISE[::4, ::4])
    whole = with_thumbnail(main, thumbnail)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_frame(path), cv2.imdecode(np.frombuffer(main, np.uint8), cv2.IMREAD_COLOR))
    with pytest.raises(FrameError, match=r"43x57 pixels are over the limit of 2000"):
        read_frame(path, Reading(2000))
    after_thumbnail = len(thumbnail) + 12
    for cut in (
        len(thumbnail) // 2,
        after_thumbnail,
        after_thumbnail + 200,
        len(whole) - len(main) // 3,
        len(whole) - 2,
    ):
        refused(tmp_path, whole[:cut], "cut.jpg", "damaged")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp"])
def test_text_named_as_an_image(tmp_path: Path, suffix) -> None:
    refused(tmp_path, b"This is no picture.\n" * 40, f"a{suffix}", "not an image of a kind that is read")


@pytest.mark.parametrize(
    ("suffix", "picture", "match"),
    [
        (".png", NOISE.astype(np.uint16) * 257, "16 bits a channel .*; convert it to 8 bits"),
        (".png", NOISE[..., 0].astype(np.uint16) * 257, "16 bits a channel"),
        (".tiff", NOISE.astype(np.uint16) * 257, "16 bits a channel"),
        (".tiff", NOISE[..., 0].astype(np.float32), "32 bits a channel"),
        (".tiff", NOISE.astype(np.float32), "unknown pixel mode.* convert it to an 8-bit PNG"),
        (".ppm", NOISE.astype(np.uint16) * 257, "16 bits a channel"),
        (".pgm", NOISE[..., 0].astype(np.uint16) * 257, "16 bits a channel"),
        (".jp2", NOISE.astype(np.uint16) * 257, "16 bits a channel"),
    ],
    ids=["png", "grey_png", "tiff", "grey_float_tiff", "float_tiff", "ppm", "pgm", "jp2"],
)
def test_images_of_another_kind(tmp_path: Path, suffix, picture, match) -> None:
    refused(tmp_path, encoded(suffix, picture), f"a{suffix}", match)


def test_a_palette_png_is_a_colour_image(tmp_path: Path) -> None:
    colors = np.array([[255, 0, 0], [0, 200, 7], [1, 2, 3]], np.uint8)
    index = np.random.default_rng(1).integers(0, 3, (5, 7)).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in index)
    path = tmp_path / "a.png"
    path.write_bytes(png(7, 5, kind=3, palette=colors.tobytes(), pixels=rows))
    np.testing.assert_array_equal(read_frame(path), colors[index][..., ::-1])


@pytest.mark.parametrize("header_only", [False, True], ids=["whole", "cut"])
def test_a_huge_png_is_refused_by_its_header(tmp_path: Path, header_only) -> None:
    data = png(100_000, 99_999)
    refused(tmp_path, data[:40] if header_only else data, "a.png", "damaged" if header_only else "99999x100000 pixels")


def test_a_huge_jpeg_is_refused_by_its_header(tmp_path: Path) -> None:
    refused(tmp_path, jpeg(65_500, 60_000), "a.jpg", "65500x60000 pixels are over the limit")
    refused(tmp_path, with_thumbnail(jpeg(65_500, 60_000), jpeg(10, 10)), "b.jpg", "65500x60000 pixels")


def test_a_png_without_pixels(tmp_path: Path) -> None:
    refused(tmp_path, png(0, 0), "a.png", "damaged")


@pytest.mark.parametrize("data", [b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xe0\x00\x00" * 3 + b"\xff\xd9"])
def test_a_jpeg_of_markers_alone(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, data, "a.jpg", "damaged")


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_avif_of_more_bits_is_not_reduced(tmp_path: Path, depth) -> None:
    deep = NOISE if depth == 8 else NOISE.astype(np.uint16) << (depth - 8)
    data = encoded(".avif", deep, cv2.IMWRITE_AVIF_DEPTH, depth)
    if depth == 8:
        (tmp_path / "a.avif").write_bytes(data)
        assert read_frame(tmp_path / "a.avif").shape == NOISE.shape
    else:
        refused(tmp_path, data, "a.avif", r"16 bits a channel|1[02] bits a channel")


def test_avif_under_the_brand_of_its_container(tmp_path: Path) -> None:
    data = encoded(".avif")
    assert data[4:12] == b"ftypavif"
    assert data[16:20] == b"avif"  # which stays, among those that it fits, too
    (tmp_path / "a.avif").write_bytes(data[:8] + b"mif1" + data[12:])
    (tmp_path / "b.avif").write_bytes(data)
    np.testing.assert_array_equal(read_frame(tmp_path / "a.avif"), read_frame(tmp_path / "b.avif"))
    heic = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"mif1", 0, b"mif1", b"heic")
    refused(tmp_path, heic, "c.heic", "HEIC is not read")


def test_large_metadata_is_no_damage(tmp_path: Path) -> None:
    """A colour profile, and a text that an editor put there, each packed well."""
    image = Image.fromarray(NOISE[..., ::-1])
    notes = PngInfo()
    notes.add_text("workflow", "x" * 3_000_000, zip=True)
    notes.add_itxt("XML:com.adobe.xmp", "x" * 3_000_000, zip=True)
    image.save(tmp_path / "a.png", pnginfo=notes, icc_profile=bytes(2_000_000))
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    np.testing.assert_array_equal(read_frame(tmp_path / "a.png"), NOISE)
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


def test_colours_of_8_bits_that_are_not_read(tmp_path: Path) -> None:
    Image.fromarray(NOISE, "RGB").convert("LAB").save(tmp_path / "a.tif")
    with pytest.raises(FrameError, match=r"a\.tif: colours as LAB are not read; convert it to RGB"):
        read_frame(tmp_path / "a.tif")
