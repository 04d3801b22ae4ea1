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
_ELSEWHERE = (
    "## On other frames",
    "",
    "None of these figures speaks of frames unlike those. `errseg-rt evaluate BUNDLE --data DIR` says of labelled",
    "frames of yours how good the labels are, how far the error probability of the label you get is off (where pixels",
    "were labelled again and elsewhere, in tenths and by class), and how near a frame's expected error comes to the",
    "true one; `errseg-rt calibrate` fits both to them. What each step costs, `errseg-rt segment` prints.",
    "Of the bundle `camvid`, docs/accuracy.md and docs/benchmarks.md of errseg-rt have all of it, with the commands.",
    "",
)


def model_card(manifest: Manifest) -> str:
    """Markdown that says what the cascade is, where it comes from, and how good it is."""
    spec = manifest.input
    limit = f" (enlarging stops at {spec.enlarge_up_to:,} pixels)" if spec.enlarge_up_to else ""
    lines = [
        f"# Model card: {manifest.name}",
        "",
        f"A segmentation {'cascade' if len(manifest.branches) > 2 else 'network'} of {len(manifest.classes)} classes "
        f"({', '.join(manifest.classes.names)}): {_parts(manifest)}.",
        "",
        f"Frames are stretched to {spec.size[0]}x{spec.size[1]}; every figure of this bundle includes that."
        if spec.size
        else f"Frames are scaled by {spec.scale}{limit}; every figure and every time of this bundle includes that.",
        "",
        "## Where it comes from",
        "",
        *(f"- **{key.replace('_', ' ')}**: {value}" for key, value in manifest.provenance.items()),
        "",
        "## How good it is",
        "",
    ]
    if not manifest.metrics:
        lines += ["Nobody has scored it yet: `errseg-rt evaluate BUNDLE --data DIR` does, on labelled frames.", ""]
    for key, scores in manifest.metrics.items():
        lines += _scores(_SETS.get(key, key), scores)
    return "\n".join([*lines, *_ELSEWHERE])


def _parts(manifest: Manifest) -> str:
    cascade = manifest.cascade
    parts = [f"`{cascade.get('semantic')}` as semantic branch"]
    if network := cascade.get("network"):
        parts = [f"the network of `{network['file']}` (SHA-256 {network['sha256']}), frozen, as semantic branch"]
    if manifest.error == "branch":
        parts.append(f"an error-prediction branch of width {cascade.get('error_width')}")
    elif manifest.error == "none":
        parts.append("no error map, as the network gives labels alone")
    else:
        fitted = "calibrated" if manifest.is_calibrated else "not calibrated yet"
        parts.append(f"an error map made of its own probabilities ({fitted})")
    if manifest.has_detail:
        parts.append(f"a detail branch of width {cascade.get('detail_width')}; threshold t = {manifest.threshold}")
    else:
        parts.append("no detail branch, so that no pixel is labelled again")
    if manifest.instances is not None:
        names = ", ".join(manifest.classes.names[label] for label in manifest.instances.classes)
        parts.append(f"a localization head of width {cascade.get('localization_width')} for instances of {names}")
    return ", ".join(parts)


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
        *(_gain(scores["gain"]) if scores.get("gain") else ()),
        *(_error_maps(scores["errors"]) if scores.get("errors") else ()),
        *(_instance_scores(scores["instances"]) if "instances" in scores else ()),
    ]


def _gain(gain: Mapping[str, Any]) -> list[str]:
    """What refinement is worth, with its interval where there is one."""
    if gain.get("miou") is None:
        return []
    interval = ""
    if gain.get("interval"):
        interval = " (95 % interval {:+.2f} to {:+.2f})".format(*(100 * end for end in gain["interval"]))
    over = "the network's own labels" if gain.get("over") == "native" else "labels with nothing flagged"
    tie = ", which is a tie" if gain.get("tie") else ""
    return [f"Refinement gains {100 * gain['miou']:+.2f} points of mIoU{interval} over {over}{tie}.", ""]


def _error_maps(errors: Mapping[str, Any]) -> list[str]:
    """How well the error map and its free baselines rank the semantic branch's errors."""
    maps = {"the error map": errors, **errors.get("baselines", {})}
    if any(of.get(score) is None for of in maps.values() for score in _RANKING):
        return []
    return [
        f"Of the semantic branch's labels {100 * errors['rate']:.1f} % are wrong. Maps that tell which:",
        "",
        f"| {' | '.join(('map', *_RANKING.values()))} |",
        f"| --- |{' ---: |' * len(_RANKING)}",
        *(
            f"| {name.replace('_', ' ')} | {of['aupr']:.4f} | {of['auroc']:.4f} | {percent(of['fpr95'])} |"
            for name, of in maps.items()
        ),
        "",
    ]


_RANKING = {"aupr": "AUPR", "auroc": "AUROC", "fpr95": "FPR at 95 % TPR, %"}
_INSTANCE_SCORES = {
    "ap_r_0.5": "mAP^r 0.5",
    "ap_r_0.7": "mAP^r 0.7",
    "ap_r_vol": "mAP^r vol",
    "ap": "COCO AP",
    "pq": "PQ",
}


def _instance_scores(scores: Mapping[str, Any]) -> list[str]:
    """Rows of instances, by class."""
    return [
        f"Of {scores['truths']} instances there, {scores['found']} were found:",
        "",
        f"| instances, % | {' | '.join(_INSTANCE_SCORES.values())} |",
        f"| --- |{' ---: |' * len(_INSTANCE_SCORES)}",
        *(
            f"| {name} | {' | '.join(percent(of[score]) for score in _INSTANCE_SCORES)} |"
            for name, of in scores["classes"].items()
        ),
        "",
    ]
