"""Labelled frames: what a folder must hold, what is kept back, and crops that depend on their number alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from errseg_rt.classes import IGNORE
from errseg_rt.errors import DataError
from errseg_rt.input_spec import InputSpec
from errseg_rt.training import data
from errseg_rt.training.data import CropStream, FolderData, RenderedData, hold_out, normalise


def test_folder_gives_its_frames_in_order(folder):
    root, frames, labels = folder
    found = FolderData(root, 11)
    assert len(found) == 4
    for index in (2, 0, 3, 1):
        np.testing.assert_array_equal(found[index][0], frames[index])
        np.testing.assert_array_equal(found[index][1], labels[index])
        assert found[index][1].dtype == np.uint8


def test_subset_keeps_its_order(folder):
    root, frames, _ = folder
    whole = FolderData(root, 11)
    part = whole.subset([3, 1])
    assert (len(part), len(whole)) == (2, 4)
    np.testing.assert_array_equal(part[0][0], frames[3])
    np.testing.assert_array_equal(part[1][0], frames[1])


def test_void_ids_become_ignored(folder):
    root, _, labels = folder
    found = FolderData(root, 8, void=(8, 9, 10))[0][1]
    np.testing.assert_array_equal(found, np.where(labels[0] < 8, labels[0], IGNORE))


def test_255_is_always_void(folder):
    root, _, labels = folder
    labels[0, :5] = IGNORE
    cv2.imwrite(str(root / "labels/f000.png"), labels[0])
    np.testing.assert_array_equal(FolderData(root, 11)[0][1], labels[0])


def test_unknown_ids_are_named(folder):
    root, _, labels = folder
    with pytest.raises(DataError, match=r"f000.png: label ids \[9, 10\] are neither classes nor void"):
        FolderData(root, 8, void=(8,))[0]
    assert set(np.unique(labels[0])) == set(range(11))


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_missing_folder(folder, missing):
    root = folder[0]
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(DataError, match=f"{missing}: no such folder; labelled frames lie in images/ and labels/"):
        FolderData(root, 11)


def test_empty_folder(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "images/readme.txt").write_text("none")
    with pytest.raises(DataError, match="images: holds no image"):
        FolderData(tmp_path, 11)


def test_frames_without_labels_are_counted(folder):
    root = folder[0]
    (root / "labels/f001.png").unlink()
    (root / "labels/f003.png").unlink()
    with pytest.raises(DataError, match=r"no .png for 2 of the 4 images, first f001.png"):
        FolderData(root, 11)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((48, 63), np.uint8), r"uint8 \(48, 63\), wanted uint8 \(48, 64\)"),
        (np.zeros((48, 64), np.uint16), r"labels are uint16 \(48, 64\)"),
        (np.zeros((48, 64, 3), np.uint8), r"labels are uint8 \(48, 64, 3\)"),
    ],
    ids=["size", "16_bit", "colour"],
)
def test_labels_of_another_kind(folder, labels, message):
    root = folder[0]
    cv2.imwrite(str(root / "labels/f002.png"), labels)
    found = FolderData(root, 11)
    assert found[1][1].shape == (48, 64)
    with pytest.raises(DataError, match=message):
        found[2]


@pytest.mark.parametrize("which", ["images", "labels"])
def test_unreadable_file(folder, which):
    root = folder[0]
    (root / which / "f002.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=f"{which}/f002.png: not a readable image"):
        FolderData(root, 11)[2]


@given(frames=st.integers(25, 600), blocks=st.integers(1, 6), share=st.floats(0.01, 0.4), gap=st.integers(0, 3))
def test_hold_out_leaves_a_gap_and_takes_of_every_block(frames, blocks, share, gap):
    learned, held = hold_out(frames, blocks, share, gap)
    assert learned == sorted(set(learned))
    assert held == sorted(set(held))
    assert set(learned) | set(held) <= set(range(frames))
    apart = np.abs(np.subtract.outer(np.array(learned, int), held))
    assert apart.min(initial=frames) == (gap + 1 if learned else frames)
    edges = [round(frames * block / blocks) for block in range(blocks + 1)]
    for start, end in itertools.pairwise(edges):
        size = len([index for index in held if start <= index < end])
        assert size == min(max(1, round(frames / blocks * share)), end - start)
    # Only what is near to something kept back is wasted.
    near = {index for index in range(frames) if min(abs(index - h) for h in held) <= gap}
    assert set(learned) == set(range(frames)) - near


@pytest.fixture
def numbered(monkeypatch):
    """Black frames to draw from, and rendered ones that are white; no crop leaves either."""
    labels = np.zeros((80, 80), np.uint8)
    monkeypatch.setattr(data, "rendered_sample", lambda seed, index: (np.full((80, 80, 3), 255, np.uint8), labels))
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
    monkeypatch.setattr(data, "rendered_sample", lambda seed, index: drawn.append((seed, index)) or sample)
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


def test_normalise_swaps_channels_and_standardises():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    spec = InputSpec(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    wanted = (picture[..., ::-1].astype(np.float64) / 255 - spec.mean) / spec.std
    found = normalise(picture, spec)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), wanted, rtol=0, atol=1e-6)
