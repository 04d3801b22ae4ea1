"""What kernels are measured on: sizes, and maps as networks give them, of a rendered street."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.on_gpu.streets import street
from errseg_rt.bundle.stage3 import refine_weights
from errseg_rt.kernels import Geometry
from errseg_rt.kernels.refine import RefineWeights
from errseg_rt.networks.detail_branch import DetailBranch
from errseg_rt.networks.fold import fold_norms

HALF = torch.float16


@dataclass(frozen=True)
class Size:
    """What is measured.

    Attributes:
        frame: Height and width, as the network takes them (aligned corners).
        classes: Of the labels.
        width: Channels of the detail branch.
        low: Channels of its low-level features.
    """

    frame: tuple[int, int] = (1025, 2049)
    classes: int = 19
    width: int = 144
    low: int = 256

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid."""
        return -(-self.frame[0] // 4), -(-self.frame[1] // 4)

    @property
    def geometry(self) -> Geometry:
        """A frame that is taken as it is."""
        return Geometry(self.grid, self.frame, self.frame, self.frame, True)


@dataclass(frozen=True)
class Stage:
    """Stage 3 of a detail branch with random weights: what is labelled, and with what."""

    detail: DetailBranch
    weights: RefineWeights
    logits: torch.Tensor  # [K, h, w]
    low: torch.Tensor  # [Cl, h, w], channels last
    coarse: torch.Tensor  # [C, h8, w8]
    gate: torch.Tensor  # [C]


def error_logits(size: Size) -> npt.NDArray[np.float32]:
    """High along the outlines of a rendered street's classes, as an error-prediction branch's are."""
    labels = street(size.frame).labels[::4, ::4]
    edges = np.zeros(size.grid, np.uint8)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    distance = cv2.distanceTransform(1 - edges, cv2.DIST_L2, 5)
    noise = np.random.default_rng(0).random(size.grid)
    return np.asarray(2 - distance + 0.1 * noise, np.float32)


def threshold_of(error_logit: npt.NDArray[np.float32], share: float) -> float:
    """The t that flags a share of the pixels."""
    return float(1 / (1 + np.exp(-np.quantile(error_logit.astype(np.float64), 1 - share))))


def logits_of(size: Size, sharpness: float) -> npt.NDArray[np.float32]:
    """Of a rendered street, blurred as a network's answer at stride 4 is, `[K, h, w]`."""
    labels = street(size.frame, 1).labels[::4, ::4]
    rng = np.random.default_rng(int(10 * sharpness))
    planes = []
    for label in range(size.classes):
        noise = cv2.GaussianBlur(rng.standard_normal(size.grid, np.float32), (0, 0), 2.0)
        planes.append(10 * cv2.GaussianBlur((labels == label).astype(np.float32), (0, 0), 1 / sharpness) + noise)
    return np.stack(planes)


def stage(size: Size, device: torch.device) -> Stage:
    """Random weights and features."""
    torch.manual_seed(0)
    detail = DetailBranch(_taps(size), size.width, residual=True, frozen=True).eval()
    torch.nn.init.normal_(detail.head.weight, std=0.1)
    state = {f"detail.{name}": tensor.numpy() for name, tensor in detail.state_dict().items()}
    weights = refine_weights(state, "the benchmark", residual=True, align_corners=True)
    fold_norms(detail)
    height, width = size.grid
    generator = torch.Generator().manual_seed(0)
    low = torch.randn((1, size.low, height, width), generator=generator).to(device, HALF)
    coarse = torch.randn((size.width, (height + 1) // 2, (width + 1) // 2), generator=generator)
    return Stage(
        detail.to(device, HALF, memory_format=torch.channels_last).requires_grad_(False),
        weights,
        torch.from_numpy(logits_of(size, 0.7)).to(device, HALF),
        low.to(memory_format=torch.channels_last)[0],
        coarse.to(device, HALF),
        torch.rand(size.width, generator=generator).to(device, HALF),
    )


def _taps(size: Size) -> Any:
    """What a detail branch asks of a semantic network: its channel counts, of which stage 3 sees one."""
    counts = {"mid_channels": 8, "deep_channels": 8, "high_channels": 8, "low_channels": size.low}
    return SimpleNamespace(classes=size.classes, align_corners=True, **counts)
