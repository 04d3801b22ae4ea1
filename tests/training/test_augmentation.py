"""Random crops: one warp, under which the labels stay with the picture."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.classes import CAMVID, IGNORE
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.training.augmentation import random_crop
from errseg_rt.training.recipe_data import AugmentConfig

PLAIN = AugmentConfig(crop=(60, 80), scales=(1.0,), rotation=0.0, flip=False)
SPEC = InputSpec()
MEAN_BGR = 255 * np.array(SPEC.mean[::-1])


def picture(size=(60, 80), seed=0):
    """Blocks of classes, each in its own colour."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, len(CAMVID), (-(-size[0] // 15), -(-size[1] // 15)), np.uint8)
    labels = np.ascontiguousarray(np.kron(blocks, np.ones((15, 15), np.uint8))[: size[0], : size[1]])
    return CAMVID.palette_bgr()[labels], labels


def noise(size=(60, 80), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, len(CAMVID), size, np.uint8)


def crop(sample, config, seed=0, spec=SPEC):
    return random_crop(sample, spec, config, np.random.default_rng(seed))


def inside(labels, reach=2):
    """Pixels whose neighbourhood lies in the crop and has one label."""
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    same = cv2.erode(labels, kernel) == cv2.dilate(labels, kernel)
    seen = np.zeros_like(same)
    seen[reach:-reach, reach:-reach] = True
    return same & seen


def test_nothing_to_do_gives_the_frame_back():
    frame, labels = noise()
    view, truth = crop((frame, labels), PLAIN)
    np.testing.assert_array_equal(view, frame)
    np.testing.assert_array_equal(truth, labels)
    assert view.dtype == truth.dtype == np.uint8


def test_flip_mirrors_about_every_second_crop():
    frame, labels = noise()
    mirrored = 0
    for seed in range(60):
        view, truth = crop((frame, labels), replace(PLAIN, flip=True), seed)
        is_mirrored = not np.array_equal(view, frame)
        mirrored += is_mirrored
        np.testing.assert_array_equal(view, frame[:, ::-1] if is_mirrored else frame)
        np.testing.assert_array_equal(truth, labels[:, ::-1] if is_mirrored else labels)
    assert 15 <= mirrored <= 45  # 60 fair coins: 4 standard deviations


@pytest.mark.parametrize("spec", [InputSpec(scale=2.0), SPEC], ids=["by_the_input", "by_the_augmentation"])
def test_scale_enlarges_as_resizing_does(spec):
    frame = cv2.GaussianBlur(noise()[0], (0, 0), 3)
    config = replace(PLAIN, crop=(120, 160), scales=(2.0 / spec.scale,))
    view, _ = crop((frame, noise()[1]), config, spec=spec)
    wanted = cv2.resize(frame, (160, 120), interpolation=cv2.INTER_LINEAR)
    # At the very edge the mean colour is blended in; elsewhere both round once.
    assert np.abs(view.astype(int) - wanted)[1:-1, 1:-1].max() <= 1


def test_scale_follows_the_limit_of_the_input():
    frame, labels = noise()
    spec = InputSpec(scale=2.0, enlarge_up_to=60 * 80)
    view, truth = crop((frame, labels), PLAIN, spec=spec)
    np.testing.assert_array_equal(view, frame)
    np.testing.assert_array_equal(truth, labels)


@pytest.mark.parametrize("seed", range(8))
def test_labels_move_with_the_picture(seed):
    frame, labels = picture((90, 120), seed)
    config = AugmentConfig(crop=(71, 83), scales=(0.6, 0.9, 1.0, 1.5, 2.0), rotation=20.0)
    view, truth = crop((frame, labels), config, seed)
    assert view.shape == (71, 83, 3)
    assert truth.shape == (71, 83)
    palette = CAMVID.palette_bgr().astype(float)
    palette[IGNORE] = MEAN_BGR
    whole = inside(truth)
    assert whole.mean() > 0.2
    assert np.abs(view[whole] - palette[truth[whole]]).max() <= 1


def test_crops_stay_in_the_frame_where_they_can():
    sample = noise()
    config = replace(PLAIN, crop=(31, 45))
    views = [crop(sample, config, seed) for seed in range(40)]
    assert all((truth != IGNORE).all() for _, truth in views)
    assert len({view.tobytes() for view, _ in views}) > 30


def test_crop_without_scaling_is_a_window_of_the_labels():
    rows, cols = np.mgrid[:60, :80]
    labels = ((7 * rows + 3 * cols) % 251).astype(np.uint8)
    _, truth = crop((noise()[0], labels), replace(PLAIN, crop=(31, 45)), seed=3)
    windows = np.lib.stride_tricks.sliding_window_view(labels, (31, 45))
    assert (windows == truth).all(axis=(2, 3)).any()


@pytest.mark.parametrize("size", [(97, 131), (60, 131), (61, 80)], ids=str)
def test_outside_is_mean_colour_and_ignored(size):
    frame, labels = picture()
    view, truth = crop((frame, labels), replace(PLAIN, crop=size))
    top, left = (size[0] - 60) // 2, (size[1] - 80) // 2
    beyond = np.ones(size, bool)
    beyond[max(top - 1, 0) : top + 62, max(left - 1, 0) : left + 82] = False
    assert (truth[beyond] == IGNORE).all()
    assert np.abs(view[beyond] - MEAN_BGR).max(initial=0) <= 1
    # An odd margin lays the frame half a pixel off, so that one of its lines may fall away.
    assert (60 - 1) * (80 - 1) <= (truth != IGNORE).sum() <= 60 * 80


def test_the_same_seed_gives_the_same_crop():
    config = AugmentConfig(crop=(33, 47))
    first, again, other = (crop(noise(), config, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
