"""The whole method, as a definition (Gong et al. 2021): eq. 1, 4, 5 here; eq. 2 and 3 are `training.losses`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.bundle.contract import GRID_STRIDE
from errseg_rt.networks.detail_branch import DetailBranch
from errseg_rt.networks.dupsampling import DUpsampling
from errseg_rt.networks.error_branch import CONTEXTS, FEATURES, IMAGE_STRIDES, ErrorBranch
from errseg_rt.networks.gau import KERNELS, Kernels
from errseg_rt.networks.localization import LocalizationHead
from errseg_rt.networks.norms import freeze_norms
from errseg_rt.networks.registry import build_semantic, is_known, known_names
from errseg_rt.networks.taps import SemanticNetwork, Taps
from errseg_rt.system.fields import check_fields, require

DECODERS: dict[str, type[DetailBranch] | type[DUpsampling]] = {"gau": DetailBranch, "dupsampling": DUpsampling}
BRANCH_FIELDS = {
    "semantic": ("semantic", "classes"),
    "error": (
        "semantic",
        "classes",
        "grid_stride",
        "residual",
        "error_width",
        "error_features",
        "error_kernels",
        "error_context",
    ),
    "detail": (
        "semantic",
        "classes",
        "grid_stride",
        "residual",
        "decoder",
        "detail_width",
        "detail_kernels",
        "stage3_kernels",
    ),
    "localization": ("semantic", "classes", "things", "localization_width", "box_scale", "grid_stride"),
}
"""What decides the shape of each branch, but for frozen norms: fields of `CascadeConfig`."""


@dataclass(frozen=True)
class CascadeConfig:
    """Everything that decides the shape of a cascade's weights.

    Attributes:
        semantic: Name of the semantic network, one of `registry.known_names()`.
        classes: Number of classes.
        error_width: Channels of the error-prediction branch.
        detail_width: Channels of the detail branch.
        residual: Whether both branches start from the semantic branch's own answer.
        error_frozen: Whether the norms of the error-prediction branch are frozen.
        detail_frozen: Whether those of the detail branch are: then its stage 3 can be evaluated sparsely.
        decoder: What labels again, a key of `DECODERS`: the detail branch, or what it is compared with.
        error_features: What the error-prediction branch sees beside P_sb, one of `error_branch.FEATURES`.
        error_kernels: Sides of the convolutions of its decoder block, as `GAU` has them.
        error_context: What it sees around, one of `error_branch.CONTEXTS`.
        detail_kernels: Likewise of the detail branch's stages 1 and 2.
        stage3_kernels: Likewise of its stage 3, which refinement computes at flagged pixels.
        grid_stride: Input pixels from one grid pixel to the next: 4, as the paper has it, or 2 or 1 for a network that
            tells thinner things apart. `low` lies at it, `mid` at twice as much, `deep` and `high` at four times.
        things: Classes that have instances, in rising order, for which there is a localization head; none: no head.
        localization_width: Channels of the localization head.
        box_scale: Typical side of an instance, in grid cells.
    """

    semantic: str
    classes: int
    error_width: int
    detail_width: int
    residual: bool = True
    error_frozen: bool = False
    detail_frozen: bool = False
    decoder: str = "gau"
    error_features: str = "image"
    error_kernels: Kernels = KERNELS
    error_context: str = "high"
    detail_kernels: Kernels = KERNELS
    stage3_kernels: Kernels = KERNELS
    grid_stride: int = GRID_STRIDE
    things: tuple[int, ...] = ()
    localization_width: int = 32
    box_scale: float = 8.0

    def __post_init__(self) -> None:
        """Raises FieldError, a ValueError, for an unknown network, and for counts that no network can have."""
        check_fields(self)
        require(self, "semantic", is_known(self.semantic), f"one of {', '.join(known_names())}")
        for name, known in (("decoder", DECODERS), ("error_features", FEATURES), ("error_context", CONTEXTS)):
            require(self, name, getattr(self, name) in known, f"one of {', '.join(sorted(known))}")
        require(self, "classes", 2 <= self.classes <= 255, "2 to 255")
        strides = sorted(IMAGE_STRIDES)
        require(self, "grid_stride", self.grid_stride in strides, f"one of {', '.join(map(str, strides))}")
        require(self, "error_width", self.error_width >= 2, "2 or more")
        for name in ("error_kernels", "detail_kernels", "stage3_kernels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON and TOML have lists
            require(self, name, set(getattr(self, name)) <= {1, 3}, "sides of 3 or 1")
        require(self, "detail_width", self.detail_width >= 1, "1 or more")
        object.__setattr__(self, "things", tuple(self.things))  # JSON and TOML have lists
        is_rising = list(self.things) == sorted({each for each in self.things if 0 <= each < self.classes})
        require(self, "things", is_rising, f"classes in 0..{self.classes - 1}, in rising order")
        require(self, "localization_width", self.localization_width >= 1, "1 or more")
        require(self, "box_scale", self.box_scale > 0, "a number of grid cells above 0")

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON and TOML hold them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


class Front(NamedTuple):
    """Outputs of the dense part: semantic branch, error-prediction branch, stages 1 and 2 of the detail branch."""

    logits: Tensor  # [B, classes, h, w]
    error_logit: Tensor  # [B, 1, h, w]
    low: Tensor  # [B, low_channels, h, w]
    coarse: Tensor  # [B, detail_width, h8, w8]
    gate: Tensor  # [B, detail_width, 1, 1]


class CascadeOutput(NamedTuple):
    """Probabilities of the three branches and their fusion, on the grid."""

    p_sb: Tensor  # [B, classes, h, w]
    p_ep: Tensor  # [B, 1, h, w]
    p_db: Tensor  # [B, classes, h, w]
    flagged: Tensor  # bool [B, 1, h, w], E_ep of eq. 4
    p_f: Tensor  # [B, classes, h, w]


def error_map(labels: Tensor, truth: Tensor) -> Tensor:
    """Eq. 1: where a label differs from the truth; bool, of the common shape of both."""
    return labels != truth


def flag(error_logit: Tensor, threshold: float) -> Tensor:
    """Eq. 4: where P_ep > t, compared as logits, since a sigmoid saturates into ties.

    Args:
        error_logit: Any shape.
        threshold: t, strictly between 0 and 1.
    """
    return error_logit > math.log(threshold) - math.log1p(-threshold)


def fuse(p_sb: Tensor, p_db: Tensor, flagged: Tensor) -> Tensor:
    """Eq. 5: P_db where flagged, P_sb elsewhere."""
    return p_db.where(flagged, p_sb)


class Cascade(nn.Module):
    """A frozen semantic branch, a branch that predicts its errors, and a branch that labels those pixels again.

    Args:
        config: Shape of the cascade.
        semantic: The semantic network; None: one that is made by its name.

    Raises:
        FieldError: There is no network of that name, or the one that is handed in has another number of classes.
    """

    def __init__(self, config: CascadeConfig, semantic: SemanticNetwork | None = None) -> None:
        super().__init__()
        self.config = config
        self.semantic = build_semantic(config.semantic, config.classes) if semantic is None else semantic
        require(config, "classes", self.semantic.classes == config.classes, f"{self.semantic.classes}, the network's")
        grid_stride = getattr(self.semantic, "grid_stride", GRID_STRIDE)
        require(config, "grid_stride", config.grid_stride == grid_stride, f"{grid_stride}, the network's")
        self.error = ErrorBranch(
            self.semantic,
            config.error_width,
            features=config.error_features,
            kernels=config.error_kernels,
            context=config.error_context,
            grid_stride=config.grid_stride,
            residual=config.residual,
            frozen=config.error_frozen,
        )
        self.detail = DECODERS[config.decoder](
            self.semantic,
            config.detail_width,
            residual=config.residual,
            frozen=config.detail_frozen,
            kernels=(config.detail_kernels, config.stage3_kernels),
        )
        if config.things:
            self.localization = LocalizationHead(
                self.semantic, len(config.things), config.localization_width, config.box_scale
            )

    def freeze_norms(self, branch: str, run: Callable[[], None]) -> None:
        """Make the norms of a branch constants, in place.

        Args:
            branch: `"error"` or `"detail"`.
            run: Passes images through the cascade, whose mean statistics are kept.
        """
        freeze_norms(self.get_submodule(branch), run)
        change: dict[str, Any] = {f"{branch}_frozen": True}
        self.config = replace(self.config, **change)

    def taps(self, image: Tensor) -> Taps:
        """Taps of the semantic branch, with its logits enlarged to the grid, `[B, classes, h, w]` as `low` is."""
        return self.on_grid(self.semantic(image))

    def on_grid(self, taps: Taps) -> Taps:
        """Taps with their logits enlarged to the grid."""
        logits = F.interpolate(
            taps.logits, size=taps.low.shape[2:], mode="bilinear", align_corners=self.semantic.align_corners
        )
        return taps._replace(logits=logits)

    def front(self, image: Tensor) -> Front:
        """The dense part, for an image `[B, 3, H, W]`.

        Raises:
            TypeError: The decoder is not the detail branch, the only one that can be cut in two.
        """
        return self.front_of(image, self.taps(image))

    def front_of(self, image: Tensor, taps: Taps) -> Front:
        """The dense part behind the semantic branch, of its taps with their logits on the grid.

        Raises:
            TypeError: As `front`.
        """
        if not isinstance(self.detail, DetailBranch):
            raise TypeError(f"the decoder {self.config.decoder!r} is for comparisons only: it has no sparse stage")
        error_logit = self.error(image, taps)
        coarse, gate = self.detail.decode(taps)
        return Front(taps.logits, error_logit, taps.low, coarse, gate)

    def handed_on(self, image: Tensor, taps: Taps) -> tuple[Tensor, ...]:
        """What a front graph gives: `front_of`, then, with things, their boxes, `[B, 4 * things, h, w]`.

        Raises:
            TypeError: As `front`.
        """
        boxes = (self.localization(taps),) if self.config.things else ()
        return (*self.front_of(image, taps), *boxes)

    def forward(self, image: Tensor, threshold: float = 0.7) -> CascadeOutput:
        """All of it, dense.

        Args:
            image: Normalised input, `[B, 3, H, W]`.
            threshold: t of eq. 4.
        """
        taps = self.taps(image)
        error_logit = self.error(image, taps)
        p_sb, p_db = taps.logits.softmax(dim=1), self.detail(taps).softmax(dim=1)
        flagged = flag(error_logit, threshold)
        return CascadeOutput(p_sb, error_logit.sigmoid(), p_db, flagged, fuse(p_sb, p_db, flagged))
