"""The manifest of a bundle: all that a runtime must know of a trained cascade, as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.classes import ClassSet
from errseg_rt.bundle.contract import BRANCHES, GRID_STRIDE
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.bundle.instance_spec import InstanceSpec, instance_spec_of
from errseg_rt.errors import BundleError
from errseg_rt.kernels.select.checks import level
from errseg_rt.system.json_text import parse_json

FORMAT_VERSION = 5
ERROR_SOURCES = ("branch", "max_softmax", "none")
"""Where the error logit of a front graph comes from: a trained branch, or 1 - max P_sb, or from nowhere."""


@dataclass(frozen=True)
class FileRecord:
    """What a file of the bundle must be: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> FileRecord:
        """The record of a file that holds these bytes."""
        return cls(len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """A trained cascade, without its weights, or a semantic network alone that was wrapped.

    Attributes:
        name: What the bundle is called.
        classes: Classes and palette.
        input: How a frame becomes the network's input.
        grid_stride: Input pixels from one grid pixel to the next.
        align_corners: How the grid lies on the input.
        threshold: t of eq. 4, as trained.
        lowest_threshold: The lowest t the cascade was evaluated at.
        calibration: From error logit to the probability that the semantic label is wrong.
        error: Where the error logit comes from, one of `ERROR_SOURCES`.
        is_calibrated: Whether the calibration was fitted on frames; else it is the word of what gives the logit.
        has_detail: Whether there is a detail branch: pixels are flagged, and labelled again.
        detail_calibration: From the doubt of the detail branch, the logit of 1 - max P_db, to the probability that its
            label is wrong, where P_ep is above `detail_threshold`; None: `calibration` is all that is known of it.
        detail_threshold: What P_ep of the pixels exceeds that it was fitted to; what a lower t flags besides has
            `calibration`, as the detail branch mends little there. None: t.
        instances: Which classes have instances, and how those are found; None: the bundle has no boxes to find them by.
        baseline_calibrations: The same for the scores that P_ep is held against, by their names in
            `errseg_rt.evaluation.error_maps`; empty where none were fitted.
        cascade: Shape of the networks, for the torch engine and for exporting again.
        provenance: Data, initial weights and their terms, command, date.
        metrics: Scores per data set.
        files: Every file of the bundle but the manifest, by its path within the folder.
    """

    name: str
    classes: ClassSet
    input: InputSpec
    align_corners: bool
    threshold: float
    lowest_threshold: float
    calibration: Calibration
    cascade: Mapping[str, Any]
    grid_stride: int = GRID_STRIDE
    error: str = "branch"
    is_calibrated: bool = True
    has_detail: bool = True
    detail_calibration: Calibration | None = None
    detail_threshold: float | None = None
    instances: InstanceSpec | None = None
    baseline_calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for a threshold or source that is none, or a file named outside the folder."""
        if not isinstance(self.name, str) or type(self.align_corners) is not bool or type(self.grid_stride) is not int:
            raise ValueError(f"impossible values: {self.name = }, {self.align_corners = }, {self.grid_stride = }")
        if self.error not in ERROR_SOURCES or {type(self.is_calibrated), type(self.has_detail)} != {bool}:
            raise ValueError(f"impossible values: {self.error = }, {self.is_calibrated = }, {self.has_detail = }")
        if self.has_detail and not self.has_errors:
            raise ValueError("a detail branch labels again what an error map flags, and there is none")
        if self.detail_calibration is not None and not self.has_detail:
            raise ValueError("there is a calibration of a detail branch, and no detail branch")
        if self.instances is not None and self.instances.classes[-1] >= len(self.classes):
            raise ValueError(
                f"instances are of class {self.instances.classes[-1]}, and there are {len(self.classes)} classes"
            )
        for name in ("threshold", "lowest_threshold", "detail_threshold"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        for path in self.files:
            parts = PurePosixPath(path)
            if parts.is_absolute() or ".." in parts.parts or "\\" in path or ":" in path or not parts.parts:
                raise ValueError(f"file {path!r} is named outside the bundle's folder")

    @property
    def fitted_threshold(self) -> float:
        """What P_ep exceeds where `detail_calibration` counts."""
        return self.detail_threshold or self.threshold

    @property
    def detail_level(self) -> float:
        """The same as an error logit, a float32."""
        return level(self.fitted_threshold)

    @property
    def has_errors(self) -> bool:
        """Whether there is an error map."""
        return self.error != "none"

    @property
    def things(self) -> tuple[int, ...]:
        """Ids of the classes of which it tells instances apart; none where it finds none."""
        return () if self.instances is None else self.instances.classes

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of its graphs."""
        return ("front", "refine") if self.has_detail else ("front",)

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches that it has, in the order in which a frame meets them."""
        has = {"semantic": True, "error": self.has_errors, "detail": self.has_detail}
        return tuple(branch for branch in BRANCHES if has[branch])

    def to_json(self) -> str:
        """The manifest as text."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Manifest:
        """Read a manifest.

        Args:
            text: Its JSON.
            where: Its path, for error messages.

        Raises:
            BundleError: It is no manifest, or one of a newer format.
        """
        try:
            table = parse_json(text)
        except ValueError as error:
            raise BundleError(f"{where}: not valid JSON ({error}); export the bundle again") from error
        version = table.pop("format_version", None) if isinstance(table, dict) else None
        if type(version) is not int or version < 1:
            raise BundleError(f"{where}: format_version is {version!r}, not that of a bundle; export it again")
        if version > FORMAT_VERSION:
            raise BundleError(
                f"{where}: format version {version} is newer than {FORMAT_VERSION}, the newest this errseg-rt reads; "
                "upgrade errseg-rt"
            )
        try:
            classes = table.pop("classes")
            colors = tuple((int(r), int(g), int(b)) for r, g, b in classes["colors"])
            spec: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.pop("input").items()}
            baselines, of_detail = table.pop("baseline_calibrations", {}), table.pop("detail_calibration", None)
            return cls(
                classes=ClassSet(tuple(classes["names"]), colors),
                input=InputSpec(**spec),
                calibration=Calibration.from_dict(table.pop("calibration")),
                detail_calibration=None if of_detail is None else Calibration.from_dict(of_detail),
                instances=instance_spec_of(table.pop("instances", None)),
                baseline_calibrations={name: Calibration.from_dict(knots) for name, knots in baselines.items()},
                files={path: FileRecord(**record) for path, record in table.pop("files").items()},
                **table,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"{where}: not a manifest ({error}); export the bundle again") from error
