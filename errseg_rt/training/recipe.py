"""Recipes: everything that decides a training, as frozen dataclasses that check themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from errseg_rt.bundle.classes import CAMVID, CLASS_SETS, ClassSet
from errseg_rt.bundle.input_spec import LARGEST_SCALE, InputSpec
from errseg_rt.bundle.instance_spec import InstanceSpec
from errseg_rt.datasets.merge import Merge
from errseg_rt.errors import DataError
from errseg_rt.networks.cascade import CascadeConfig
from errseg_rt.networks.registry import GIVEN
from errseg_rt.system.fields import FieldError, check_fields, require
from errseg_rt.taps.chosen import check_names

STAGES = ("semantic", "error", "error_frozen", "detail", "detail_frozen", "localization")
"""Trainings in their order; the frozen ones go on with the norms of their branch made constants."""
_METHODS = {
    "selector": ("error", "entropy", "confidence", "everywhere"),
    "learn": ("flagged", "everywhere", "hardest"),
    "fusion": ("replace", "average"),
}


_LARGEST_CROP = 8192  # pixels a side


def _check_scales(config: AugmentConfig | ViewsConfig) -> None:
    """Raises FieldError for scales that give no picture, or a boundless one."""
    require(config, "scales", min(config.scales, default=0) > 0, "positive numbers, at least one")
    require(config, "scales", max(config.scales) <= LARGEST_SCALE, f"numbers up to {LARGEST_SCALE:g}")


@dataclass(frozen=True)
class DataConfig:
    """What is learned from.

    Attributes:
        classes: The network's classes: the name of a set, a key of `CLASS_SETS`, or classes of one's own.
        void: Label ids that mean "no class", where ids are the classes; None: as in `LabelMap.of`.
        void_names: Names that mean "no class" in a label map's file, beside those that always do.
        first_id: Id of the first class, where ids are the classes; None: 0, or what the layout has.
        label_map: What label ids mean, in the stead of `void` and `first_id`: a name or a file, as in `LabelMap.open`.
        merge: Coarse classes, in the order of their label ids, and the network's classes that each merges; then the
            labels are of these, but for those of `--also`. Empty: the labels are of the network's classes.
        also: Share of the crops and views that are of the frames of `--also`; 0: each is as likely as any other frame.
        rendered: Share of the training crops that come from rendered street scenes.
        validation: Share of the frames to score on, where the data has no splits: whole groups of frames that look
            alike, as `alike.alike_groups` finds them. 0: the data has splits.
    """

    classes: str | ClassSet
    void: tuple[int, ...] | None = ()
    void_names: tuple[str, ...] = ()
    first_id: int | None = None
    label_map: str | None = None
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    also: float = 0.0
    rendered: float = 0.0
    validation: float = 0.0

    def __post_init__(self) -> None:
        """Raises FieldError for an unknown class set, and for ids, shares and merges that cannot be."""
        check_fields(self)
        _check_classes(self)
        require(self, "void", all(0 <= label <= 255 for label in self.void or ()), "label ids in 0..255")
        require(self, "first_id", self.first_id is None or 0 <= self.first_id <= 255, "a label id in 0..255")
        is_alone = self.label_map is None or (not self.void and self.first_id is None)
        require(self, "label_map", is_alone, "none beside void or first_id, as it says of each id what it means")
        require(self, "rendered", 0 <= self.rendered <= 1, "a share in 0..1")
        require(self, "also", 0 <= self.also < 1, "a share below 1")
        require(self, "validation", 0 <= self.validation < 1, "a share below 1")
        _check_merge(self)

    @property
    def class_set(self) -> ClassSet:
        """The network's classes."""
        return _class_set(self)


