import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from threading import Barrier

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errseg_rt.kernels import Geometry, fuse_labels, fuse_labels_reference, upsample, upsample_reference
from errseg_rt.kernels.fuse_labels import reference as reference_module
from errseg_rt.kernels.fuse_labels.cpu import fuse_labels as fuse_labels_on_cpu

cpu = import_module("errseg_rt.kernels.fuse_labels.cpu")

# Probabilities are at most 1 and pass through some twenty float32 operations of relative error 6e-8 each.
ROUNDING = 1e-5

GEOMETRIES = {
    "stride4_aligned": Geometry((9, 17), (33, 65), (33, 65), (33, 65), True),
    "stride4_half_pixel": Geometry((9, 17), (36, 68), (36, 68), (36, 68), False),
    "ceil_aligned": Geometry((9, 16), (34, 61), (34, 61), (34, 61), True),
    "ceil_half_pixel": Geometry((9, 16), (34, 61), (34, 61), (34, 61), False),
    "padded_aligned": Geometry((8, 12), (32, 48), (27, 41), (27, 41), True),
    "padded_half_pixel": Geometry((8, 12), (32, 48), (27, 41), (27, 41), False),
    "frame_larger_aligned": Geometry((7, 11), (28, 44), (25, 43), (71, 97), True),
    "frame_larger_half_pixel": Geometry((7, 11), (28, 44), (25, 43), (71, 97), False),
    "frame_smaller_aligned": Geometry((23, 31), (92, 124), (90, 119), (13, 19), True),
    "frame_smaller_half_pixel": Geometry((23, 31), (92, 124), (90, 119), (13, 19), False),
    "coarser_than_grid": Geometry((40, 40), (160, 160), (160, 160), (5, 7), False),
    "one_pixel_grid_aligned": Geometry((1, 1), (4, 4), (3, 4), (3, 5), True),
    "one_pixel_grid_half_pixel": Geometry((1, 1), (4, 4), (3, 4), (3, 5), False),
    "one_row_aligned": Geometry((1, 9), (1, 33), (1, 33), (1, 33), True),
    "one_row_half_pixel": Geometry((1, 9), (4, 36), (4, 35), (6, 35), False),
    "one_column_aligned": Geometry((9, 1), (33, 3), (33, 3), (33, 3), True),
    "one_column_half_pixel": Geometry((9, 1), (36, 4), (30, 2), (41, 1), False),
    "two_by_two": Geometry((2, 2), (8, 8), (7, 8), (9, 5), True),
    "one_pixel_frame": Geometry((5, 6), (20, 24), (19, 24), (1, 1), False),
}
every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())


