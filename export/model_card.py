"""The model card of a bundle, from its manifest alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from errseg_rt.bundle.manifest import Manifest
from errseg_rt.datasets.scores import percent

_SETS = {
    "val": "validation frames",
    "held_out": "frames kept back from training (they also fitted the calibration)",
    "rendered": "rendered street scenes that training did not draw",
}


def model_card(manifest: Manifest) -> str:
    """Markdown that says what the cascade is, where it comes from, and how good it is."""
    spec, cascade = manifest.input, manifest.cascade
    limit = f" (enlarging stops at {spec.enlarge_up_to:,} pixels)" if spec.enlarge_up_to else ""
    lines = [
        f"# Model card: {manifest.name}",
        "",
        f"A segmentation cascade of {len(manifest.classes)} classes ({', '.join(manifest.classes.names)}): "
        f"`{cascade['semantic']}` as semantic branch, an error-prediction branch of width {cascade['error_width']}, "
        f"a detail branch of width {cascade['detail_width']}; threshold t = {manifest.threshold}.",
        "",
        f"Frames are scaled by {spec.scale}{limit}; every figure and every time of this bundle includes that.",
        "",
        "## Where it comes from",
        "",
        *(f"- **{key.replace('_', ' ')}**: {value}" for key, value in manifest.provenance.items()),
        "",
        "## How good it is",
        "",
    ]
    for key, scores in manifest.metrics.items():
        lines += _scores(_SETS.get(key, key), scores)
    return "\n".join(lines)


def _scores(title: str, scores: Mapping[str, Any]) -> list[str]:
    semantic, fused = scores["semantic"], scores["fused"]
    rows = [(name, semantic["iou"][name], fused["iou"][name]) for name in semantic["iou"]]
    rows += [("**mIoU**", semantic["miou"], fused["miou"]), ("pixel accuracy", semantic["accuracy"], fused["accuracy"])]
    return [
        f"On {scores['frames']} {title}; {100 * scores['flagged']:.1f} % of the grid flagged:",
        "",
        "| IoU, % | semantic | fused |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {percent(a)} | {percent(b)} |" for name, a, b in rows),
        "",
    ]
