"""Would a frame's own expected error say when refinement makes it worse, so that it could hold back?

    python -m benchmarks.hold_back --frames camvid/val cityscapes

Of each frame, what the two error maps expect refinement to change (the mean of `error_probability` less that of
`semantic_error_probability`), beside what it does change (errors of the final labels less those of the semantic ones),
in points of the frame's pixels. A rule that keeps the semantic labels where the expected change is above 0 holds back
in the frames that are counted; another takes of each pixel the label whose error probability is less. Folders are as
`benchmarks.large_frames` takes them; rendered streets come always.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.large_frames import labelled, streets
from benchmarks.report import Row, finish, spread
from errseg_rt import Runtime
from errseg_rt.bundle.classes import IGNORE
from errseg_rt.datasets import Sample

Changes = npt.NDArray[np.float64]
_SIZE = (720, 960)  # of rendered streets
_STREETS = 20


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", nargs="*", type=Path, default=[], help="folders of labelled frames")
    args, rest = parser.parse_known_args()
    rows: list[Row] = []
    with Runtime("camvid") as runtime:
        rows += in_rows("streets", changes(runtime, streets(_SIZE, _STREETS)))
        for folder in args.frames:
            rows += in_rows(folder.name, changes(runtime, labelled(folder)))
    finish(rows, "hold_back", rest)


def changes(runtime: Runtime, samples: Iterable[Sample]) -> Changes:
    """What refinement changes, in points of the frame's pixels that have a class, `[frames, 3]`.

    Expected, true, and what is true if each pixel takes the label whose error probability is less.
    """
    found = []
    for frame, truth in samples:
        result = runtime.segment(frame, semantic=True)
        assert result.semantic_labels is not None
        counted = truth != IGNORE
        maps = result.error_map(), result.semantic_error_map()
        expected = [each[counted].mean(dtype=np.float64) for each in maps]
        lesser = np.where(maps[0] < maps[1], result.labels, result.semantic_labels)
        of = [np.mean((labels != truth)[counted]) for labels in (result.labels, result.semantic_labels, lesser)]
        found.append([100 * (expected[0] - expected[1]), 100 * (of[0] - of[1]), 100 * (of[2] - of[1])])
    return np.array(found, np.float64).reshape(-1, 3)


def in_rows(where: str, found: Changes) -> list[Row]:
    """Rows of one set."""
    expected, true, by_pixel = found.T
    among = f"of {len(found)} frames"
    return [
        spread(f"hold_back/expected_change@{where}", expected, "points", among),
        spread(f"hold_back/true_change@{where}", true, "points", among),
        spread(f"hold_back/true_change_by_pixel@{where}", by_pixel, "points", among),
        Row(f"hold_back/made_worse@{where}", float((true > 0).sum()), "frames", note=among),
        Row(f"hold_back/would_hold_back@{where}", float((expected > 0).sum()), "frames", note=among),
        Row(
            f"hold_back/would_hold_back_rightly@{where}",
            float(((expected > 0) & (true > 0)).sum()),
            "frames",
            note=among,
        ),
    ]


if __name__ == "__main__":
    main()
