"""Recipes: everything that decides a training, as TOML read into frozen dataclasses."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from errseg_rt.bundle.classes import CLASS_SETS, ClassSet
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.networks.cascade import CascadeConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STAGES = ("semantic", "error", "error_frozen", "detail", "detail_frozen")
"""Trainings in their order; the frozen ones go on with the norms of their branch made constants."""
_METHODS = {
    "selector": ("error", "entropy", "confidence", "everywhere"),
    "learn": ("flagged", "everywhere", "hardest"),
    "fusion": ("replace", "average"),
}
T = TypeVar("T")


@dataclass(frozen=True)
class DataConfig:
    """What is learned from.

    Attributes:
        classes: Name of the class set, a key of `CLASS_SETS`.
        void: Label ids that mean "no class".
        rendered: Share of the training crops that come from rendered street scenes.
        merge: For each class, the classes of the initial weights' network that it merges; empty: they are the same.
    """

    classes: str
    void: tuple[int, ...] = ()
    rendered: float = 0.0
    merge: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown class set, and for shares and merges that cannot be."""
        if self.classes not in CLASS_SETS:
            raise ValueError(f"no class set is called {self.classes!r}: choose from {sorted(CLASS_SETS)}")
        if not 0 <= self.rendered <= 1:
            raise ValueError(f"rendered is a share in 0..1, got {self.rendered}")
        if not all(self.merge):
            raise ValueError("merge has an empty list; every class starts from one of the initial weights' at least")
        if self.merge and len(self.merge) != len(CLASS_SETS[self.classes]):
            raise ValueError(f"merge has {len(self.merge)} lists for {len(CLASS_SETS[self.classes])} classes")


