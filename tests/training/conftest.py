"""A training that takes seconds: tiny crops, branches and scenes."""

from __future__ import annotations

import copy
from functools import lru_cache, partial

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from errseg_rt.networks import SEMANTIC_NETWORKS, Cascade
from errseg_rt.networks.taps import Taps
from errseg_rt.training import data, fit, inputs, loop
from errseg_rt.training.checkpoint import load_cascade
from errseg_rt.training.recipe_files import parse_recipe

TINY = {
    "seed": 3,
    "threshold": 0.7,
    "cascade": {"semantic": "squeezenas", "error_width": 4, "detail_width": 4},
    "data": {"classes": "camvid", "void": [11]},
    "input": {"scale": 1.0, "multiple": 16, "plus_one": True},
    "augment": {"crop": [65, 65], "scales": [0.75, 1.0], "rotation": 5.0},
    "semantic": {"iterations": 4, "batch": 2, "rate": 1e-3, "checkpoint_every": 2},
    "error": {"iterations": 2, "batch": 2, "rate": 1e-3, "checkpoint_every": 2},
    "error_frozen": {"iterations": 2, "batch": 2, "rate": 1e-3, "checkpoint_every": 2},
    "detail": {"iterations": 4, "batch": 2, "rate": 1e-3, "checkpoint_every": 2},
    "detail_frozen": {"iterations": 2, "batch": 2, "rate": 1e-3, "checkpoint_every": 2},
    "provenance": {"data": "rendered"},
}
CROSS_FITTED = {
    **TINY,
    "views": {"scales": [1.0, 1.5], "flip": True, "rendered": 1},
    "cross_fit": {"folds": 2, "blocks": 1, "gap": 1, "iterations": 2},
}
SCENE_SIZE = (64, 96)


@pytest.fixture
def table():
    """The TOML table of a tiny recipe, to be changed at will."""
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def recipe():
    return parse_recipe("tiny", copy.deepcopy(TINY))


@pytest.fixture(scope="session")
def cross_fitted():
    """A recipe whose branches learn from kept taps of whole frames, each from a semantic branch that did not see it."""
    return parse_recipe("cross_fitted", copy.deepcopy(CROSS_FITTED))


@pytest.fixture
def cascade(recipe):
    torch.manual_seed(0)
    return Cascade(recipe.cascade)


@pytest.fixture(scope="module")
def small_scenes():
    """Rendered scenes of 64x96 pixels from two streets, and two more frames to score on."""
    data._street.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "SCENE_SIZE", SCENE_SIZE)
        patch.setattr(data, "_STREETS", 2)
        patch.setattr(data, "_SCENE_LENGTH", data._VIEWS)
        # A frame is drawn again and again; to render it takes longer than to learn from it.
        patch.setattr(data, "rendered_sample", lru_cache(data.rendered_sample))
        patch.setattr(inputs, "SCORED_RENDERED", 2)
        patch.setattr(loop, "SCORED_RENDERED", 2)
        patch.setattr(loop, "_NORM_FRAMES", 3)
        yield
    data._street.cache_clear()


@pytest.fixture(scope="module")
def process_settings():
    """One thread, so that sums are made in one order, also in a fork; and give torch back what a training sets."""
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="session")
def write_folder():
    """Writes random labelled frames in the layout of `FolderData`; gives frames and labels."""
    return _write_folder


def _write_folder(root, count, size=(48, 64), classes=11, seed=0):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (count, *size, 3), np.uint8)
    labels = rng.integers(0, classes, (count, *size), np.uint8)
    for name, pictures in (("images", frames), ("labels", labels)):
        (root / name).mkdir(parents=True)
        for index, picture in enumerate(pictures):
            cv2.imwrite(str(root / name / f"f{index:03d}.png"), picture)
    return frames, labels


@pytest.fixture
def folder(tmp_path):
    """A folder of four labelled frames, with what it holds."""
    root = tmp_path / "frames"
    return root, *_write_folder(root, 4)


class SmallNetwork(nn.Module):
    """A semantic network of one convolution a stride, built and loaded in no time."""

    low_channels, mid_channels, deep_channels, high_channels = 4, 6, 8, 10
    align_corners = True

    def __init__(self, classes):
        super().__init__()
        self.classes = classes
        self.stem, self.low, self.mid, self.deep = (
            nn.Sequential(nn.Conv2d(*channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels[1]), nn.ReLU())
            for channels in ((3, 4), (4, 4), (4, 6), (6, 8))
        )
        self.context, self.head = nn.Conv2d(8, 10, 1), nn.Conv2d(10, classes, 1)

    def forward(self, image):
        low = self.low(self.stem(image))
        mid = self.mid(low)
        deep = self.deep(mid)
        high = self.context(deep)
        return Taps(self.head(high), low, mid, deep, high)


@pytest.fixture(scope="module")
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SEMANTIC_NETWORKS, "small", SmallNetwork)
        yield


@pytest.fixture(scope="module")
def on_cpu():
    """Also where there is a GPU, whose sums are not the same to the last bit from run to run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "Trainer", partial(Trainer, accelerator="cpu"))
        yield


@pytest.fixture(scope="module")
def drive(tmp_path_factory, write_folder):
    """Twenty labelled frames to learn from, of which six are left beside those kept back, and two to score on."""
    root = tmp_path_factory.mktemp("drive")
    write_folder(root / "train", 20, (64, 96))
    write_folder(root / "val", 2, (64, 96), seed=1)
    return root


def assert_same_weights(found, wanted, prefix=""):
    found, wanted = (
        {name: tensor for name, tensor in load_cascade(path)[0].state_dict().items() if name.startswith(prefix)}
        for path in (found, wanted)
    )
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=0, msg=lambda text, n=name: f"{n}: {text}")


def assert_same_training(found, wanted):
    assert_same_weights(found, wanted)
    (_, notes), (_, wanted_notes) = load_cascade(found), load_cascade(wanted)
    for part in ("calibration", "detail_calibration", "baseline_calibrations", "metrics"):
        assert notes.get(part) == wanted_notes.get(part)