@dataclass(frozen=True)
class InitialConfig:
    """The network whose weights the semantic branch starts from, where its classes are others.

    Attributes:
        classes: Its classes, as `DataConfig` has them; empty: those of the cascade.
        merge: For each class of the cascade, by name, the classes of that network whose classifier rows it starts from
            the mean of.
    """

    classes: str | ClassSet = ""
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises FieldError for unknown classes, and for one of `classes` and `merge` without the other."""
        check_fields(self)
        require(self, "merge", bool(self.merge) == bool(self.classes), "classes and merge, or neither")
        if self.classes:
            _check_classes(self)
            _check_merge(self)

    @property
    def class_set(self) -> ClassSet:
        """Its classes."""
        return _class_set(self)


def _check_classes(config: DataConfig | InitialConfig) -> None:
    is_known = isinstance(config.classes, ClassSet) or config.classes in CLASS_SETS
    require(config, "classes", is_known, f"one of {', '.join(sorted(CLASS_SETS))}, or a class set's file")


def _check_merge(config: DataConfig | InitialConfig) -> None:
    if config.merge:
        try:
            Merge.of(config.merge, config.class_set, "merge")
        except DataError as error:
            raise FieldError("merge", str(error).removeprefix("merge: ")) from error


def _class_set(config: DataConfig | InitialConfig) -> ClassSet:
    return config.classes if isinstance(config.classes, ClassSet) else CLASS_SETS[config.classes]


@dataclass(frozen=True)
class AugmentConfig:
    """Random views of a frame (Gong et al. 2021, section 4.4).

    Attributes:
        crop: Height and width of a crop, in pixels of the input.
        scales: Factors, on top of the input's own, of which one is drawn.
        rotation: Largest rotation, in degrees, to either side.
        flip: Whether to mirror every second crop.
        light: Most doublings, or halvings, of a crop's brightness; light that is too much for 8 bits is cut off.
    """

    crop: tuple[int, int]
    scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    rotation: float = 10.0
    flip: bool = True
    light: float = 0.0

    def __post_init__(self) -> None:
        """Raises FieldError for crops and scales that give no picture."""
        check_fields(self)
        is_crop = min(self.crop) >= 16 and max(self.crop) <= _LARGEST_CROP
        require(self, "crop", is_crop, f"a height and a width of at least 16 pixels, and at most {_LARGEST_CROP}")
        _check_scales(self)
        require(self, "rotation", self.rotation >= 0, "0 or more degrees")
        require(self, "light", 0 <= self.light <= 8, "a number in 0..8")


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
        """Raises FieldError for scales that give no picture, and a negative count."""
        check_fields(self)
        _check_scales(self)
        require(self, "rendered", self.rendered >= 0, "0 or more frames")


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
        trust: Factor on what the trained error-prediction branch adds to the semantic logits, with `cascade.residual`:
            0 leaves 1 - max P_sb, 1 what it learned, which frames unlike those that it learned from may not bear out.
        adjustment: Logit adjustment of the trained detail branch: this times minus the logarithm of each class's share.
    """

    selector: str = "error"
    learn: str = "flagged"
    fusion: str = "replace"
    limit: float = 0.05
    hardest: float = 0.2
    trust: float = 1.0
    adjustment: float = 0.0

    def __post_init__(self) -> None:
        """Raises FieldError for an unknown choice, and shares that are none."""
        check_fields(self)
        for name, choices in _METHODS.items():
            require(self, name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        require(self, "limit", self.limit >= 0, "0 or more")
        require(self, "hardest", 0 < self.hardest <= 1, "a share above 0, up to 1")
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
    error_frozen: StageConfig = StageConfig(0)
    detail_frozen: StageConfig = StageConfig(0)
    localization: StageConfig = StageConfig(0)
    views: ViewsConfig | None = None
    cross_fit: CrossFitConfig = CrossFitConfig()
    method: MethodConfig = MethodConfig()
    error_loss: ErrorLossConfig = ErrorLossConfig()
    bootstrap: BootstrapConfig = BootstrapConfig()
    box_loss: BoxLossConfig = BoxLossConfig()
    instances: InstancesConfig = InstancesConfig()
    initial: InitialConfig = InitialConfig()
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
