"""Clips as phones, cameras, editors and broken transfers leave them, held against FFmpeg's own commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from errseg_rt.errors import FrameError, SourceError
from errseg_rt.video.clip import ClipWriter
from errseg_rt.video.files import FileSource
from tests.video.clips import number_of, write_clip
from tests.video.services import ffmpeg, program

MOST = 3.0  # seconds of a long clip that are looked at
REAL = ("street_video", "odd_video", "video")


def real_clips() -> list[Path]:
    root = Path(os.environ.get("ERRSEG_DATA") or "/none")
    return sorted(path for folder in REAL for path in (root / folder).glob("*.*") if path.suffix != ".md")


class Looked:
    """What a source gives of a clip: stamps, sizes, and its first, middle and last picture."""

    def __init__(self, path: Path, seconds: float | None = None) -> None:
        source = FileSource(path, duration=seconds)
        self.stamps, self.sizes, self.aspects = [], [], []
        self.pictures = {}
        middle = (source.length or 60) // 3
        for picture in source.pictures(threading.Event()):
            self.stamps.append(picture.timestamp)
            self.sizes.append(picture.frame.shape[1::-1])
            self.aspects.append(picture.pixel_aspect)
            if picture.index in (0, middle):
                self.pictures[picture.index] = picture.frame
            last = picture
        self.pictures[last.index] = last.frame
        self.faults = source.faults


def shown_by_ffmpeg(path: Path, numbers, size, seconds: float | None = None, then: str = ""):
    """Stamps, sizes and pictures that FFmpeg shows, upright, converted with the filter that PyAV uses."""
    part = [] if seconds is None else ["-t", str(seconds)]
    chosen = "+".join(f"eq(n\\,{number})" for number in sorted(numbers))
    filters = f"showinfo=checksum=0,select='{chosen}'{then}"
    done = ffmpeg(
        *("-loglevel", "info", "-copyts", "-start_at_zero", *part, "-i", path, "-map", "0:v:0", "-vf", filters),
        *("-sws_flags", "bilinear", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "bgr24", "-"),
    )
    found = re.findall(r"\bn: *\d+ .*?pts_time:(\S+) .*? s:(\d+)x(\d+)", done.stderr.decode(errors="replace"))
    pictures = np.frombuffer(done.stdout, np.uint8).reshape(-1, size[1], size[0], 3)
    return [float(stamp) for stamp, _, _ in found], [(int(w), int(h)) for _, w, h in found], list(pictures)


def check_against_ffmpeg(path: Path, seconds: float | None = None) -> Looked:
    looked = Looked(path, seconds)
    stamps, sizes, pictures = shown_by_ffmpeg(path, looked.pictures, looked.sizes[0], seconds)
    assert looked.sizes == sizes
    np.testing.assert_allclose(looked.stamps, stamps, atol=1e-3)
    for (number, found), wanted in zip(sorted(looked.pictures.items()), pictures, strict=True):
        # Versions of FFmpeg round otherwise, and smooth colours of 10 bits otherwise; a wrong matrix is off by more.
        assert np.abs(found.astype(int) - wanted).mean() < (2.5 if "10" in path.name else 0.5), number
    return looked


@pytest.mark.parametrize("path", real_clips() or [None], ids=lambda path: path.name if path else "none")
def test_real_clips(path: Path | None) -> None:
    if path is None:
        pytest.skip("needs clips: the environment variable ERRSEG_DATA is not set, or holds none")
    probe = [program("ffprobe"), "-v", "error", "-show_entries", "format=duration", "-of", "json", str(path)]
    length = float(json.loads(subprocess.run(probe, capture_output=True, check=True).stdout)["format"]["duration"])
    looked = check_against_ffmpeg(path, MOST if length > 20 * MOST else None)
    assert looked.faults.corrupt == 0


X264 = ("-c:v", "libx264", "-g", "12")
X265 = ("-c:v", "libx265", "-x265-params", "log-level=none")
KINDS = {
    "hevc-10.mp4": (*X265, "-pix_fmt", "yuv420p10le"),
    "hevc-12-444.mkv": (*X265, "-pix_fmt", "yuv444p12le"),
    "full.mp4": (*X264, "-vf", "scale=out_range=full", "-color_range", "pc"),
    "bt709.mp4": (*X264, "-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709"),
    "bt709-full.mkv": (*X264, "-vf", "scale=out_color_matrix=bt709:out_range=full,setparams=range=pc:colorspace=bt709"),
    "bt601.mp4": (*X264, "-vf", "scale=out_color_matrix=bt601", "-colorspace", "smpte170m"),
    "pixels-4-3.mp4": (*X264, "-vf", "setsar=4/3"),
    "pixels-4-3.mkv": (*X264, "-vf", "setsar=4/3"),
    "variable.mp4": (*X264, "-vf", "select='lt(n,9)+not(mod(n,4))'", "-fps_mode", "vfr"),
    "b-frames.mp4": (*X264, "-bf", "3"),
    "b-frames.avi": ("-c:v", "mpeg4", "-bf", "2", "-q:v", "3"),
    "b-frames.ts": (*X264, "-bf", "3"),
    "240.mp4": (*X264, "-vf", "settb=1/240,setpts=N", "-r", "240"),
    "program.mpg": ("-c:v", "mpeg2video", "-q:v", "3"),
    "motion.avi": ("-c:v", "mjpeg", "-q:v", "3"),
    "gray.mkv": ("-c:v", "ffv1", "-pix_fmt", "gray"),
    "prores.mov": ("-c:v", "prores", "-pix_fmt", "yuv422p10le"),
    "vp8.webm": ("-c:v", "libvpx", "-b:v", "1M"),
    "theora.ogv": ("-c:v", "libtheora", "-q:v", "8"),
    "windows.wmv": ("-c:v", "wmv2", "-q:v", "3"),
    "flash.flv": (*X264,),
    "mobile.3gp": (*X264,),
    "odd-size.mkv": ("-c:v", "ffv1", "-pix_fmt", "bgr0", "-vf", "crop=57:33:0:0:exact=1"),
    "one.mp4": (*X264, "-frames:v", "1"),
    "late.mp4": (*X264, "-output_ts_offset", "7"),
    "list.m3u8": (*X264, "-f", "hls", "-hls_time", "0.5", "-hls_list_size", "0"),
    "moving.gif": (),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A second of a test picture, without loss, and without edges of colour, which each version smooths its own way."""
    path = tmp_path_factory.mktemp("base") / "base.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=176x144:rate=25:duration=1,gblur=sigma=3", "-c:v", "ffv1", path)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_clips_of_many_kinds(base: Path, tmp_path: Path, name) -> None:
    ffmpeg("-i", base, "-threads", "1", *KINDS[name], tmp_path / name)
    looked = check_against_ffmpeg(tmp_path / name)
    assert looked.faults.corrupt == 0
    wide = 4 / 3 if name.startswith("pixels") else 1
    assert looked.aspects == pytest.approx([wide] * len(looked.aspects))