def blobs(rng, classes, size, gain=4.0):
    """Smooth random logits with some noise: large regions, winding boundaries."""
    height, width = size
    coarse = rng.standard_normal((classes, max(height // 6, 1), max(width // 6, 1))).astype(np.float32)
    smooth = [cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) for field in coarse]
    noise = rng.normal(size=(classes, height, width), scale=0.3)
    return (gain * np.reshape(smooth, noise.shape) + noise).astype(np.float32)


def operands(geometry, classes, dtype=np.float32, share=0.3, seed=0):
    rng = np.random.default_rng([seed, classes, *geometry.grid_size])
    semantic = blobs(rng, classes, geometry.grid_size).astype(dtype)
    detail = blobs(rng, classes, geometry.grid_size).astype(dtype)
    return semantic, detail, rng.random(geometry.grid_size) < share


def as_rows(detail, flagged, seed=0):
    """The flagged pixels' logits as rows, in a random order and among rows that nothing uses, and their index."""
    pixels = np.flatnonzero(flagged)
    rng = np.random.default_rng([seed, *flagged.shape])
    places = rng.permutation(len(pixels) + 3)[: len(pixels)].astype(np.int32)
    rows = np.full((len(pixels) + 3, len(detail)), np.nan, detail.dtype)
    rows[places] = detail.reshape(len(detail), -1)[:, pixels].T
    index = np.full(flagged.shape, -1, np.int32)
    index.ravel()[pixels] = places
    return rows, index


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def class_map(semantic, detail, flagged):
    """Return the selected probabilities on the grid, float64 [C, h, w]."""
    return softmax(semantic) if detail is None else np.where(flagged, softmax(detail), softmax(semantic))


def probability_of(labels, grid_map, geometry):
    """Interpolate the probability of each pixel's own label, in float64 and pixel by pixel."""
    (height, width), rows, cols = geometry.grid_size, geometry.rows(), geometry.cols()
    top, left = rows.lower[:, None], cols.lower[None, :]
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = rows.weight[:, None], cols.weight[None, :]
    upper = grid_map[labels, top, left] * (1 - across) + grid_map[labels, top, right] * across
    lower = grid_map[labels, bottom, left] * (1 - across) + grid_map[labels, bottom, right] * across
    return upper * (1 - down) + lower * down


def assert_same_labels(labels, wanted, grid_map, geometry):
    """Labels may differ only where two classes tie within rounding, and on one pixel in 100,000 (or just one)."""
    assert labels.dtype == wanted.dtype == np.uint8
    assert labels.shape == wanted.shape == geometry.output_size
    assert int(labels.max()) < len(grid_map)
    differs = labels != wanted
    gap = probability_of(wanted, grid_map, geometry) - probability_of(labels, grid_map, geometry)
    assert np.abs(gap[differs]).max(initial=0) < ROUNDING
    assert differs.sum() <= max(1, labels.size // 100_000)


def assert_equals_reference(semantic, detail, flagged, geometry, threads=1):
    wanted = fuse_labels_reference(semantic, detail, flagged, geometry, confidence=True)
    grid_map = class_map(semantic, detail, flagged)
    plain = fuse_labels(semantic, detail, flagged, geometry, threads=threads)
    assert plain.confidence is None
    assert_same_labels(plain.labels, wanted.labels, grid_map, geometry)
    full = fuse_labels(semantic, detail, flagged, geometry, confidence=True, threads=threads)
    assert full.confidence.dtype == np.float32
    np.testing.assert_array_equal(full.labels, plain.labels)
    np.testing.assert_allclose(full.confidence, wanted.confidence, rtol=0, atol=ROUNDING)
    if detail is None:
        return
    as_given = fuse_labels(semantic, *as_rows(detail, flagged), geometry, confidence=True, threads=threads)
    np.testing.assert_array_equal(as_given.labels, full.labels)
    np.testing.assert_array_equal(as_given.confidence, full.confidence)


# The definition, against others' code and by hand.


@pytest.mark.parametrize("align_corners", [True, False], ids=["aligned", "half_pixel"])
@pytest.mark.parametrize(
    ("grid", "size"), [((9, 17), (33, 65)), ((8, 12), (32, 47)), ((6, 5), (6, 5)), ((12, 9), (5, 7))], ids=str
)
def test_reference_equals_torch_interpolate(grid, size, align_corners):
    torch = pytest.importorskip("torch")
    geometry = Geometry(grid, size, size, size, align_corners)
    semantic, detail, flagged = operands(geometry, classes=7)
    first, second = (torch.softmax(torch.from_numpy(x).double(), 0) for x in (semantic, detail))
    selected = torch.where(torch.from_numpy(flagged), second, first)[None]
    full = torch.nn.functional.interpolate(selected, size=size, mode="bilinear", align_corners=align_corners)[0]
    fused = fuse_labels_reference(semantic, detail, flagged, geometry, confidence=True)
    np.testing.assert_allclose(fused.confidence, full.amax(0).numpy(), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(fused.labels, full.argmax(0).numpy())
    one = upsample_reference(semantic[0], geometry)
    single = torch.from_numpy(semantic[:1]).double()[None]
    expected = torch.nn.functional.interpolate(single, size=size, mode="bilinear", align_corners=align_corners)
    np.testing.assert_allclose(one, expected[0, 0].numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(97, 71), (13, 19), (24, 36)], ids=str)
def test_reference_undoes_the_resize_as_opencv_does(size):
    # At stride 1 the grid is the input, so that fusion is cv2.resize of the content alone.
    content = (24, 36)
    geometry = Geometry((30, 40), (30, 40), content, size, False)
    grid_map = np.random.default_rng(1).random((30, 40)).astype(np.float32)
    wanted = cv2.resize(grid_map[: content[0], : content[1]], size[::-1], interpolation=cv2.INTER_LINEAR)
    # OpenCV rounds positions to float32: 1e-5 of a pixel at a slope below 1 a pixel.
    np.testing.assert_allclose(upsample_reference(grid_map, geometry), wanted, rtol=0, atol=2e-5)


def test_taps_by_hand_with_scale_padding_and_alignment():
    # Four frame pixels lie at content -0.25, 0.25, 0.75, 1.25, clamped to [0, 1]; five input pixels, three grid lines.
    aligned = Geometry((3, 3), (5, 5), (2, 2), (4, 4), True).rows()
    np.testing.assert_array_equal(aligned.lower, [0, 0, 0, 0])
    np.testing.assert_allclose(aligned.weight, [0, 0.125, 0.375, 0.5])
    half_pixel = Geometry((3, 3), (6, 6), (2, 2), (4, 4), False).cols()
    np.testing.assert_array_equal(half_pixel.lower, [0, 0, 0, 0])
    np.testing.assert_allclose(half_pixel.weight, [0, 0, 0.125, 0.25])
    identity = Geometry((5, 5), (5, 5), (5, 5), (5, 5), True).cols()
    np.testing.assert_array_equal(identity.lower, [0, 1, 2, 3, 3])
    np.testing.assert_array_equal(identity.weight, [0, 0, 0, 0, 1])
    assert identity.lower.dtype == np.int32
    assert identity.weight.dtype == np.float64


@every_geometry
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_reference_takes_rows_as_it_takes_a_map(geometry, dtype):
    semantic, detail, flagged = operands(geometry, 7, dtype)
    by_map = fuse_labels_reference(semantic, detail, flagged, geometry, confidence=True)
    by_rows = fuse_labels_reference(semantic, *as_rows(detail, flagged), geometry, confidence=True)
    np.testing.assert_array_equal(by_rows.labels, by_map.labels)
    np.testing.assert_array_equal(by_rows.confidence, by_map.confidence)


def in_floats(geometry, axis):
    """Where the output pixels of one axis lie on the grid, step by step and in float64."""
    sizes = (geometry.grid_size, geometry.input_size, geometry.content_size, geometry.output_size)
    grid, padded, content, output = (size[axis] for size in sizes)
    position = np.clip((np.arange(output) + 0.5) * content / output - 0.5, 0, content - 1)
    if geometry.align_corners:
        position = position * (grid - 1) / max(padded - 1, 1)
    else:
        position = (position + 0.5) * grid / padded - 0.5
    return np.clip(position, 0, grid - 1)


@given(data=st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_whole_numbers_say_what_floats_say(data):
    grid, padded, output = (data.draw(st.integers(1, 300)) for _ in range(3))
    content = data.draw(st.one_of(st.integers(1, padded), st.just(min(padded, output))))
    sizes = ((n, n) for n in (grid, padded, content, output))
    geometry = Geometry(*sizes, align_corners=data.draw(st.booleans()))
    rows = geometry.rows()
    np.testing.assert_allclose(rows.lower + rows.weight, in_floats(geometry, 0), rtol=0, atol=1e-9)
    assert geometry.seen()[0] == (rows.lower + (rows.weight > 0)).max() + 1
    first, last = geometry.axes()[0].cells()
    assert (rows.lower.min(), rows.lower.max()) == (first, last) or (
        first <= rows.lower.min() <= rows.lower.max() <= last
    )


@every_geometry
def test_taps_lie_on_the_grid_in_order(geometry):
    for taps, lines, pixels in zip(
        (geometry.rows(), geometry.cols()), geometry.grid_size, geometry.output_size, strict=True
    ):
        assert len(taps.lower) == len(taps.weight) == pixels
        assert taps.lower.min() >= 0
        assert taps.lower.max() <= max(lines - 2, 0)
        assert (np.diff(taps.lower) >= 0).all()
        assert (taps.weight >= 0).all()
        assert (taps.weight <= (1 if lines > 1 else 0)).all()


def test_reference_bands_do_not_show(monkeypatch):
    geometry = GEOMETRIES["frame_larger_aligned"]
    inputs = operands(geometry, classes=5)
    whole = fuse_labels_reference(*inputs, geometry, confidence=True)
    monkeypatch.setattr(reference_module, "BAND_ELEMENTS", 5 * 97 * 4)
    banded = fuse_labels_reference(*inputs, geometry, confidence=True)
    np.testing.assert_array_equal(banded.labels, whole.labels)
    np.testing.assert_array_equal(banded.confidence, whole.confidence)


# The CPU kernel, against the definition.


@every_geometry
@pytest.mark.parametrize("classes", [2, 3, 11, 19, 255])
def test_labels_equal_reference(geometry, classes):
    assert_equals_reference(*operands(geometry, classes), geometry)


@every_geometry
def test_labels_equal_reference_in_half_precision(geometry):
    assert_equals_reference(*operands(geometry, 11, np.float16), geometry)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("flags", ["without", "none", "all", "corners"])
@pytest.mark.parametrize(
    "name", ["padded_aligned", "padded_half_pixel", "one_row_half_pixel", "one_pixel_grid_aligned"]
)
def test_labels_equal_reference_for_every_mask(name, flags, dtype):
    geometry = GEOMETRIES[name]
    semantic, detail, flagged = operands(geometry, 11, dtype)
    if flags == "without":
        return assert_equals_reference(semantic, None, None, geometry)
    flagged[:] = flags == "all"
    if flags == "corners":
        flagged[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    assert_equals_reference(semantic, detail, flagged, geometry)
    if flags in ("none", "all"):
        alone = fuse_labels(semantic if flags == "none" else detail, None, None, geometry)
        np.testing.assert_array_equal(fuse_labels(semantic, detail, flagged, geometry).labels, alone.labels)
    return None


@pytest.mark.parametrize("threads", [1, 2, 3, 200])
@pytest.mark.parametrize("name", ["padded_aligned", "frame_smaller_half_pixel", "one_row_aligned"])
def test_threads_do_not_change_the_result(monkeypatch, name, threads):
    monkeypatch.setattr(cpu, "LOGITS_OF_A_THREAD", 1)  # however little there is to do
    geometry = GEOMETRIES[name]
    inputs = operands(geometry, classes=7)
    one = fuse_labels(*inputs, geometry, confidence=True)
    many = fuse_labels(*inputs, geometry, confidence=True, threads=threads)
    np.testing.assert_array_equal(many.labels, one.labels)
    np.testing.assert_array_equal(many.confidence, one.confidence)
    assert_equals_reference(*inputs, geometry, threads=threads)


@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_labels_equal_reference_for_any_geometry(data):
    size = st.tuples(st.integers(1, 40), st.integers(1, 40))
    padded = data.draw(size)
    geometry = Geometry(
        grid_size=data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12))),
        input_size=padded,
        content_size=data.draw(st.tuples(*(st.integers(1, n) for n in padded))),
        output_size=data.draw(size),
        align_corners=data.draw(st.booleans()),
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = (data.draw(st.integers(2, 9)), *geometry.grid_size)
    gain = data.draw(st.sampled_from([0.1, 1, 30]))
    semantic, detail = (gain * rng.standard_normal((2, *shape))).astype(np.float32)
    flagged = rng.random(geometry.grid_size) < 0.5
    assert_equals_reference(semantic, detail, flagged, geometry, threads=data.draw(st.integers(1, 3)))
    np.testing.assert_allclose(
        upsample(detail[0], geometry), upsample_reference(detail[0], geometry), rtol=1e-5, atol=1e-5 * gain
    )


def test_whole_frame_equals_reference():
    geometry = Geometry((65, 129), (260, 516), (257, 513), (600, 1001), False)
    assert_equals_reference(*operands(geometry, 19), geometry, threads=2)


@pytest.mark.parametrize("label", [0, 7, 254])
def test_uniform_map_has_one_label_everywhere(label):
    geometry = GEOMETRIES["frame_larger_half_pixel"]
    semantic = np.zeros((255, *geometry.grid_size), np.float32)
    semantic[label] = 100
    fused = fuse_labels(semantic, None, None, geometry, confidence=True)
    assert (fused.labels == label).all()
    assert (fused.confidence == 1).all()


@every_geometry
@pytest.mark.parametrize("fuse", [fuse_labels, fuse_labels_reference])
def test_ties_go_to_the_lowest_class(geometry, fuse):
    level = np.full((6, *geometry.grid_size), 0.37, np.float32)
    assert (fuse(level, None, None, geometry).labels == 0).all()
    level[:2] = -3
    assert (fuse(level, None, None, geometry).labels == 2).all()


@pytest.mark.parametrize("fuse", [fuse_labels, fuse_labels_reference])
def test_ties_on_a_boundary_go_to_the_lowest_class(fuse):
    # Two classes change places over one cell of four pixels; they tie at its middle line exactly.
    geometry = Geometry((2, 2), (5, 5), (5, 5), (5, 5), True)
    semantic = np.zeros((4, 2, 2), np.float32)
    semantic[3, :, 0] = semantic[1, :, 1] = 50
    np.testing.assert_array_equal(fuse(semantic, None, None, geometry).labels, [[3, 3, 1, 1, 1]] * 5)


def test_a_third_class_can_win_inside_a_cell():
    geometry = Geometry((1, 2), (1, 9), (1, 9), (1, 9), True)
    probabilities = np.array([[0.52, 0.0], [0.0, 0.52], [0.48, 0.48]])
    semantic = np.log(probabilities + 1e-30).astype(np.float32)[:, None]
    np.testing.assert_array_equal(fuse_labels(semantic, None, None, geometry).labels, [[0] + [2] * 7 + [1]])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_masked_and_extreme_logits(dtype):
    geometry = GEOMETRIES["padded_half_pixel"]
    semantic, detail, flagged = operands(geometry, 5, dtype)
    detail *= 400
    semantic[1] = -np.inf
    semantic[2] = np.finfo(dtype).smallest_subnormal
    semantic[3, ::2] = np.finfo(dtype).max
    assert_equals_reference(semantic, detail, flagged, geometry)


def test_every_half_precision_number_is_read_exactly():
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    values = np.sort(values[np.isfinite(values)])
    # Neighbouring numbers as the logits of two classes: the larger one must win.
    pairs = np.stack([values[:-1], values[1:]])[:, None]
    geometry = Geometry(pairs.shape[1:], pairs.shape[1:], pairs.shape[1:], pairs.shape[1:], True)
    labels = fuse_labels(pairs, None, None, geometry).labels[0]
    np.testing.assert_array_equal(labels, (pairs[1, 0] > pairs[0, 0]).astype(np.uint8))
    confidence = fuse_labels(pairs, None, None, geometry, confidence=True).confidence[0]
    wanted = 1 / (1 + np.exp(pairs[0, 0].astype(np.float64) - pairs[1, 0]))
    np.testing.assert_allclose(confidence, wanted, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("layout", ["map", "rows"])
def test_read_only_operands_need_no_kernel_of_their_own(dtype, layout):
    from errseg_rt.kernels.fuse_labels import loops

    geometry = GEOMETRIES["padded_aligned"]
    semantic, detail, flagged = operands(geometry, 5, dtype)
    inputs = (semantic, *(as_rows(detail, flagged) if layout == "rows" else (detail, flagged)))
    wanted = fuse_labels(*inputs, geometry, confidence=True)
    kernels = (loops.fuse_rows, loops.certainty_rows, loops.upsample_rows, loops.widen)
    compiled = [len(kernel.signatures) for kernel in kernels]
    for x in inputs:
        x.setflags(write=False)
    again = fuse_labels(*inputs, geometry, error=semantic[0], confidence=True)
    np.testing.assert_array_equal(again.labels, wanted.labels)
    np.testing.assert_array_equal(again.confidence, wanted.confidence)
    assert [len(kernel.signatures) for kernel in kernels] == compiled


def test_inputs_are_left_alone():
    geometry = GEOMETRIES["padded_aligned"]
    inputs = operands(geometry, classes=5)
    copies = [x.copy() for x in inputs]
    for x in inputs:
        x.setflags(write=False)
    fuse_labels(*inputs, geometry, confidence=True)
    for x, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


def test_four_threads_at_once():
    geometry = GEOMETRIES["frame_larger_aligned"]
    inputs = [operands(geometry, classes=19, seed=seed) for seed in range(4)]
    wanted = [fuse_labels(*x, geometry, confidence=True) for x in inputs]
    start = Barrier(4)

    def work(k):
        start.wait()
        return [fuse_labels(*inputs[k], geometry, confidence=True, threads=2) for _ in range(20)]

    with ThreadPoolExecutor(4) as pool:
        for results, one in zip(pool.map(work, range(4)), wanted, strict=True):
            for result in results:
                np.testing.assert_array_equal(result.labels, one.labels)
                np.testing.assert_array_equal(result.confidence, one.confidence)


@every_geometry
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_upsample_equals_reference(geometry, dtype):
    grid_map = np.random.default_rng(5).random(geometry.grid_size).astype(dtype)
    wanted = upsample_reference(grid_map, geometry)
    semantic, detail, flagged = operands(geometry, 3)
    for fuse in (fuse_labels, fuse_labels_reference):
        fused = fuse(semantic, detail, flagged, geometry, error=grid_map)
        assert (fused.error.dtype, fused.confidence) == (np.float32, None)
        np.testing.assert_allclose(fused.error, wanted, rtol=0, atol=ROUNDING)
    for threads in (1, 3):
        full = upsample(grid_map, geometry, threads)
        assert full.dtype == np.float32
        np.testing.assert_allclose(full, wanted, rtol=0, atol=ROUNDING)


# What is refused.

SQUARE = Geometry((3, 4), (12, 16), (12, 16), (12, 16), False)
GOOD = np.zeros((5, 3, 4), np.float32)
MASK = np.zeros((3, 4), np.bool_)
ROWS, INDEX = np.zeros((6, 5), np.float32), np.full((3, 4), -1, np.int32)
FLOATS = "float32 or float16"

REFUSED = {
    "rank_2": (GOOD[0], None, None, rf"semantic must be {FLOATS} \[C, 3, 4\], got float32 \[3, 4\]"),
    "rank_4": (GOOD[None], None, None, rf"semantic must be {FLOATS} \[C, 3, 4\], got float32 \[1, 5, 3, 4\]"),
    "float64": (GOOD.astype(np.float64), None, None, rf"semantic must be {FLOATS} .*, got float64"),
    "bytes_swapped": (GOOD.astype(">f4"), None, None, "got >f4"),
    "one_class": (GOOD[:1], None, None, "2 to 255 classes, got 1"),
    "too_many_classes": (np.zeros((256, 3, 4), np.float32), None, None, "2 to 255 classes, got 256"),
    "off_the_grid": (GOOD[:, :2], None, None, r"\[C, 3, 4\], got float32 \[5, 2, 4\]"),
    "not_contiguous": (GOOD[:, ::-1], None, None, r"semantic must be C-contiguous, got strides \(12, -4, 1\)"),
    "a_list": (GOOD.tolist(), None, None, "semantic must be a NumPy array or a CUDA tensor, got list"),
    "no_mask": (GOOD, GOOD, None, "got detail, but flagged is None"),
    "no_detail": (GOOD, None, MASK, "got flagged, but detail is None"),
    "detail_classes": (GOOD, GOOD[:4], MASK, r"detail must be float32 \[5, 3, 4\], got float32 \[4, 3, 4\]"),
    "detail_dtype": (GOOD, GOOD.astype(np.float16), MASK, "detail must be float32 .*, got float16"),
    "detail_strides": (GOOD, GOOD.transpose(0, 2, 1).copy().transpose(0, 2, 1), MASK, "detail must be C-contiguous"),
    "mask_size": (GOOD, GOOD, MASK[:, :3], r"flagged must be bool \[3, 4\], got bool \[3, 3\]"),
    "mask_dtype": (GOOD, GOOD, MASK.astype(np.uint8), "flagged must be bool .*, got uint8"),
    "map_with_index": (GOOD, GOOD, INDEX, "flagged must be bool .*, got int32"),
    "rows_with_mask": (GOOD, ROWS, MASK, "flagged must be int32 .*, got bool"),
    "index_dtype": (GOOD, ROWS, INDEX.astype(np.int64), "flagged must be int32 .*, got int64"),
    "row_classes": (GOOD, ROWS[:, :4], INDEX, r"detail must be float32 \[5, 3, 4\], got float32 \[6, 4\]"),
    "row_dtype": (GOOD, ROWS.astype(np.float16), INDEX, r"detail must be float32 \[n, 5\], got float16"),
    "row_beyond": (GOOD, ROWS, INDEX + 7, "flagged must hold rows of detail, -1 to 5, got 6"),
    "row_below": (GOOD, ROWS, INDEX - 1, "flagged must hold rows of detail, -1 to 5, got -2"),
}


@pytest.mark.parametrize("fuse", [fuse_labels, fuse_labels_reference])
@pytest.mark.parametrize(("semantic", "detail", "flagged", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_operands_are_named(fuse, semantic, detail, flagged, message):
    with pytest.raises(ValueError, match=message):
        fuse(semantic, detail, flagged, SQUARE)


@pytest.mark.parametrize("fuse", [fuse_labels, fuse_labels_reference])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_errors_must_be_finite(fuse, value):
    error = np.zeros((3, 4), np.float32)
    error[1, 2] = value
    with pytest.raises(ValueError, match=rf"error must be finite, got {value} at \(1, 2\)"):
        fuse(GOOD, None, None, SQUARE, error=error)
    with pytest.raises(ValueError, match=r"error must be float32 or float16 \[3, 4\], got float32 \[4, 3\]"):
        fuse(GOOD, None, None, SQUARE, error=error.T)


@pytest.mark.parametrize("function", [upsample, upsample_reference])
def test_bad_maps_are_named(function):
    with pytest.raises(ValueError, match=r"grid_map must be float32 or float16 \[3, 4\], got float32 \[5, 3, 4\]"):
        function(GOOD, SQUARE)
    with pytest.raises(ValueError, match="got bool"):
        function(MASK, SQUARE)


def test_a_geometry_is_wanted():
    with pytest.raises(ValueError, match="geometry must be a Geometry, got tuple"):
        fuse_labels(GOOD, None, None, (12, 16))


def test_tensors_of_the_cpu_are_refused_and_kinds_are_not_mixed():
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    tensor = torch.from_numpy(GOOD)
    with pytest.raises(ValueError, match="on an NVIDIA GPU, got cpu; on the CPU, give NumPy arrays"):
        fuse_labels(tensor, None, None, SQUARE)
    with pytest.raises(ValueError, match=r"detail must lie where the other operands do \(NumPy\), got cpu"):
        fuse_labels(GOOD, tensor, MASK, SQUARE)
    with pytest.raises(ValueError, match=r"flagged must lie where the other operands do \(cpu\), got NumPy"):
        fuse_labels(tensor, tensor, MASK, SQUARE)


@pytest.mark.parametrize("threads", [0, -2])
def test_bad_threads_are_named(threads):
    with pytest.raises(ValueError, match=f"at least 1, got {threads}"):
        fuse_labels(GOOD, None, None, SQUARE, threads=threads)
    with pytest.raises(ValueError, match=f"at least 1, got {threads}"):
        upsample(GOOD[0], SQUARE, threads)


@pytest.mark.parametrize("name", ["grid_size", "input_size", "content_size", "output_size"])
@pytest.mark.parametrize("size", [(0, 4), (4, -1), (4,), (4, 4, 4), (4.0, 4), [4, 4], (True, 4)], ids=str)
def test_bad_sizes_are_named(name, size):
    sizes = dict.fromkeys(("grid_size", "input_size", "content_size", "output_size"), (4, 4)) | {name: size}
    with pytest.raises(ValueError, match=f"^{name} must be a tuple .* of positive ints, got"):
        Geometry(**sizes, align_corners=True)


@pytest.mark.parametrize("content", [(9, 8), (8, 9)])
def test_content_must_fit_in_the_input(content):
    with pytest.raises(ValueError, match=r"content_size = \((9, 8|8, 9)\) is larger than self.input_size = \(8, 8\)"):
        Geometry((2, 2), (8, 8), content, (8, 8), False)


# The packages.


def test_importing_kernels_does_not_import_numba():
    script = """
import sys
import errseg_rt.kernels
assert "numpy" not in sys.modules, "numpy"
from errseg_rt.kernels import Geometry, FusedLabels, fuse_labels_reference, select_reference, upsample_reference
from errseg_rt.kernels.geometry import Geometry as same
assert Geometry is same
assert not {"numba", "torch", "triton"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_functions_are_named_as_their_folders():
    script = """
import errseg_rt.kernels.fuse_labels.cpu, errseg_rt.kernels.select.cpu, errseg_rt.kernels.preprocess.cpu
import errseg_rt.kernels.select.reference
from errseg_rt.kernels import fuse_labels, preprocess, select
from errseg_rt.kernels.fuse_labels import fuse_labels as same
assert callable(fuse_labels) and callable(preprocess) and callable(select)
assert fuse_labels is same
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_dispatcher_hands_on_every_argument():
    geometry = GEOMETRIES["padded_aligned"]
    inputs = operands(geometry, classes=5)
    error = inputs[0][1]
    dispatched = fuse_labels(*inputs, geometry, error=error, confidence=True, threads=2)
    direct = fuse_labels_on_cpu(*inputs, geometry, error=error, confidence=True, threads=2)
    for one, other in zip(vars(dispatched).values(), vars(direct).values(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("package", ["errseg_rt.kernels", "errseg_rt.kernels.fuse_labels"])
def test_every_name_resolves_and_unknown_ones_are_refused(package):
    module, name = import_module(package), "nonesuch"
    for known in module.__all__:
        assert getattr(module, known).__name__ == known
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute '{name}'"):
        getattr(module, name)
