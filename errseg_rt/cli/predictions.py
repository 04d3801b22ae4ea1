"""`errseg-rt evaluate --predictions`: scores of label files, with nothing run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.cli.labelled import label_classes, open_frames, print_warnings, report_failures
from errseg_rt.cli.options import print_table
from errseg_rt.cli.outputs import Outputs
from errseg_rt.errors import DataError
from errseg_rt.frames.reading import Reading
from errseg_rt.system.atomic import write_json


def score_files(
    bundle: str,
    data: Path,
    folder: Path,
    ids: str,
    labelled: Mapping[str, Any],
    merge: str | None,
    reading: Reading,
    json_file: Path | None,
    csv_file: Path | None,
) -> None:
    """Score a folder of predictions.

    Args:
        bundle: Name or folder of the bundle whose classes they are of.
        data: Labelled frames.
        folder: The predictions.
        ids: What their ids mean, as `LabelMap.open` takes it.
        labelled: Options of `open_frames`.
        merge: As the option `--merge` takes it.
        reading: What is taken of image files.
        json_file: File for all figures; None: none.
        csv_file: File for the tables; None: none.
    """
    from errseg_rt.datasets import LabelMap
    from errseg_rt.datasets.doubts import doubts
    from errseg_rt.evaluation.label_scores import LabelScores
    from errseg_rt.evaluation.predictions import pair_predictions, score_predictions
    from errseg_rt.evaluation.tables import label_figures, write_csv

    opened = Bundle.open(bundle)
    meaning = LabelMap.open(ids, opened.manifest.classes)
    classes, coarse, things = label_classes(merge, opened.manifest)
    frames = open_frames(data, classes, reading=reading, things=things, **labelled)
    scores = LabelScores(len(classes), boundary=True, void_labels=True)
    done = score_predictions(frames, pair_predictions(frames, folder), meaning, scores, "score predictions", coarse)
    figures = scores.to_dict(classes)
    tables = label_figures({"predictions": figures})
    warnings = doubts(scores.confusion.counts, classes, bundle, frames.label_map.first_id)
    outputs = Outputs()
    if json_file is not None:
        accuracy = zip(done.scored, scores.frame_accuracy(), strict=True)
        answer = {
            "bundle": opened.stamp(),
            "data": {"folder": str(data), **labelled, "merge": merge},
            "predictions": str(folder),
            "ids": ids,
            "frames": len(done.scored),
            **figures,
            "per_frame": [{"name": frames.names[index], "accuracy": share} for index, share in accuracy],
            "failed": done.failed,
            "notes": warnings,
        }
        with outputs.writing(json_file):
            write_json(json_file, answer)
    if csv_file is not None:
        with outputs.writing(csv_file):
            write_csv(tables, csv_file)
    for table in tables:  # after the files: whoever reads may have gone
        print_table(table.title, table.headings(), table.text())
    print(f"{folder}: {len(done.scored)} of {len(frames)} frames scored")
    print_warnings(warnings)
    report_failures(done.failed, outputs.faults)
    if not scores.frames[:, 1].any():
        raise DataError(f"{data}: no pixel has a true label; there is nothing to score")
