"""Random branches and truths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from errseg_rt.bundle.classes import IGNORE, ClassSet
from errseg_rt.frames.branches import Branches
from errseg_rt.kernels.geometry import Geometry


def make_branches(rng: np.random.Generator, geometry: Geometry, classes: int, scale: float = 3) -> Branches:
    shape = (classes, *geometry.grid_size)
    logits, detail = (scale * rng.standard_normal(shape, np.float32) for _ in range(2))
    return Branches(logits, 2 * rng.standard_normal(geometry.grid_size, np.float32), detail, geometry)


def make_truth(rng: np.random.Generator, geometry: Geometry, classes: int, void: float = 0.1) -> np.ndarray:
    """Blocks of one class each, and void pixels."""
    height, width = geometry.output_size
    coarse = rng.integers(0, classes, (-(-height // 7), -(-width // 7)), np.uint8)
    truth = np.kron(coarse, np.ones((7, 7), np.uint8))[:height, :width].copy()
    truth[rng.random(truth.shape) < void] = IGNORE
    return truth


@pytest.fixture
def classes() -> ClassSet:
    return ClassSet(("a", "b", "c", "d"), tuple((20 * index, 0, 255) for index in range(4)))


@pytest.fixture
def sample(padded: Geometry) -> Callable[..., tuple[np.ndarray, Branches]]:
    """Makes the truth and the branches of a random frame."""

    def make(seed: int, geometry: Geometry = padded, classes: int = 4, **options: float):
        rng = np.random.default_rng(seed)
        return make_truth(rng, geometry, classes, **options), make_branches(rng, geometry, classes)

    return make
