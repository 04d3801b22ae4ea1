"""From the raw error logit to an error probability that means what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from errseg_rt.kernels.calibrate.reference import calibrate_reference

if TYPE_CHECKING:
    from errseg_rt.kernels.calibrate.cpu import Segments


@dataclass(frozen=True)
class Calibration:
    """A monotone, piecewise linear map from error logits to error probabilities, constant beyond its ends.

    Raw P_ep is no probability: eq. 2 balances errors against correct pixels, and so moves it up.

    Attributes:
        logits: Error logits at the knots, increasing.
        probabilities: Error probabilities at the knots, in 0..1, never decreasing.
    """

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ValueError unless the knots describe a monotone map."""
        if len(self.logits) != len(self.probabilities) or not self.logits:
            raise ValueError(f"knots must pair: {len(self.logits)} logits, {len(self.probabilities)} probabilities")
        if not np.all(np.isfinite(self.logits)) or np.any(np.diff(self.logits) <= 0):
            raise ValueError(f"logits of the knots must increase, got {self.logits}")
        if not all(0 <= p <= 1 for p in self.probabilities) or np.any(np.diff(self.probabilities) < 0):
            raise ValueError(f"probabilities of the knots must not decrease in 0..1, got {self.probabilities}")

    @classmethod
    def from_dict(cls, knots: Mapping[str, Sequence[float]]) -> Calibration:
        """From its fields, as JSON has them; KeyError, TypeError or ValueError where they are not."""
        return cls(tuple(knots["logits"]), tuple(knots["probabilities"]))

    def __call__(self, error_logit: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Error probability, `float32` of the shape of the error logits; a NaN stays one."""
        if error_logit.dtype not in ("float32", "float16"):
            return calibrate_reference(error_logit, self.logits, self.probabilities).astype(np.float32)
        from errseg_rt.kernels.calibrate.cpu import calibrate

        return calibrate(error_logit, self._segments)

    @cached_property
    def _segments(self) -> Segments:
        from errseg_rt.kernels.calibrate.cpu import Segments

        return Segments.of(self.logits, self.probabilities)