@pytest.mark.parametrize("name", ["fields.mpg", "fields.ts"])
def test_interlaced_clips(base: Path, tmp_path: Path, name) -> None:
    fields = (
        "-vf",
        "tinterlace=interleave_top,setfield=tff",
        "-c:v",
        "mpeg2video",
        "-flags",
        "+ilme+ildct",
        "-q:v",
        "3",
    )
    ffmpeg("-i", base, "-threads", "1", *fields, tmp_path / name)
    looked = Looked(tmp_path / name)
    # Colours of half the resolution are enlarged field by field, as they were made; PyAV before FFmpeg 8 does it across
    # both fields, as the command does unless it is told.
    ways = [
        shown_by_ffmpeg(tmp_path / name, looked.pictures, looked.sizes[0], then=f",scale=interl={way}")
        for way in (0, 1)
    ]
    for stamps, sizes, _ in ways:
        assert looked.sizes == sizes
        np.testing.assert_allclose(looked.stamps, stamps, atol=1e-3)
    for (_, found), *shown in zip(sorted(looked.pictures.items()), *(way[2] for way in ways), strict=True):
        assert min(np.abs(found.astype(int) - picture).mean() for picture in shown) < 0.5


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_what_a_phone_held_otherwise_leaves(base: Path, tmp_path: Path, angle) -> None:
    ffmpeg("-i", base, *X264, "-vf", "setsar=4/3", tmp_path / "a.mp4")
    ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", "-metadata:s:v", f"rotate={angle}", tmp_path / "turned.mp4")
    looked = check_against_ffmpeg(tmp_path / "turned.mp4")
    assert looked.sizes[0] == ((176, 144) if angle == 180 else (144, 176))
    assert looked.aspects[0] == pytest.approx(4 / 3 if angle == 180 else 3 / 4)