@dataclass(frozen=True)
class AugmentConfig:
    """Random views of a frame (Gong et al. 2021, section 4.4).

    Attributes:
        crop: Height and width of a crop, in pixels of the input.
        scales: Factors, on top of the input's own, of which one is drawn.
        rotation: Largest rotation, in degrees, to either side.
        flip: Whether to mirror every second crop.
    """

    crop: tuple[int, int]
    scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    rotation: float = 10.0
    flip: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError for crops and scales that give no picture."""
        if len(self.crop) != 2 or min(self.crop) < 16:
            raise ValueError(f"crop is a height and a width of at least 16 pixels, got {self.crop}")
        if not self.scales or min(self.scales) <= 0 or self.rotation < 0:
            raise ValueError(f"scales are positive and rotation is not negative: {self.scales = }, {self.rotation = }")


@dataclass(frozen=True)
class ViewsConfig:
    """Views of whole frames for the branches behind the frozen one, whose taps are computed once and kept.

    Attributes:
        scales: Factors, on top of the input's own, of which a batch draws one.
        flip: Whether to mirror every second view.
        rendered: Rendered frames that are learned from beside the real ones, of streets the semantic branch never saw.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    rendered: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for scales that give no picture, and a negative count."""
        if not self.scales or min(self.scales) <= 0 or self.rendered < 0:
            raise ValueError(f"scales are positive, rendered is a count: {self.scales = }, {self.rendered = }")


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
        """Raises ValueError for counts that do not fit together."""
        if self.folds == 1 or min(self.folds, self.gap, self.iterations) < 0 or self.blocks < 1:
            raise ValueError(f"folds are 0 or at least 2, blocks at least 1, gap not negative, got {self}")
        if self.folds and not self.iterations:
            raise ValueError(f"the {self.folds} folds need iterations of their own")


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
        adjustment: Logit adjustment of the trained detail branch: this times minus the logarithm of each class's share.
    """

    selector: str = "error"
    learn: str = "flagged"
    fusion: str = "replace"
    limit: float = 0.05
    hardest: float = 0.2
    adjustment: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown choice, and shares that are none."""
        for name, choices in _METHODS.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not 0 < self.hardest <= 1 or self.limit < 0 or not 0 <= self.adjustment <= 1:
            raise ValueError(
                f"hardest and adjustment lie in 0..1, limit is not negative: "
                f"{self.hardest = }, {self.adjustment = }, {self.limit = }"
            )


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
        """Raises ValueError for weights that are none."""
        if min(self.easy, self.hard) <= 0 or min(self.correct, self.classes) < 0 or not 0 < self.rho < 1:
            raise ValueError(f"weights are positive, correct and classes may be 0, rho lies between 0 and 1: {self}")


@dataclass(frozen=True)
class BootstrapConfig:
    """Online bootstrapping of the semantic branch (Wu et al. 2016, eq. 1).

    Attributes:
        probability: A pixel counts where the probability of its true class is below this; 0: all pixels count alike.
        keep: Least share of the batch's valid pixels that count, the hardest ones, in 0..1.
    """

    probability: float = 0.0
    keep: float = 0.1

    def __post_init__(self) -> None:
        """Raises ValueError for values outside 0..1."""
        if not 0 <= self.probability <= 1 or not 0 < self.keep <= 1:
            raise ValueError(f"probability and keep lie in 0..1, got {self}")


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
        """Raises ValueError for counts that do not fit together."""
        if self.iterations < 0 or min(self.batch, self.checkpoint_every) < 1 or self.rate <= 0:
            raise ValueError(f"batch, rate and checkpoint_every must be positive, iterations not negative, got {self}")
        if self.iterations % self.checkpoint_every:
            raise ValueError(f"{self.checkpoint_every = } does not divide {self.iterations = }")


@dataclass(frozen=True)
class Recipe:
    """One training of all three branches, in the order semantic, error, detail.

    Attributes:
        name: What the recipe is called.
        seed: Seed of weights, crops and scenes.
        threshold: t of eq. 4, for training the detail branch.
        cascade: Shape of the networks.
        data: What is learned from.
        input: Input of the networks.
        augment: Random crops.
        semantic: Training of the semantic branch.
        error: Training of the error-prediction branch.
        detail: Training of the detail branch.
        error_frozen: Its fine-tuning with frozen norms; without iterations its norms stay as they are.
        detail_frozen: The same for the detail branch.
        views: Views of whole frames that the branches learn from; None: random crops.
        cross_fit: Folds of the semantic branch.
        method: What the detail branch learns from, and where it answers.
        error_loss: Weights of eq. 2.
        bootstrap: Which pixels the semantic branch learns from.
        bundle_threshold: t of the bundle, for which the cascade is scored; None: that of training.
        provenance: What the bundle shall say of data and initial weights: their sources and terms.
    """

    name: str
    seed: int
    threshold: float
    cascade: CascadeConfig
    data: DataConfig
    input: InputSpec
    augment: AugmentConfig
    semantic: StageConfig
    error: StageConfig
    detail: StageConfig
    error_frozen: StageConfig = StageConfig(0)
    detail_frozen: StageConfig = StageConfig(0)
    views: ViewsConfig | None = None
    cross_fit: CrossFitConfig = CrossFitConfig()
    method: MethodConfig = MethodConfig()
    error_loss: ErrorLossConfig = ErrorLossConfig()
    bootstrap: BootstrapConfig = BootstrapConfig()
    bundle_threshold: float | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for a threshold or seed that is none, and for classes that do not match."""
        for name in ("threshold", "bundle_threshold"):
            t = getattr(self, name)
            if t is not None and not 0 < t < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {t}")
        if self.cross_fit.folds and self.views is None:
            raise ValueError("cross_fit needs views: only of whole frames are the taps of a fold kept")
        if self.cross_fit.iterations % self.semantic.checkpoint_every:
            raise ValueError(f"{self.semantic.checkpoint_every = } does not divide {self.cross_fit.iterations = }")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.cascade.classes != len(self.classes):
            raise ValueError(f"{self.cascade.classes = }, but {self.data.classes} has {len(self.classes)} classes")

    @property
    def classes(self) -> ClassSet:
        """The class set that `data.classes` names."""
        return CLASS_SETS[self.data.classes]

    @property
    def deployed(self) -> Recipe:
        """The recipe at the threshold of its bundle."""
        return replace(self, threshold=self.bundle_threshold or self.threshold)

    def stage(self, name: str) -> StageConfig:
        """The training `name`, one of `STAGES`."""
        stage: StageConfig = getattr(self, name)
        return stage


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        Path(entry.name).stem for entry in (files(__package__) / "recipes").iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe by its name in the package or by its path.

    A recipe with a `base` is another recipe with some values changed; its path starts from the recipe's folder.

    Args:
        name: `camvid`, or the path of a TOML file.
        changes: Values that take the place of the recipe's own, as TOML: `seed=2`, `detail.iterations=100`.

    Raises:
        DataError: There is no such recipe, or it has a field missing, unknown, or of an impossible value.
    """
    try:
        table = _read(name)
        for change in changes:
            table = _merge(table, tomllib.loads(change))
        return parse_recipe(Path(name).stem, table)
    except (ValueError, TypeError) as error:
        raise DataError(f"recipe {name}: {error}") from error


def _read(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The table of a recipe, the base of those `above`, laid over that of its own base."""
    if name in above:
        raise DataError(f"a recipe cannot be its own base: {' <- '.join((*above, name))}")
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise DataError(f"recipe {path}: no such file; recipes of the package: {', '.join(recipe_names())}")
        source: Any = path
    elif name in recipe_names():
        source = files(__package__) / "recipes" / f"{name}.toml"
    else:
        raise DataError(f"no recipe is called {name!r}: choose from {', '.join(recipe_names())}, or give a .toml file")
    table = tomllib.loads(source.read_text(encoding="utf-8"))
    base = table.pop("base", None)
    if base is None:
        return table
    return _merge(_read(str(path.parent / base) if base.endswith(".toml") else base, (*above, name)), table)


def _merge(table: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = {k: _merge(table.get(k, {}), v) if isinstance(v, dict) else v for k, v in changes.items()}
    return {**table, **merged}


def parse_recipe(name: str, table: dict[str, Any]) -> Recipe:
    """A recipe from its TOML table.

    Raises:
        ValueError: A field is unknown, or has an impossible value.
        TypeError: A field is missing.
    """
    table = {"input": {}, **table}
    data = _build(DataConfig, table.pop("data", {}))
    cascade = _build(CascadeConfig, {"classes": len(CLASS_SETS[data.classes]), **table.pop("cascade", {})})
    sections: dict[str, Any] = {
        "input": InputSpec,
        "augment": AugmentConfig,
        "views": ViewsConfig,
        "cross_fit": CrossFitConfig,
        "method": MethodConfig,
        "error_loss": ErrorLossConfig,
        "bootstrap": BootstrapConfig,
        **dict.fromkeys(STAGES, StageConfig),
    }
    built = {key: _build(kind, table.pop(key)) for key, kind in sections.items() if table.get(key) is not None}
    return _build(Recipe, {"name": name, "cascade": cascade, "data": data, **built, **table})


def _build(kind: type[T], table: dict[str, Any]) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    unknown = set(table) - known
    if unknown:
        raise ValueError(
            f"{kind.__name__} has no field {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}"
        )
    return kind(**{key: _frozen(value) for key, value in table.items()})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
