"""Recipes: everything that decides a training, as TOML read into frozen dataclasses."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from errseg_rt.classes import CAMVID, ClassSet
from errseg_rt.errors import DataError
from errseg_rt.input_spec import InputSpec
from errseg_rt.networks.cascade import CascadeConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CLASS_SETS = {"camvid": CAMVID}
STAGES = ("semantic", "error", "detail")
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
class StageConfig:
    """How one branch is trained: Adam with the poly rate, power 0.9 (section 4.2).

    Attributes:
        iterations: Steps of the optimiser.
        batch: Crops a step.
        rate: Learning rate at the start.
        weight_decay: Decoupled weight decay.
        checkpoint_every: Steps from checkpoint to checkpoint; divides `iterations`.
    """

    iterations: int
    batch: int
    rate: float
    weight_decay: float = 0.0
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        """Raises ValueError for counts that do not fit together."""
        if min(self.iterations, self.batch, self.checkpoint_every) < 1 or self.rate <= 0:
            raise ValueError(f"iterations, batch, rate and checkpoint_every must be positive, got {self}")
        if self.iterations % self.checkpoint_every:
            raise ValueError(f"{self.checkpoint_every = } does not divide {self.iterations = }")


@dataclass(frozen=True)
class Recipe:
    """One training of all three branches, in the order semantic, error, detail.

    Attributes:
        name: What the recipe is called.
        seed: Seed of weights, crops and scenes.
        threshold: t of eq. 4, for training the detail branch and for the bundle.
        cascade: Shape of the networks.
        data: What is learned from.
        input: Input of the networks.
        augment: Random crops.
        semantic: Training of the semantic branch.
        error: Training of the error-prediction branch.
        detail: Training of the detail branch.
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
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for a threshold or seed that is none, and for classes that do not match."""
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.cascade.classes != len(self.classes):
            raise ValueError(f"{self.cascade.classes = }, but {self.data.classes} has {len(self.classes)} classes")

    @property
    def classes(self) -> ClassSet:
        """The class set that `data.classes` names."""
        return CLASS_SETS[self.data.classes]

    def stage(self, name: str) -> StageConfig:
        """Training of the branch `name`, one of `STAGES`."""
        stage: StageConfig = getattr(self, name)
        return stage


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        Path(entry.name).stem for entry in (files(__package__) / "recipes").iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(name: str, seed: int | None = None) -> Recipe:
    """Read a recipe by its name in the package or by its path.

    Args:
        name: `camvid`, or the path of a TOML file.
        seed: Takes the place of the recipe's own seed.

    Raises:
        DataError: There is no such recipe, or it has a field missing, unknown, or of an impossible value.
    """
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise DataError(f"recipe {path}: no such file; recipes of the package: {', '.join(recipe_names())}")
        source: Any = path
    elif name in recipe_names():
        source = files(__package__) / "recipes" / f"{name}.toml"
    else:
        raise DataError(f"no recipe is called {name!r}: choose from {', '.join(recipe_names())}, or give a .toml file")
    try:
        recipe = parse_recipe(path.stem, tomllib.loads(source.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"recipe {name}: {error}") from error
    return recipe if seed is None else replace(recipe, seed=seed)


def parse_recipe(name: str, table: dict[str, Any]) -> Recipe:
    """A recipe from its TOML table.

    Raises:
        ValueError: A field is unknown, or has an impossible value.
        TypeError: A field is missing.
    """
    table = dict(table)
    data = _build(DataConfig, table.pop("data", {}))
    cascade = _build(CascadeConfig, {"classes": len(CLASS_SETS[data.classes]), **table.pop("cascade", {})})
    sections: dict[str, Any] = {"input": InputSpec, "augment": AugmentConfig, **dict.fromkeys(STAGES, StageConfig)}
    built = {key: _build(kind, table.pop(key, {})) for key, kind in sections.items()}
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
