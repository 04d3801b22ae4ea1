"""What a segmentation shows and saves."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.classes import CAMVID, ClassSet
from errseg_rt.frames.segmentation import PICTURES, Segmentation
from errseg_rt.kernels.fuse_labels import upsample_reference
from errseg_rt.kernels.geometry import Geometry

GRID, FRAME = (5, 7), (17, 25)
SEEN = Geometry(GRID, (20, 28), FRAME, FRAME, False)


@pytest.fixture
def result() -> Segmentation:
    rng = np.random.default_rng(0)
    return Segmentation(
        labels=rng.integers(0, len(CAMVID), FRAME).astype(np.uint8),
        error_probability=rng.random(GRID).astype(np.float32),
        flagged=rng.random(GRID) < 0.4,
        classes=CAMVID,
        geometry=SEEN,
        timings={"preprocess": 1.5, "front": 20.0, "fuse": 0.25},
        work=0.375,
    )


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*FRAME, 3), np.uint8)


def test_sums_and_shares(result: Segmentation) -> None:
    rows, cols = SEEN.seen()
    assert result.milliseconds == 21.75
    assert result.flagged_share == result.flagged.sum() / (rows * cols)
    assert (result.refined, result.left_out, result.over_threshold) == (result.flagged.sum(), 0, result.flagged.sum())
    limited = replace(result, left_out=5)
    assert (limited.refined, limited.over_threshold) == (result.refined, result.refined + 5)


@pytest.mark.parametrize(
    "geometry",
    [
        SEEN,
        Geometry(GRID, (20, 28), (20, 28), (20, 28), True),
        Geometry(GRID, (20, 28), (9, 10), (43, 50), False),  # most of the grid is padding
        Geometry(GRID, (20, 28), (20, 28), (2, 3), False),  # pixels between which grid lines lie that none is made from
        Geometry(GRID, (20, 28), (1, 28), (1, 40), True),
        Geometry((1, 1), (3, 2), (3, 2), (7, 5), False),
    ],
    ids=["padded", "aligned", "mostly_padding", "sparse", "one_row", "one_pixel"],
)
def test_expected_error_is_the_mean_over_what_the_frame_shows(result: Segmentation, geometry: Geometry) -> None:
    """By the definition of the map at frame size; what lies in the padding, or between pixels, is of no account."""
    rng = np.random.default_rng(4)
    grid_map = rng.random(geometry.grid_size).astype(np.float32)
    labels = rng.integers(0, len(CAMVID), geometry.output_size).astype(np.uint8)
    found = replace(result, geometry=geometry, error_probability=grid_map, labels=labels)
    full = upsample_reference(grid_map, geometry)  # float32
    assert found.expected_error == found.mean_error_probability == pytest.approx(full.mean(dtype=np.float64), rel=1e-6)
    counted = rng.random(geometry.output_size) < 0.6
    counted[0, 0] = True
    assert found.expected_error_where(counted) == pytest.approx(full[counted].mean(), rel=1e-5)
    assert found.expected_error_where(np.ones_like(counted)) == pytest.approx(found.expected_error, rel=1e-5)
    assert found.expected_error_where(np.zeros_like(counted)) is None
    used = [
        np.isin(np.arange(lines), np.concatenate([at.lower[at.weight < 1], at.lower[at.weight > 0] + 1]))
        for at, lines in zip((geometry.rows(), geometry.cols()), geometry.grid_size, strict=True)
    ]
    unseen = ~(used[0][:, None] & used[1])
    other = replace(found, error_probability=np.where(unseen, 1, grid_map).astype(np.float32))
    assert other.expected_error == pytest.approx(found.expected_error, rel=1e-12)


def test_expected_precision_is_what_is_right_of_a_label(result: Segmentation) -> None:
    full = upsample_reference(result.error_probability, SEEN)
    counted = np.random.default_rng(5).random(FRAME) < 0.5
    few = replace(result, labels=np.where(result.labels < 4, result.labels, 0).astype(np.uint8))
    for chosen, given in ((np.ones(FRAME, bool), None), (counted, counted)):
        wanted = {}
        for index in range(4):
            of_class = [1 - full[at] for at in zip(*np.nonzero(chosen), strict=True) if few.labels[at] == index]
            wanted[CAMVID.names[index]] = sum(of_class) / len(of_class)
        assert few.expected_precision(given) == pytest.approx(wanted, rel=1e-5)
    assert few.expected_precision(np.zeros(FRAME, bool)) == {}


@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize("size", [(17, 25), (43, 51), (97, 113)])
def test_what_is_certain_is_within_its_bounds(result: Segmentation, probability, size) -> None:
    sure = replace(
        result,
        geometry=Geometry(GRID, (20, 28), FRAME, size, True),
        error_probability=np.full(GRID, probability, np.float32),
        labels=np.zeros(size, np.uint8),
    )
    assert 0 <= sure.expected_error <= 1
    assert sure.expected_error == pytest.approx(probability)
    ((name, precision),) = sure.expected_precision().items()
    assert (name, 0 <= precision <= 1) == (CAMVID.names[0], True)
    assert precision == pytest.approx(1 - probability)


def test_without_an_error_map_nothing_is_expected(result: Segmentation) -> None:
    plain = replace(result, error_probability=None)
    assert plain.expected_error is plain.mean_error_probability is None
    assert plain.expected_error_where(np.ones(FRAME, bool)) is None
    with pytest.raises(ValueError, match="the bundle has no error map"):
        plain.expected_precision()


@pytest.mark.parametrize("counted", [np.ones((3, 3), bool), np.ones(FRAME, np.uint8)], ids=["shape", "dtype"])
def test_pixels_that_count_are_a_mask_of_the_frame(result: Segmentation, counted) -> None:
    for ask in (result.expected_error_where, result.expected_precision):
        with pytest.raises(ValueError, match=r"wanted counted bool \(17, 25\), got"):
            ask(counted)


def test_shares_are_counted_class_by_class(result: Segmentation) -> None:
    few = replace(result, labels=np.where(result.labels < 4, result.labels, 0).astype(np.uint8))
    want = {CAMVID.names[index]: float((few.labels == index).mean()) for index in range(4)}
    assert few.shares == pytest.approx(want)
    assert sum(result.shares.values()) == pytest.approx(1)


def test_repr_says_what_a_reader_looks_for(result: Segmentation) -> None:
    start, end = f"Segmentation(17x25, 11 classes, grid 5x7, {result.flagged_share:.1%} flagged", "21.8 ms)"
    assert repr(result) == f"{start}, 37.5% of the dense work, {end}"
    assert repr(replace(result, left_out=5)) == f"{start} (5 pixels left out), 37.5% of the dense work, {end}"


def test_a_reduced_frame_says_at_what_size_it_was_seen(result: Segmentation) -> None:
    assert result.scale == 1.0
    reduced = replace(result, geometry=replace(SEEN, content_size=(8, 12)))
    assert reduced.scale == pytest.approx(np.sqrt(8 / 17 * 12 / 25))
    assert repr(reduced).startswith("Segmentation(17x25 seen at 8x12, 11 classes, ")
    enlarged = replace(result, geometry=replace(SEEN, content_size=(20, 28)))
    assert enlarged.scale > 1
    assert "seen" not in repr(enlarged)


def test_an_unknown_time_is_none_and_not_zero(result: Segmentation) -> None:
    unknown = replace(result, timings={})
    assert unknown.milliseconds is None
    assert repr(unknown) == repr(result).replace(", 21.8 ms)", ")")


def test_error_map_is_the_grid_interpolated(result: Segmentation) -> None:
    # float32 against float64, of values below 1.
    np.testing.assert_allclose(result.error_map(), upsample_reference(result.error_probability, SEEN), atol=1e-6)


def test_flagged_map_is_where_flagged_grid_pixels_weigh_most(result: Segmentation) -> None:
    weight = upsample_reference(result.flagged.astype(np.float32), SEEN)
    assert result.flagged_map().dtype == np.bool_
    certain = np.abs(weight - 0.5) > 1e-6
    np.testing.assert_array_equal(result.flagged_map()[certain], (weight > 0.5)[certain])


def test_colors_are_those_of_the_classes(result: Segmentation) -> None:
    wanted = [[CAMVID.colors[label][::-1] for label in row] for row in result.labels]
    np.testing.assert_array_equal(result.colors(), np.array(wanted, np.uint8))


@pytest.mark.parametrize("view", [np.s_[:], np.s_[:, ::-1], np.s_[::2, 1::3]], ids=["whole", "mirrored", "strided"])
def test_every_id_has_the_colour_of_the_palette(result: Segmentation, view) -> None:
    rng = np.random.default_rng(2)
    classes = ClassSet(tuple(map(str, range(200))), tuple(map(tuple, rng.integers(0, 256, (200, 3)).tolist())))
    labels = np.tile(np.arange(256, dtype=np.uint8).reshape(16, 16), (3, 5))[view]
    colors = replace(result, labels=labels, classes=classes).colors()
    np.testing.assert_array_equal(colors, classes.palette_bgr()[labels])
    assert (colors.dtype, colors.flags.c_contiguous) == (np.uint8, True)


def test_heat_goes_from_black_over_red_to_white(result: Segmentation) -> None:
    result.error_probability[:] = np.linspace(0, 1, GRID[1], dtype=np.float32)
    heat, levels = result.heat(), np.rint(result.error_map() * 255).astype(int)
    assert heat.shape == (*FRAME, 3)
    assert heat.dtype == np.uint8
    brightness = {int(level): heat[levels == level].sum(1) for level in np.unique(levels)}
    assert all((values == values[0]).all() for values in brightness.values())
    assert (np.diff([values[0] for _, values in sorted(brightness.items())]) >= 0).all()
    result.error_probability[:] = 0
    assert (result.heat() <= 10).all()
    result.error_probability[:] = 1
    assert (result.heat() >= 245).all()
    result.error_probability[:] = 0.3
    blue, green, red = result.heat()[0, 0].astype(int)
    assert red > 150 > 100 > max(blue, green)


@pytest.mark.parametrize("color", ["bgr", "rgb"])
@pytest.mark.parametrize("opacity", [0.0, 0.3, 1.0])
def test_overlay_is_the_weighted_mean(result: Segmentation, picture, opacity, color) -> None:
    colors = result.colors() if color == "bgr" else result.colors()[..., ::-1]
    wanted = (1 - opacity) * picture + opacity * colors.astype(np.float64)
    given = result.overlay(picture, opacity, color)
    assert given.dtype == np.uint8
    # Rounded to whole numbers.
    np.testing.assert_allclose(given, wanted, rtol=0, atol=0.5 + 1e-4)


@pytest.mark.parametrize(
    ("frame", "opacity", "color", "message"),
    [
        (np.zeros((17, 24, 3), np.uint8), 0.5, "bgr", r"uint8 \(17, 25, 3\), got uint8 \(17, 24, 3\)"),
        (np.zeros((17, 25), np.uint8), 0.5, "bgr", r"got uint8 \(17, 25\)"),
        (np.zeros((17, 25, 3), np.float32), 0.5, "bgr", "got float32"),
        (np.zeros((17, 25, 3), np.uint8), 1.1, "bgr", "opacity = 1.1"),
        (np.zeros((17, 25, 3), np.uint8), -0.1, "bgr", "opacity = -0.1"),
        (np.zeros((17, 25, 3), np.uint8), 0.5, "hsv", "color = 'hsv'"),
    ],
    ids=["size", "rank", "dtype", "opacity_above", "opacity_below", "color"],
)
def test_overlay_refuses(result: Segmentation, frame, opacity, color, message) -> None:
    with pytest.raises(ValueError, match=message):
        result.overlay(frame, opacity, color)


def test_save_writes_what_is_shown(result: Segmentation, picture, tmp_path: Path) -> None:
    paths = result.save(tmp_path / "new" / "folder", "deep/a.b", picture)
    wanted = {
        "labels": result.labels,
        "colors": result.colors(),
        "error": result.heat(),
        "overlay": result.overlay(picture),
    }
    assert paths.keys() == wanted.keys()
    for what, pixels in wanted.items():
        assert paths[what] == tmp_path / "new" / "folder" / "deep" / f"a.b_{what}.png"
        np.testing.assert_array_equal(cv2.imread(str(paths[what]), cv2.IMREAD_UNCHANGED), pixels)
    assert sorted(tmp_path.rglob("*.*")) == sorted(paths.values())


def test_save_without_a_frame_writes_no_overlay(result: Segmentation, tmp_path: Path) -> None:
    assert result.save(str(tmp_path)).keys() == {"labels", "colors", "error"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "frame_colors.png", "frame_error.png", "frame_labels.png"
    ]  # fmt: skip


def test_a_failed_save_leaves_the_old_file(result: Segmentation, tmp_path: Path) -> None:
    old = result.save(tmp_path)["labels"].read_bytes()
    with file_size_limit(len(old) // 2), pytest.raises(OSError, match=r"File too large: '.*frame_labels\.png'"):
        result.save(tmp_path)
    assert (tmp_path / "frame_labels.png").read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 3


@contextmanager
def file_size_limit(most: int) -> Iterator[None]:
    """The system itself refuses to write longer files, as it does on a disk that is full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems want names to be Unicode")
