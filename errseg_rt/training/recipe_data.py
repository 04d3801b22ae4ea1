"""Sections of a recipe: what is learned from, and in what views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from errseg_rt.bundle.classes import CLASS_SETS, ClassSet
from errseg_rt.bundle.input_spec import LARGEST_SCALE
from errseg_rt.datasets.merge import Merge
from errseg_rt.errors import DataError
from errseg_rt.system.fields import FieldError, check_fields, require

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
