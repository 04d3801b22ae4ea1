"""Sizes of frames: rendered ones have those of the data, and nobody reads a frame to learn its size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.training import data
from errseg_rt.training.data import CropStream, RenderedData
from errseg_rt.training.sized import SizedFrames, sizes_of


def plain(recipe, rendered):
    augment = replace(recipe.augment, crop=(17, 17), scales=(1.0,), rotation=0.0)
    return replace(recipe, data=replace(recipe.data, rendered=rendered), augment=augment)


class Blank:
    """Frames of some sizes, with nothing on them; lists which are read."""

    def __init__(self, sizes, known=True):
        self.shapes, self.reads = sizes, []
        self.names = [f"{index}" for index in range(len(sizes))]
        if known:
            self.sizes = sizes

    def __len__(self):
        return len(self.shapes)

    def __getitem__(self, index):
        self.reads.append(index)
        return np.zeros((*self.shapes[index], 3), np.uint8), np.zeros(self.shapes[index], np.uint8)


@pytest.fixture
def rendered(monkeypatch):
    """Size, street and frame of everything that is rendered."""
    asked = []

    def blank(size, seed, index):
        asked.append((size, seed, index))
        return np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)

    monkeypatch.setattr(data, "rendered_sample", blank)
    return asked


def draw_all(stream):
    for index in range(len(stream)):
        stream[index]


@pytest.mark.parametrize("size", [(144, 256), (360, 480), (480, 360), (37, 53)], ids=str)
def test_rendered_frames_have_the_size_of_the_data(recipe, rendered, size):
    frames = Blank([size] * 30)
    draw_all(CropStream(frames, plain(recipe, 0.5), stage=0, start=0, length=60))
    for beside in (frames.sizes, [size]):
        views = RenderedData(7, first=500, beside=beside)
        assert views.sizes == [size] * 7
        assert all(views[index][1].shape == size for index in range(7))
    assert {asked[0] for asked in rendered} == {size}


def test_rendered_frames_have_the_sizes_of_the_data_in_their_shares(recipe, rendered):
    # A third of the frames are portraits, some of them turned by their camera in between.
    landscape, portrait = (96, 128), (128, 96)
    sizes = [portrait if index % 3 == 1 else landscape for index in range(90)]
    assert RenderedData(24, beside=sizes).sizes.count(portrait) == 8
    draw_all(CropStream(Blank(sizes), plain(recipe, 1.0), stage=0, start=0, length=480))
    share = np.mean([size == portrait for size, _, _ in rendered])
    assert abs(share - 1 / 3) <= 4 * (1 / 3 * 2 / 3 / 480) ** 0.5
    of = {}
    for size, street, _ in rendered:
        assert of.setdefault(street, size) == size  # or streets would be built more than once


def test_rendered_frames_without_data_have_a_size_of_their_own(recipe, rendered):
    draw_all(CropStream(Blank([]), plain(recipe, 0.0), stage=0, start=0, length=5))
    assert {size for size, _, _ in rendered} == {(360, 480)} == set(RenderedData(3).sizes)


def test_on_frames_of_one_size_the_draws_are_those_that_they_always_were(recipe, rendered):
    # By definition: whether it is rendered, then the street and its frame, or the frame; then what the crop draws.
    frames, recipe = Blank([(360, 480)] * 9), plain(recipe, 0.5)
    draw_all(CropStream(frames, recipe, stage=2, start=100, length=40))
    for number in range(100, 140):
        rng = np.random.default_rng([recipe.seed, 2, number])
        if rng.random() < 0.5:
            assert rendered.pop(0) == ((360, 480), int(rng.integers(48)), int(rng.integers(300)))
        else:
            assert frames.reads.pop(0) == int(rng.integers(9))
    assert frames.reads == rendered == []


@pytest.mark.parametrize(
    ("size", "wanted"), [((20, 600), (32, 600)), ((600, 8), (600, 32)), ((4000, 6000), (1183, 1774))], ids=str
)
def test_sizes_that_cannot_be_rendered_come_as_near_as_can_be(size, wanted):
    assert RenderedData(1, beside=[size]).sizes == [wanted]
    spec = InputSpec(scale=1.5, enlarge_up_to=921_600, work_pixels=2_100_225, multiple=16, plus_one=True)
    if size[0] > 2000:  # for the network they are the same
        assert spec.input_size(size) == spec.input_size(wanted)


def test_large_frames_are_drawn_from_fewer_streets(recipe, rendered):
    for size, streets in (((360, 480), 48), ((720, 960), 12), ((1080, 1920), 8)):
        rendered.clear()
        sizes = data.street_sizes(plain(recipe, 0.5), Blank([size]))
        assert sizes == [size] * streets


def test_sizes_that_are_known_are_not_read(recipe, rendered):
    known, unknown = Blank([(40, 60)] * 5), Blank([(40, 60)] * 5, known=False)
    for frames, reads in ((known, []), (unknown, [0, 1, 2, 3, 4])):
        assert sizes_of(frames) == [(40, 60)] * 5
        assert frames.reads == reads
    CropStream(known, plain(recipe, 0.5), stage=0, start=0, length=9)
    assert known.reads == []


def test_sized_frames_are_parts_and_sums(rendered):
    frames = Blank([(40, 60), (60, 40), (40, 60), (50, 50)])
    sized = SizedFrames(frames.names, frames.sizes, frames.__getitem__)
    part = sized.subset([3, 1])
    assert (part.names, part.sizes, len(part)) == (["3", "1"], [(50, 50), (60, 40)], 2)
    assert [part[index][1].shape for index in range(2)] == part.sizes
    both = part.followed_by(RenderedData(2, beside=[(33, 35)]))
    assert both.names == ["3", "1", "street000_0", "street000_1"]
    assert both.sizes == [(50, 50), (60, 40), (33, 35), (33, 35)]
    assert [both[index][1].shape for index in range(4)] == both.sizes
    assert part.subset([]).followed_by(RenderedData(0)).sizes == []


@pytest.mark.parametrize("size", [(72, 40), (33, 47)], ids=str)
def test_streets_are_rendered_at_any_size(size):
    frame, labels = RenderedData(1, beside=[size])[0]
    assert (frame.shape, labels.shape) == ((*size, 3), size)
    assert len(np.unique(labels)) >= 3
