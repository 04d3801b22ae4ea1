"""How much of each frame is expected to be wrong, and which frames most: those worth a look, or a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from errseg_rt.bundle.classes import IGNORE
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.cli.options import print_table
from errseg_rt.datasets.scores import percent
from errseg_rt.errors import BundleError
from errseg_rt.frames.segmentation import Segmentation

RankOption = Annotated[
    bool,
    typer.Option(
        "--rank",
        help="Also list the images by the share of their pixels that is expected to be wrong, the largest first: as "
        "`ranking` of summary.json, and the first twenty of it here.",
    ),
]
_SHOWN = 20


def check_rank(manifest: Manifest, *, is_asked: bool) -> None:
    """Raises BundleError where a bundle that has no error map shall rank."""
    if is_asked and not manifest.has_errors:
        raise BundleError(f"{manifest.name}: has no error map to rank by: its network gives labels alone")


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


def ranking(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The part of a summary that names the inputs by falling expected error; frames of void are left out."""
    known = [entry for entry in entries if entry["expected_error"] is not None]
    ranked = sorted(known, key=lambda entry: (-entry["expected_error"], entry["input"]))
    return {"ranking": [{name: entry[name] for name in ("input", "expected_error")} for entry in ranked]}


def print_ranking(summary: Mapping[str, Any]) -> None:
    """Print the first of a summary's `ranking`."""
    ranked = summary["ranking"]
    rows = [[entry["input"], percent(entry["expected_error"])] for entry in ranked[:_SHOWN]]
    print_table("Expected to be wrong", ["image", "% of its pixels"], rows)
    if len(ranked) > _SHOWN:
        print(f"the first {_SHOWN} of {len(ranked)}")