def test_names_of_any_bytes(result: Segmentation, picture, tmp_path: Path) -> None:
    folder, name = tmp_path / os.fsdecode(b"caf\xe9"), os.fsdecode(b"\xff\xfe")
    paths = result.save(folder, name, picture)
    assert sorted(os.listdir(os.fsencode(folder))) == sorted(
        b"\xff\xfe_" + what.encode() + b".png" for what in PICTURES
    )
    read = cv2.imdecode(np.frombuffer(paths["labels"].read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read, result.labels)


def test_names_as_long_as_they_may_be(result: Segmentation, tmp_path: Path) -> None:
    name = "x" * (255 - len("_labels.png"))
    assert result.save(tmp_path, name)["labels"].exists()
    with pytest.raises(OSError, match="too long"):
        result.save(tmp_path, name + "x")


@pytest.mark.parametrize(
    ("names", "colors", "message"),
    [
        (("a",), ((0, 0, 0),), "2 to 255 classes, got 1"),
        (("a",) * 256, ((0, 0, 0),) * 256, "2 to 255 classes, got 256"),
        (("a", "b"), ((0, 0, 0),), "2 class names but 1 colours"),
        (("a", "b"), ((0, 0, 0), (0, 0, 256)), "three numbers in 0..255"),
        (("a", "b"), ((0, 0, 0), (0, 0)), "three numbers in 0..255"),
    ],
    ids=["one", "too_many", "unpaired", "range", "two_parts"],
)
def test_class_sets_that_are_none(names, colors, message) -> None:
    with pytest.raises(ValueError, match=message):
        ClassSet(names, colors)


def test_ids_without_a_class_are_black() -> None:
    palette = ClassSet(("a", "b"), ((1, 2, 3), (4, 5, 6))).palette_bgr()
    assert palette[:2].tolist() == [[3, 2, 1], [6, 5, 4]]
    assert palette.shape == (256, 3)
    assert not palette[2:].any()


@pytest.mark.parametrize("frame", [None, [[0]], "a.png"])
def test_what_is_no_frame_has_no_overlay(result: Segmentation, frame) -> None:
    with pytest.raises(ValueError, match="wanted a frame uint8"):
        result.overlay(frame)
