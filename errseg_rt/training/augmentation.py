"""Random crops: scale, rotation, mirroring and cropping as one warp, so that a pixel is resampled once."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.bundle.input_spec import InputSpec, Size
from errseg_rt.datasets import Sample
from errseg_rt.training.recipe_data import AugmentConfig

Id = TypeVar("Id", np.uint8, np.int32)
Warp = npt.NDArray[np.float64]
"""From crop to frame, in (x, y): `[2, 3]`."""


def random_crop(sample: Sample, spec: InputSpec, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """A random view of a frame with its labels, both of the size `config.crop`.

    Where the view leaves the frame, the picture has the input's mean colour and the labels are `IGNORE`.
    """
    frame, labels = sample
    warp = random_warp((labels.shape[0], labels.shape[1]), spec, config, rng)
    return crop_of_frame(frame, warp, spec, config), crop_of_ids(labels, warp, config, IGNORE)


def random_warp(size: Size, spec: InputSpec, config: AugmentConfig, rng: np.random.Generator) -> Warp:
    """Where a random view of a frame of a size lies."""
    scale = spec.content_size(size)[0] / size[0] * float(rng.choice(config.scales))
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation))
    mirror = -1.0 if config.flip and rng.random() < 0.5 else 1.0
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.diag([mirror, 1.0]) / scale  # from crop to frame, in (x, y)
    center = [_center(rng, side, crop / scale) for side, crop in zip(size[::-1], config.crop[::-1], strict=True)]
    middle = (np.array(config.crop[::-1]) - 1) / 2
    return np.column_stack([linear, np.array(center) - linear @ middle])


def crop_of_frame(
    frame: npt.NDArray[np.uint8], warp: Warp, spec: InputSpec, config: AugmentConfig
) -> npt.NDArray[np.uint8]:
    """A view of a frame, `uint8 [h, w, 3]` in BGR; outside it has the input's mean colour."""
    mean = tuple(255 * channel for channel in spec.mean[::-1])
    # Shrinking by up to two is fine with plain bilinear sampling: the network was made for camera noise.
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(frame, warp, config.crop[::-1], flags=flags, borderValue=mean), np.uint8)


def relit(picture: npt.NDArray[np.uint8], config: AugmentConfig, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A picture in a random light, up to `config.light` doublings or halvings of its own."""
    if not config.light:
        return picture
    return np.asarray(cv2.convertScaleAbs(picture, alpha=2.0 ** rng.uniform(-config.light, config.light)), np.uint8)


def crop_of_ids(ids: npt.NDArray[Id], warp: Warp, config: AugmentConfig, outside: int) -> npt.NDArray[Id]:
    """The same view of a map of ids, `uint8` or `int32` `[H, W]`; outside is what it has beside the frame."""
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    cropped = cv2.warpAffine(ids, warp, config.crop[::-1], flags=flags, borderValue=(outside,))
    return np.asarray(cropped, ids.dtype)


def _center(rng: np.random.Generator, side: int, window: float) -> float:
    """Centre, in frame pixels, of a window that stays in the frame where it can."""
    slack = max(0.0, side - window) / 2
    return (side - 1) / 2 + float(rng.uniform(-slack, slack))