# a, b, c, d of x' = a x + c y and y' = b x + d y, as ISO 14496-12 has it, and what becomes of an array.
ORIENTATIONS = {
    "as it is": ((1, 0, 0, 1), lambda p: p),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
    "turned right": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "turned left": ((0, -1, 1, 0), lambda p: np.rot90(p)),
    "transposed": ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda p: np.rot90(p, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("how", ORIENTATIONS)
def test_orientations(tmp_path: Path, how) -> None:
    (a, b, c, d), turned = ORIENTATIONS[how]
    path = write_clip(tmp_path / "a.mp4", [0.0, 0.04, 0.08], crf="1")
    plain = Looked(path).pictures
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)
    found = Looked(path).pictures
    assert set(found) == set(plain)
    for number, picture in plain.items():
        np.testing.assert_array_equal(found[number], turned(picture))


def joined(*paths: Path) -> Path:
    path = paths[0].with_name("joined.ts")
    path.write_bytes(b"".join(part.read_bytes() for part in paths))
    return path


def test_a_size_that_changes_midway_goes_on(tmp_path: Path) -> None:
    stamps = [0.04 * index for index in range(10)]
    small = write_clip(tmp_path / "a.ts", stamps, bf="0")
    large = write_clip(tmp_path / "b.ts", [1 + s for s in stamps], size=(128, 256), numbers=range(10, 20), bf="0")
    source = FileSource(joined(small, large))
    pictures = list(source.pictures(threading.Event()))
    assert [number_of(picture.frame) for picture in pictures] == list(range(20))
    assert [picture.frame.shape[:2] for picture in pictures] == [(64, 96)] * 10 + [(128, 256)] * 10
    np.testing.assert_allclose(
        [picture.timestamp for picture in pictures], [*stamps, *(1 + s for s in stamps)], atol=2e-3
    )


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_a_rotation_that_changes_midway_goes_on(tmp_path: Path, angle) -> None:
    stamps = [0.04 * index for index in range(5)]
    first = write_clip(tmp_path / "a.ts", stamps, g="1")
    second = write_clip(tmp_path / "b.ts", [1 + s for s in stamps], numbers=range(5, 10), g="1")
    # H.264 may say with each key frame how it is to be turned, against the clock.
    turn = f"h264_metadata=display_orientation=insert:rotate={angle}"
    ffmpeg("-copyts", "-i", second, "-c", "copy", "-bsf:v", turn, tmp_path / "turned.ts")
    source = FileSource(joined(first, tmp_path / "turned.ts"))
    pictures = [picture.frame for picture in source.pictures(threading.Event())]
    plain = [picture.frame for picture in FileSource(joined(first, second)).pictures(threading.Event())]
    # FFmpeg 5.1 writes one of the second clip's frames without what it says before it; and some do not decode its last.
    assert len(plain) == 10
    assert len(pictures) + max(0, source.faults.corrupt - 1) == 10  # one fault is of the joint
    np.testing.assert_array_equal(pictures[:5], plain[:5])
    for number in (5, len(pictures) - 1):
        np.testing.assert_array_equal(pictures[number], np.rot90(plain[number], angle // 90))


def test_a_clip_of_two_hours(tmp_path: Path) -> None:
    stamps = [0.0, 0.04, 3600.0, 7199.96, 7200.0]
    source = FileSource(write_clip(tmp_path / "a.mkv", stamps, bf="0"))
    with ClipWriter(tmp_path / "out.mp4") as writer:
        for picture in source.pictures(threading.Event()):
            writer.write(picture.frame, picture.timestamp)
    looked = check_against_ffmpeg(tmp_path / "out.mp4")
    np.testing.assert_allclose(looked.stamps, stamps, atol=2e-3)


def test_a_size_that_becomes_too_large_is_an_error(tmp_path: Path) -> None:
    small = write_clip(tmp_path / "a.ts", [0.0, 0.04])
    large = write_clip(tmp_path / "b.ts", [1.0, 1.04], size=(640, 960))
    with pytest.raises(FrameError, match="frames of 640x960 pixels are over the limit of 10000; raise max_pixels"):
        list(FileSource(joined(small, large), max_pixels=10_000).pictures(threading.Event()))


@pytest.mark.parametrize("begin", [0.0, 3.0], ids=["backwards", "on"])
def test_stamps_that_start_anew_go_on(tmp_path: Path, begin) -> None:
    first = write_clip(tmp_path / "a.ts", [5 + 0.04 * index for index in range(10)])
    second = write_clip(tmp_path / "b.ts", [begin + 0.04 * index for index in range(10)], numbers=range(10, 20))
    pictures = list(FileSource(joined(first, second)).pictures(threading.Event()))
    assert [number_of(picture.frame) for picture in pictures] == list(range(20))
    np.testing.assert_allclose([picture.timestamp for picture in pictures], [0.04 * n for n in range(20)], atol=2e-3)


def test_a_gap_in_time_stays(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "a.ts", [0.0, 0.04])
    second = write_clip(tmp_path / "b.ts", [60.0, 60.04])
    pictures = list(FileSource(joined(first, second)).pictures(threading.Event()))
    np.testing.assert_allclose([picture.timestamp for picture in pictures], [0, 0.04, 60, 60.04], atol=2e-3)


def test_an_edit_list_cuts_the_beginning(base: Path, tmp_path: Path) -> None:
    ffmpeg("-i", base, *X264, "-bf", "2", tmp_path / "a.mp4")
    ffmpeg("-ss", "0.3", "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "cut.mp4")
    looked = check_against_ffmpeg(tmp_path / "cut.mp4")
    assert 15 <= len(looked.stamps) < 25
    assert FileSource(tmp_path / "cut.mp4").length != len(looked.stamps)  # the header lies


def test_a_header_may_lie_about_its_count(base: Path, tmp_path: Path) -> None:
    ffmpeg("-i", base, "-c:v", "mpeg4", tmp_path / "a.avi")
    data = bytearray((tmp_path / "a.avi").read_bytes())
    for at in (data.index(b"avih") + 24, data.index(b"strh") + 40):
        assert int.from_bytes(data[at : at + 4], "little") == 25
        data[at : at + 4] = (98).to_bytes(4, "little")
    (tmp_path / "a.avi").write_bytes(data)
    looked = check_against_ffmpeg(tmp_path / "a.avi")
    assert (len(looked.stamps), FileSource(tmp_path / "a.avi").length) == (25, 98)


def test_more_tracks_and_a_cover(base: Path, tmp_path: Path) -> None:
    ffmpeg("-i", base, "-frames:v", "1", tmp_path / "cover.png")
    (tmp_path / "said.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    sine = ("-f", "lavfi", "-i", "sine=duration=1")
    inputs = ("-i", tmp_path / "cover.png", *sine, *sine, "-i", tmp_path / "said.srt", "-i", base)
    tracks = [part for index in range(5) for part in ("-map", str(index))]
    ffmpeg(
        *(*inputs, *tracks, "-c:v:0", "png", "-disposition:v:0", "attached_pic", "-c:v:1", "libx264"),
        *("-c:a", "aac", "-c:s", "mov_text", tmp_path / "all.mp4"),
    )
    pictures = list(FileSource(tmp_path / "all.mp4").pictures(threading.Event()))
    assert len(pictures) == 25
    np.testing.assert_allclose([picture.timestamp for picture in pictures], [0.04 * n for n in range(25)], atol=2e-3)


def test_a_stream_without_any_stamps(base: Path, tmp_path: Path) -> None:
    ffmpeg("-i", base, *X264, "-bf", "2", tmp_path / "a.h264")
    stamps = [picture.timestamp for picture in FileSource(tmp_path / "a.h264").pictures(threading.Event())]
    np.testing.assert_allclose(stamps, [0.04 * index for index in range(25)], atol=2e-3)
    late = FileSource(tmp_path / "a.h264", start=0.4)  # it cannot be sought in
    assert next(iter(late.pictures(threading.Event()))).timestamp == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_what_a_transfer_that_broke_off_leaves(base: Path, tmp_path: Path, share) -> None:
    ffmpeg("-stream_loop", "3", "-i", base, *X264, "-bf", "0", tmp_path / "whole.ts")
    data = (tmp_path / "whole.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(data[: int(share * len(data))])
    pictures = list(FileSource(tmp_path / "cut.ts").pictures(threading.Event()))
    assert 0.5 * share * 100 <= len(pictures) <= 100
    np.testing.assert_allclose([p.timestamp for p in pictures], [0.04 * n for n in range(len(pictures))], atol=2e-3)


def test_a_codec_that_nobody_knows_is_one_line(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [0.0, 0.04])
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(SourceError, match=r"a\.mp4: this FFmpeg has no decoder for its video; convert it"):
        FileSource(path)


def test_a_part_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [0.0, 0.04])
    with pytest.raises(SourceError, match=r"a\.mp4: has no frame from second 9 on for 2; it is 0\.08 seconds long"):
        list(FileSource(path, start=9, duration=2).pictures(threading.Event()))
