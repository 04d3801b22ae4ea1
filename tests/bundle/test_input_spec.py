"""Sizes of the network's input, against their definition."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.input_spec import InputSpec

FRAMES = [(1, 1), (1, 300), (17, 33), (96, 128), (359, 481), (720, 960), (1025, 2049)]
frames = pytest.mark.parametrize("frame", FRAMES, ids=lambda size: f"{size[0]}x{size[1]}")


def smallest_padded(side: int, multiple: int, extra: int) -> int:
    """By trial: the first n * multiple + extra, n at least 1, that is not below the side."""
    return next(n * multiple + extra for n in itertools.count(1) if n * multiple + extra >= side)


@frames
@pytest.mark.parametrize("plus_one", [False, True], ids=["whole", "plus_one"])
@pytest.mark.parametrize("multiple", [1, 7, 16, 32])
def test_input_is_the_smallest_allowed_size_that_holds_the_content(frame, multiple, plus_one) -> None:
    spec = InputSpec(scale=1.0, multiple=multiple, plus_one=plus_one)
    assert spec.content_size(frame) == frame
    assert spec.input_size(frame) == tuple(smallest_padded(side, multiple, int(plus_one)) for side in frame)


def test_examples_of_the_design() -> None:
    assert InputSpec(multiple=16, plus_one=True).input_size((1025, 2049)) == (1025, 2049)
    assert InputSpec(multiple=16).input_size((1025, 2049)) == (1040, 2064)


@frames
@pytest.mark.parametrize("scale", [0.01, 0.5, 1.5, 2.0])
def test_content_is_the_scaled_frame_and_never_empty(frame, scale) -> None:
    assert InputSpec(scale=scale).content_size(frame) == tuple(max(1, round(side * scale)) for side in frame)


@frames
def test_enlarging_stops_at_the_limit(frame) -> None:
    limit = 100_000
    height, width = InputSpec(scale=2.0, enlarge_up_to=limit).content_size(frame)
    pixels = frame[0] * frame[1]
    if pixels >= limit:
        assert (height, width) == frame
    elif 4 * pixels <= limit:
        assert (height, width) == (2 * frame[0], 2 * frame[1])
    else:
        # Each side is rounded by half a pixel at most.
        assert abs(height * width - limit) <= 0.5 * (height + width) + 0.25
        assert abs(height * frame[1] - width * frame[0]) <= 0.5 * (frame[0] + frame[1])


@frames
def test_a_limit_on_enlarging_does_not_hold_back_shrinking(frame) -> None:
    limited, free = InputSpec(scale=0.5, enlarge_up_to=1), InputSpec(scale=0.5)
    assert limited.content_size(frame) == free.content_size(frame)


def scaled(spec: InputSpec, frame: tuple[int, int]) -> tuple[int, int]:
    """Content before anything is reduced: the scale, and the limit of enlarging."""
    scale = spec.scale
    if scale > 1 and spec.enlarge_up_to:
        scale = max(1.0, min(scale, math.sqrt(spec.enlarge_up_to / math.prod(frame))))
    return max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))


sides = st.tuples(st.integers(1, 5000), st.integers(1, 5000)) | st.tuples(st.integers(1, 9), st.integers(1, 4_000_000))
specs = st.builds(
    InputSpec,
    scale=st.just(1.0) | st.floats(0.01, 4.0),
    enlarge_up_to=st.just(0) | st.integers(1, 2_000_000),
    work_pixels=st.integers(1, 4_000_000),
)


@given(specs, sides)
@example(InputSpec(work_pixels=2_100_225), (5, 4_000_000))
@example(InputSpec(work_pixels=2_100_225), (1, 4_000_000))
@example(InputSpec(scale=1.5, enlarge_up_to=921_600, work_pixels=2_100_225), (2160, 3840))
@example(InputSpec(scale=0.5, work_pixels=1), (7, 3))
def test_what_is_over_the_limit_on_work_is_reduced_to_it(spec, frame) -> None:
    whole, content = scaled(spec, frame), spec.content_size(frame)
    assert replace(spec, work_pixels=0).content_size(frame) == whole
    assert spec.content_size(frame[::-1]) == content[::-1]
    if math.prod(whole) <= spec.work_pixels:
        assert content == whole
        return
    assert math.prod(content) <= spec.work_pixels
    assert all(1 <= side <= uncut for side, uncut in zip(content, whole, strict=True))
    (short, long), (whole_short, whole_long) = sorted(content), sorted(whole)
    # The largest there is: with a short side of one more, the same aspect would be over the limit.
    assert (short + 1) ** 2 * whole_long > spec.work_pixels * whole_short
    if whole_long <= spec.work_pixels * whole_short:  # else not even a short side of one pixel keeps the aspect
        assert abs(long * whole_short - short * whole_long) < whole_short  # off by less than a pixel of the long side


@given(specs, sides, st.integers(1, 4_000_000))
def test_a_higher_limit_on_work_reduces_no_further(spec, frame, other) -> None:
    low, high = sorted([spec.work_pixels, other])
    smaller, larger = (replace(spec, work_pixels=limit).content_size(frame) for limit in (low, high))
    assert all(a <= b for a, b in zip(smaller, larger, strict=True))


@given(st.integers(1, 4_000_000), sides, st.integers(2, 5))
def test_a_larger_picture_of_the_same_is_seen_no_smaller(limit, frame, times) -> None:
    spec = InputSpec(work_pixels=limit)
    content, larger = (spec.content_size((factor * frame[0], factor * frame[1])) for factor in (1, times))
    assert all(a <= b for a, b in zip(content, larger, strict=True))
    if math.prod(frame) > limit:
        assert larger == content


@pytest.fixture(scope="module")
def embedded() -> InputSpec:
    """That of the embedded bundle."""
    return Bundle.open("camvid").manifest.input


@given(frame=sides)
@example(frame=(1025, 2049))
@example(frame=(1080, 1920))
@example(frame=(1, 600_000))
def test_the_embedded_bundle_reduces_no_frame_up_to_1025x2049(embedded, frame) -> None:
    if math.prod(frame) <= 1025 * 2049:
        assert embedded.content_size(frame) == scaled(embedded, frame)
    else:
        assert math.prod(embedded.content_size(frame)) <= embedded.work_pixels


@frames
def test_a_portrait_is_a_landscape_turned(frame) -> None:
    spec = InputSpec(scale=1.5, enlarge_up_to=80_000, multiple=16)
    assert spec.content_size(frame[::-1]) == spec.content_size(frame)[::-1]
    assert spec.input_size(frame[::-1]) == spec.input_size(frame)[::-1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": 0.0}, "scale: wanted a positive number up to 16.0, got 0.0"),
        ({"scale": -1.0}, "scale: wanted a positive number"),
        ({"scale": 17.0}, "scale: wanted a positive number"),
        ({"scale": float("nan")}, "scale: wanted a finite number, got nan"),
        ({"scale": float("inf")}, "scale: wanted a finite number, got inf"),
        ({"scale": "1"}, "scale: wanted a finite number, got '1'"),
        ({"multiple": 0}, "multiple: wanted 1 or more, got 0"),
        ({"enlarge_up_to": -1}, "enlarge_up_to: wanted 0 or more, got -1"),
        ({"work_pixels": -1}, "work_pixels: wanted 0 or more, got -1"),
        ({"work_pixels": 2.5e6}, "work_pixels: wanted a whole number, got 2500000.0"),
        ({"work_pixels": True}, "work_pixels: wanted a whole number, got true"),
        ({"plus_one": 1}, "plus_one: wanted true or false, got 1"),
        ({"mean": (0.5, 0.5)}, r"mean: wanted 3 finite numbers, got \[0.5, 0.5\]"),
        ({"std": (0.2, 0.0, 0.2)}, "std: wanted positive numbers"),
        ({"std": (0.2, 0.2, 0.2, 0.2)}, "std: wanted 3 finite numbers"),
        ({"std": (0.2, float("nan"), 0.2)}, "std: wanted 3 finite numbers"),
        ({"mean": (0.2, float("nan"), 0.2)}, "mean: wanted 3 finite numbers"),
    ],
    ids=str,
)
def test_values_that_no_frame_can_be_brought_to(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        InputSpec(**values)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.75])
@pytest.mark.parametrize("frame", [(360, 480), (1024, 2048), (1, 7)], ids=str)
def test_sizes_scale_the_content_and_pad_it(frame, scale):
    spec = InputSpec(scale=1.5, enlarge_up_to=921_600, work_pixels=1_000_000, multiple=16, plus_one=True)
    content, padded = spec.sizes(frame, scale)
    assert content == tuple(max(1, round(side * scale)) for side in spec.content_size(frame))
    for side, inside in zip(padded, content, strict=True):
        assert side % 16 == 1
        assert inside <= side < inside + 17
    assert spec.sizes(frame) == (spec.content_size(frame), spec.input_size(frame))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_sizes_of_no_scale_are_refused(scale):
    with pytest.raises(ValueError, match=r"scale: wanted a (positive|finite) number"):
        InputSpec().sizes((4, 4), scale)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_preprocessing_is_told_how_to_reduce(color) -> None:
    assert InputSpec(color=color).normalisation("bgr").reduce == "area"
    assert InputSpec(color=color, reduce="bilinear").normalisation("bgr").reduce == "bilinear"
    with pytest.raises(ValueError, match="area or bilinear"):
        InputSpec(reduce="nearest")
