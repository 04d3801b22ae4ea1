"""What an entry of a summary says of the errors to expect in a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.frames.segmentation import Segmentation


def expected(result: Segmentation, truth: npt.NDArray[np.uint8] | None) -> dict[str, Any]:
    """What an entry of a summary says of errors to expect: of the pixels that are not void, where the truth is known.

    Args:
        result: Of the frame.
        truth: True class ids, `uint8 [H, W]`, `IGNORE` where void; None where they are not known.

    Returns:
        `expected_error`, the same as `mean_error_probability` (its former name), None without an error map or a pixel
        that counts; `expected_precision` by class.
    """
    counted = None if truth is None else truth != IGNORE
    error = result.expected_error if counted is None else result.expected_error_where(counted)
    precision = {} if error is None else result.expected_precision(counted)
    return {"mean_error_probability": error, "expected_error": error, "expected_precision": precision}


def is_expected(entry: Mapping[str, Any], manifest: Manifest) -> bool:
    """Whether an entry of an earlier summary says what `expected` does, of a bundle.

    Raises:
        LookupError, TypeError, AttributeError: It does not.
    """
    error, precision = entry["expected_error"], entry["expected_precision"]
    shares = [*precision.values(), *([] if error is None else [error])]
    is_known = error is not None or not manifest.has_errors or "confusion" in entry
    is_named = {*precision} <= {*manifest.classes.names}
    return is_known and is_named and entry["mean_error_probability"] == error and all(0 <= each <= 1 for each in shares)
