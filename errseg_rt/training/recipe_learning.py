"""Sections of a recipe: how each branch learns, and how instances are found."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from errseg_rt.bundle.instance_spec import InstanceSpec
from errseg_rt.system.fields import FieldError, check_fields, require

_METHODS = {
    "selector": ("error", "entropy", "confidence", "everywhere"),
    "learn": ("flagged", "everywhere", "hardest"),
    "fusion": ("replace", "average"),
}


@dataclass(frozen=True)
class CrossFitConfig:
    """How the branches learn from errors on frames that the semantic branch did not see.

    Each drive is cut into `folds * blocks` stretches of consecutive frames, dealt to the folds in turn; for each fold a
    semantic branch learns from the others, and gives the taps of that fold's frames.

    Attributes:
        folds: Number of folds; 0: the taps come from the semantic branch that learned from all frames.
        blocks: Stretches of each drive in each fold.
        gap: Frames beside a stretch that its fold's semantic branch does not learn from: they look alike.
        iterations: Steps of each fold's semantic branch.
    """

    folds: int = 0
    blocks: int = 2
    gap: int = 2
    iterations: int = 0

    def __post_init__(self) -> None:
        """Raises FieldError for counts that do not fit together."""
        check_fields(self)
        require(self, "folds", self.folds == 0 or self.folds >= 2, "0, or 2 or more")
        require(self, "blocks", self.blocks >= 1, "1 or more")
        require(self, "gap", self.gap >= 0, "0 or more")
        least = 1 if self.folds else 0
        require(self, "iterations", self.iterations >= least, f"{least} or more with {self.folds} folds")


@dataclass(frozen=True)
class MethodConfig:
    """What the detail branch learns from and where its answer is taken; the rest are the comparisons of table 3.

    Attributes:
        selector: What flags a pixel: `"error"` (eq. 4), `"entropy"` of P_sb above `limit` in nats, `"confidence"`
            (layer cascading: 1 - max P_sb not below `limit`), or `"everywhere"`.
        learn: Pixels that the loss counts: `"flagged"` (eq. 3), `"everywhere"`, or `"hardest"` (loss-rank mining: the
            share `hardest` of the batch with the highest loss).
        fusion: `"replace"` (eq. 5), or `"average"` of P_sb and P_db (bagging).
        limit: Limit of the selectors that have one.
        hardest: Share of the pixels that loss-rank mining keeps, in 0..1.
        boundary: Weight, on top of 1, of pixels within two of a boundary between true classes, where the loss is eq. 3.
        trust: Factor on what the trained error-prediction branch adds to the semantic logits, with `cascade.residual`:
            0 leaves 1 - max P_sb, 1 what it learned, which frames unlike those that it learned from may not bear out.
        adjustment: Logit adjustment of the trained detail branch: this times minus the logarithm of each class's share.
    """

    selector: str = "error"
    learn: str = "flagged"
    fusion: str = "replace"
    limit: float = 0.05
    hardest: float = 0.2
    boundary: float = 0.0
    trust: float = 1.0
    adjustment: float = 0.0

    def __post_init__(self) -> None:
        """Raises FieldError for an unknown choice, and shares that are none."""
        check_fields(self)
        for name, choices in _METHODS.items():
            require(self, name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        require(self, "limit", self.limit >= 0, "0 or more")
        require(self, "hardest", 0 < self.hardest <= 1, "a share above 0, up to 1")
        require(self, "boundary", self.boundary >= 0, "a weight of 0 or more")
        require(self, "trust", 0 <= self.trust <= 1, "a number in 0..1")
        require(self, "adjustment", 0 <= self.adjustment <= 1, "a number in 0..1")


@dataclass(frozen=True)
class ErrorLossConfig:
    """Weights of eq. 2.

    Attributes:
        easy: w1, of errors with max P_sb up to `rho`.
        hard: w2, of errors above it.
        correct: w3, of correct pixels; 0: the share of errors in each image, as the paper has it. A constant keeps P_ep
            comparable from image to image.
        rho: Confidence from which an error is hard.
        classes: Weight of the cross-entropy of the corrected class logits beside eq. 2, with `cascade.residual`.
    """

    easy: float = 1.0
    hard: float = 1.5
    correct: float = 0.0
    rho: float = 0.95
    classes: float = 0.0

    def __post_init__(self) -> None:
        """Raises FieldError for weights that are none."""
        check_fields(self)
        for name in ("easy", "hard"):
            require(self, name, getattr(self, name) > 0, "a weight above 0")
        for name in ("correct", "classes"):
            require(self, name, getattr(self, name) >= 0, "a weight of 0 or more")
        require(self, "rho", 0 < self.rho < 1, "a number between 0 and 1")


@dataclass(frozen=True)
class BootstrapConfig:
    """Online bootstrapping of the semantic branch (Wu et al. 2016, eq. 1).

    Attributes:
        probability: A pixel counts where the probability of its true class is below this; 0: all pixels count alike.
        keep: Least share of the batch's valid pixels that count, the hardest ones, in 0..1.
        pixels: Least number of each crop's that count, the hardest ones, beside `keep`; with it, that is of each crop.
    """

    probability: float = 0.0
    keep: float = 0.1
    pixels: int = 0

    def __post_init__(self) -> None:
        """Raises FieldError for values outside 0..1."""
        check_fields(self)
        require(self, "probability", 0 <= self.probability <= 1, "a number in 0..1")
        require(self, "keep", 0 < self.keep <= 1, "a share above 0, up to 1")
        require(self, "pixels", self.pixels >= 0, "0 or more")


@dataclass(frozen=True)
class BoxLossConfig:
    """What the localization head learns from (Wu et al. 2016, sections 2.1 and 2.2).

    Attributes:
        easy: A pixel whose predicted box overlaps the true one (intersection over union) by so much is dropped; 1: none
            is.
        keep: Least number of pixels of each crop that count, those of the least overlap.
        size_power: A pixel weighs (height * width of its instance's box) ** -size_power: with 0 all pixels are alike,
            with 1 all instances, with 1.5 an error counts as the share of the instance's side that it is.
        joint: Weight of this loss in the training of the semantic branch, which learns both then; 0: it learns classes
            alone.
    """

    easy: float = 0.8
    keep: int = 512
    size_power: float = 1.0
    joint: float = 0.0

    def __post_init__(self) -> None:
        """Raises FieldError for values that are none."""
        check_fields(self)
        require(self, "easy", 0 < self.easy <= 1, "an overlap above 0, up to 1")
        require(self, "keep", self.keep >= 1, "1 or more")
        require(self, "size_power", self.size_power >= 0, "0 or more")
        require(self, "joint", self.joint >= 0, "0 or more")


@dataclass(frozen=True)
class InstancesConfig:
    """How the bundle finds instances; nothing is trained by it. Attributes are those of `InstanceSpec`."""

    top: int = 1
    overlap: float = 0.5
    least_score: float = 0.0
    least_pixels: int = 1
    least_fill: float = 0.0
    region_overlap: float = 0.5
    most: int = 1024
    hops: int = 0
    agreement: bool = False

    def __post_init__(self) -> None:
        """Raises FieldError for what the kernel would not take."""
        check_fields(self)
        for name, value in asdict(self).items():
            try:
                InstanceSpec((0,), **{name: value})
            except ValueError as error:
                raise FieldError(name, str(error).removeprefix(f"{name} ")) from error

    def spec(self, things: tuple[int, ...]) -> InstanceSpec | None:
        """What a manifest holds; None where there are no things."""
        return InstanceSpec(things, **asdict(self)) if things else None


@dataclass(frozen=True)
class StageConfig:
    """How one branch is trained: Adam with the poly rate, power 0.9 (section 4.2).

    Attributes:
        iterations: Steps of the optimiser; 0: the branch is taken as it is.
        batch: Crops or views a step.
        rate: Learning rate at the start.
        weight_decay: Decoupled weight decay.
        checkpoint_every: Steps from checkpoint to checkpoint; divides `iterations`.
    """

    iterations: int
    batch: int = 1
    rate: float = 1e-3
    weight_decay: float = 0.0
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        """Raises FieldError for counts that do not fit together."""
        check_fields(self)
        for name, least in (("iterations", 0), ("batch", 1), ("checkpoint_every", 1)):
            require(self, name, getattr(self, name) >= least, f"{least} or more")
        require(self, "rate", self.rate > 0, "a number above 0")
        require(self, "weight_decay", self.weight_decay >= 0, "0 or more")
        divides = self.iterations % self.checkpoint_every == 0
        require(self, "checkpoint_every", divides, f"a divisor of iterations, {self.iterations}")


AS_IT_IS = StageConfig(0)
"""Of a branch that is not trained."""
