"""Labelled frames: random crops that depend on their number alone, and rendered streets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.datasets import FolderData
from errseg_rt.training import data
from errseg_rt.training.data import CropStream, RenderedData, normalise


@pytest.fixture
def numbered(monkeypatch):
    """Black frames to draw from, and rendered ones that are white; no crop leaves either."""
    labels = np.zeros((80, 80), np.uint8)
    monkeypatch.setattr(
        data, "rendered_sample", lambda size, seed, index: (np.full((80, 80, 3), 255, np.uint8), labels)
    )
    return [(np.zeros((80, 80, 3), np.uint8), labels)]


def plain(recipe, rendered):
    augment = replace(recipe.augment, crop=(17, 17), scales=(1.0,), rotation=0.0)
    return replace(recipe, data=replace(recipe.data, rendered=rendered), augment=augment)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_share_of_rendered_crops(recipe, numbered, share):
    stream = CropStream(numbered, plain(recipe, share), stage=0, start=0, length=400)
    rendered = np.mean([stream[index][0].mean().item() > 0 for index in range(400)])
    # Four standard deviations of a binomial share.
    assert abs(rendered - share) <= 4 * (share * (1 - share) / 400) ** 0.5


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_frames_everything_is_rendered(recipe, numbered, share):
    stream = CropStream([], plain(recipe, share), stage=0, start=0, length=20)
    assert all(stream[index][0].min() > 0 for index in range(20))


def test_crops_are_normalised_and_cut_to_size(recipe, folder):
    stream = CropStream(FolderData(folder[0], 11), recipe, stage=0, start=0, length=3)
    assert len(stream) == 3
    image, labels = stream[1]
    assert (image.shape, image.dtype) == ((3, 65, 65), torch.float32)
    assert (labels.shape, labels.dtype) == ((65, 65), torch.int64)


def test_a_crop_depends_on_its_number_alone(recipe, folder):
    frames = FolderData(folder[0], 11)
    stream = CropStream(frames, recipe, stage=1, start=0, length=8)
    forward = [stream[index] for index in range(8)]
    for index in (7, 2, 5):
        later = CropStream(frames, recipe, stage=1, start=index, length=1)[0]
        for again in (stream[index], later):
            for left, right in zip(again, forward[index], strict=True):
                torch.testing.assert_close(left, right, rtol=0, atol=0)
    assert len({image.numpy().tobytes() for image, _ in forward}) == 8


def test_stages_and_seeds_see_different_crops(recipe, folder):
    frames = FolderData(folder[0], 11)
    streams = [(recipe, 0), (recipe, 1), (recipe, 2), (replace(recipe, seed=recipe.seed + 1), 0)]
    pictures = {CropStream(frames, used, stage, 0, 1)[0][0].numpy().tobytes() for used, stage in streams}
    assert len(pictures) == 4


def test_rendered_crops_have_labels(recipe, small_scenes):
    image, labels = CropStream([], recipe, stage=0, start=0, length=1)[0]
    assert image.std() > 0.1
    assert len(set(labels.unique().tolist()) - {IGNORE}) >= 3


def test_scored_streets_are_never_trained_on(monkeypatch, recipe):
    drawn = []
    sample = (np.zeros((80, 80, 3), np.uint8), np.zeros((80, 80), np.uint8))
    monkeypatch.setattr(data, "rendered_sample", lambda size, seed, index: drawn.append((seed, index)) or sample)
    stream = CropStream([], plain(recipe, 1.0), stage=0, start=0, length=300)
    for index in range(300):
        stream[index]
    trained = {seed for seed, _ in drawn}
    drawn.clear()
    scored = RenderedData(12, first=5)
    assert len([scored[index] for index in range(len(scored))]) == 12
    assert not trained & {seed for seed, _ in drawn}
    assert len(set(drawn)) == 12
    held = set(drawn)
    drawn.clear()
    RenderedData(5)[4]
    assert drawn[0] not in held


def test_rendered_frames_have_names_of_their_own():
    names = RenderedData(12, first=3).names
    assert len(names) == len(set(names)) == 12
    assert names[:3] == ["street000_3", "street000_4", "street001_0"]


def test_normalise_swaps_channels_and_standardises():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    spec = InputSpec(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    wanted = (picture[..., ::-1].astype(np.float64) / 255 - spec.mean) / spec.std
    found = normalise(picture, spec)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), wanted, rtol=0, atol=1e-6)
