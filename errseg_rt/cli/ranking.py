"""Which frames are expected to be wrong most: those worth a look, or a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from errseg_rt.bundle.manifest import Manifest
from errseg_rt.cli.options import print_table
from errseg_rt.datasets.scores import percent
from errseg_rt.errors import BundleError

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
