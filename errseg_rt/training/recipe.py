"""Recipes: everything that decides a training, as frozen dataclasses that check themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from errseg_rt.bundle.classes import CAMVID, ClassSet
from errseg_rt.bundle.input_spec import LARGEST_SCALE, InputSpec
from errseg_rt.datasets.merge import Merge
from errseg_rt.networks.cascade import CascadeConfig
from errseg_rt.networks.registry import GIVEN
from errseg_rt.system.fields import FieldError, check_fields, require
from errseg_rt.taps.chosen import check_names
from errseg_rt.training.recipe_data import AugmentConfig, DataConfig, InitialConfig, ViewsConfig
from errseg_rt.training.recipe_learning import (
    AS_IT_IS,
    BootstrapConfig,
    BoxLossConfig,
    CrossFitConfig,
    ErrorLossConfig,
    InstancesConfig,
    MethodConfig,
    StageConfig,
)

STAGES = ("semantic", "error", "error_frozen", "detail", "detail_frozen", "localization")
"""Trainings in their order; the frozen ones go on with the norms of their branch made constants."""


@dataclass(frozen=True)
class Recipe:
    """One training of all three branches, in the order semantic, error, detail.

    Attributes:
        name: What the recipe is called.
        seed: Seed of weights, crops and scenes.
        threshold: t of eq. 4, for training the detail branch.
        cascade: Shape of the networks.
        data: What is learned from.
        initial: The network of the initial weights, where its classes are others.
        input: Input of the networks.
        augment: Random crops.
        semantic: Training of the semantic branch.
        error: Training of the error-prediction branch.
        detail: Training of the detail branch.
        error_frozen: Its fine-tuning with frozen norms; without iterations its norms stay as they are.
        detail_frozen: The same for the detail branch.
        localization: Training of the localization head, where `cascade.things` has instances.
        views: Views of whole frames that the branches learn from; None: random crops.
        cross_fit: Folds of the semantic branch.
        method: What the detail branch learns from, and where it answers.
        error_loss: Weights of eq. 2.
        bootstrap: Which pixels the semantic branch learns from.
        box_loss: What the localization head learns from.
        instances: How the bundle finds instances.
        bundle_threshold: t of the bundle, for which the cascade is scored; None: that of training.
        taps: Names of the tensors, or modules, of a network of the user's that the branches work on, by tap; empty: the
            network is one of the package, or they are proposed.
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
    error_frozen: StageConfig = AS_IT_IS
    detail_frozen: StageConfig = AS_IT_IS
    localization: StageConfig = AS_IT_IS
    views: ViewsConfig | None = None
    cross_fit: CrossFitConfig = field(default_factory=CrossFitConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    error_loss: ErrorLossConfig = field(default_factory=ErrorLossConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    box_loss: BoxLossConfig = field(default_factory=BoxLossConfig)
    instances: InstancesConfig = field(default_factory=InstancesConfig)
    initial: InitialConfig = field(default_factory=InitialConfig)
    bundle_threshold: float | None = None
    taps: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises FieldError for a threshold or seed that is none, and for sections that do not fit together."""
        check_fields(self)
        require(self, "seed", 0 <= self.seed < 2**32, "0 or more, below 2**32")
        require(self, "threshold", 0 < self.threshold < 1, "a number between 0 and 1")
        deployed = self.bundle_threshold
        require(self, "bundle_threshold", deployed is None or 0 < deployed < 1, "a number between 0 and 1")
        for name, section in (("augment", self.augment), ("views", self.views)):
            largest = LARGEST_SCALE / self.input.scale
            if section is not None and max(section.scales) > largest:
                wanted = f"numbers up to {largest:g}, on top of input.scale, {self.input.scale:g}"
                raise FieldError(f"{name}.scales", f"wanted {wanted}, got {list(section.scales)}")
        if self.cross_fit.folds and self.views is None:
            raise FieldError("cross_fit", "wants views: only of whole frames are the taps of a fold kept")
        if self.taps:
            check_names(self.taps, "taps")
        if self.cascade.semantic in GIVEN:
            require(self, "cross_fit", not self.cross_fit.folds, "no folds, as the network is frozen")
            if self.semantic.iterations:
                raise FieldError("semantic.iterations", "wanted 0, as the network is frozen")
        if self.input.size and (self.views is None or any(scale != 1 for scale in self.views.scales)):
            size = "x".join(map(str, self.input.size))
            raise FieldError("views.scales", f"wanted [1.0], as the network takes inputs of {size} only")
        if self.cross_fit.iterations % self.semantic.checkpoint_every:
            wanted = f"a multiple of semantic.checkpoint_every, {self.semantic.checkpoint_every}"
            raise FieldError("cross_fit.iterations", f"wanted {wanted}, got {self.cross_fit.iterations}")
        if self.cascade.classes != len(self.classes):
            wanted = f"{len(self.classes)}, those of {self._called}"
            raise FieldError("cascade.classes", f"wanted {wanted}, got {self.cascade.classes}")
        rendered = {"data.rendered": self.data.rendered, "views.rendered": self.views.rendered if self.views else 0}
        for name, share in rendered.items():
            if share and not self.can_render:
                wanted = f"0, as rendered scenes have the classes of camvid, not of {self._called}"
                raise FieldError(name, f"wanted {wanted}, got {share}")
        self._check_instances()
        if self.method.trust < 1 and not self.cascade.residual:
            raise FieldError("method.trust", f"wanted 1 without cascade.residual, got {self.method.trust}")
        strange = [name for name in self.initial.merge if name not in self.classes.names]
        bare = [name for name in self.classes.names if self.initial.merge and name not in self.initial.merge]
        if strange or bare:
            wanted = f"a list for each of the {len(self.classes)} classes"
            fault = f"none for {bare[0]!r}" if bare else f"one for {strange[0]!r}, which is none"
            raise FieldError("initial.merge", f"wanted {wanted}, got {fault}")

    def _check_instances(self) -> None:
        """Raises FieldError where boxes are learned of nothing, or things have no boxes that anything learns."""
        learns = self.localization.iterations > 0 or self.box_loss.joint > 0
        if learns and not self.cascade.things:
            raise FieldError("cascade.things", "wanted the classes that have instances, as their boxes are learned")
        if self.cascade.things and not learns:
            raise FieldError("localization.iterations", "wanted 1 or more, or box_loss.joint, with cascade.things")
        if self.box_loss.joint and not self.semantic.iterations:
            raise FieldError("box_loss.joint", "wanted 0, as the semantic branch is not trained")
        if self.cascade.things and self.data.merge:
            raise FieldError("data.merge", "wanted none with cascade.things: instances are of the network's classes")

    @property
    def classes(self) -> ClassSet:
        """The network's classes."""
        return self.data.class_set

    @property
    def merge(self) -> Merge | None:
        """The coarse classes of the labels; None: these are of the network's classes."""
        return Merge.of(self.data.merge, self.classes) if self.data.merge else None

    @property
    def label_classes(self) -> ClassSet:
        """The classes of the labels, which scores are of."""
        return self.classes if self.merge is None else self.merge.coarse

    @property
    def initial_rows(self) -> tuple[tuple[int, ...], ...]:
        """For each class, the rows of the initial classifier that it starts from the mean of; none: its own."""
        if not self.initial.merge:
            return ()
        merge = Merge.of(self.initial.merge, self.initial.class_set)
        return tuple(merge.sets[merge.coarse.names.index(name)] for name in self.classes.names)

    @property
    def can_render(self) -> bool:
        """Whether rendered street scenes have the classes of the labels."""
        return self.label_classes.names == CAMVID.names

    @property
    def _called(self) -> str:
        if self.data.merge:
            return "data.merge"
        return "data.classes" if isinstance(self.data.classes, ClassSet) else self.data.classes

    @property
    def deployed(self) -> Recipe:
        """The recipe at the threshold of its bundle."""
        return replace(self, threshold=self.bundle_threshold or self.threshold)

    def stage(self, name: str) -> StageConfig:
        """The training `name`, one of `STAGES`."""
        stage: StageConfig = getattr(self, name)
        return stage
