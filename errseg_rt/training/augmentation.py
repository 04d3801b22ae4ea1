"""Random crops: scale, rotation, mirroring and cropping as one warp, so that a pixel is resampled once."""

from __future__ import annotations

import cv2
import numpy as np

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.datasets import Sample
from errseg_rt.training.recipe import AugmentConfig


def random_crop(sample: Sample, spec: InputSpec, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """A random view of a frame with its labels, both of the size `config.crop`.

    Where the view leaves the frame, the picture has the input's mean colour and the labels are `IGNORE`.
    """
    frame, labels = sample
    size = frame.shape[:2]
    scale = spec.content_size(size)[0] / size[0] * float(rng.choice(config.scales))
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation))
    mirror = -1.0 if config.flip and rng.random() < 0.5 else 1.0
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.diag([mirror, 1.0]) / scale  # from crop to frame, in (x, y)
    center = [_center(rng, side, crop / scale) for side, crop in zip(size[::-1], config.crop[::-1], strict=True)]
    middle = (np.array(config.crop[::-1]) - 1) / 2
    warp = np.column_stack([linear, np.array(center) - linear @ middle])
    mean = tuple(255 * channel for channel in spec.mean[::-1])
    shape = config.crop[::-1]
    # Shrinking by up to two is fine with plain bilinear sampling: the network was made for camera noise.
    inverse = cv2.WARP_INVERSE_MAP
    picture = cv2.warpAffine(frame, warp, shape, flags=cv2.INTER_LINEAR | inverse, borderValue=mean)
    truth = cv2.warpAffine(labels, warp, shape, flags=cv2.INTER_NEAREST | inverse, borderValue=(IGNORE,))
    return np.asarray(picture, np.uint8), np.asarray(truth, np.uint8)


def _center(rng: np.random.Generator, side: int, window: float) -> float:
    """Centre, in frame pixels, of a window that stays in the frame where it can."""
    slack = max(0.0, side - window) / 2
    return (side - 1) / 2 + float(rng.uniform(-slack, slack))
