"""Are a bundle's instances worth their network, or would pieces of its class map do, or these cut by watershed?

    python -m benchmarks.instance_methods nuclei --data dsb2018/test --tune dsb2018/val --json methods.json

All methods see the same frames. The baselines take the bundle's own fused labels, and once the true ones, which no
network gives: what telling instances apart costs alone. The watershed's parameters are those that are best on the
frames of `--tune`. Differences to the bundle's mAP^r at 0.5 have intervals by a paired bootstrap over frames.
`--touching` takes those frames alone in which an instance touches another.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.instance_baselines import connected_components, watershed
from errseg_rt.datasets import LabelledFiles, open_labelled
from errseg_rt.evaluation import InstanceScores, PairedDifference
from errseg_rt.frames.instances import Instances
from errseg_rt.frames.segmentation import Segmentation
from errseg_rt.runtime import Runtime
from errseg_rt.system.atomic import write_json
from errseg_rt.system.progress import track
from errseg_rt.system.stamp import machine_stamp

SIGMAS, APART = (1.0, 2.0, 3.0), (5, 9, 13)
RANKED = "bundle, ranked by errors"
"""The bundle's instances, by their mean error probability in place of the method's own confidence."""
_SHOWN = ("map_r_0.5", "map_r_0.7", "map_r_vol", "map")

Method = Callable[..., Instances]


class Subset:
    """Some of the frames.

    Args:
        frames: All of them.
        which: Their indices.
    """

    def __init__(self, frames: Any, which: Sequence[int]) -> None:
        self._frames, self._which = frames, which

    def __len__(self) -> int:
        return len(self._which)

    def __getitem__(self, index: int) -> Any:
        return self._frames[self._which[index]]

    def instances(self, index: int, truth: Any) -> Any:
        """As the frames have them."""
        return self._frames.instances(self._which[index], truth)


def touching(frames: LabelledFiles) -> list[int]:
    """Which frames show an instance that touches another, corner to corner at least."""
    return [index for index in range(len(frames)) if _touch(frames.instances(index, frames[index][1]).map)]


def _touch(numbers: npt.NDArray[np.int32]) -> bool:
    tall = np.pad(np.maximum(numbers, 0), 1)
    rows, columns = numbers.shape
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        other = tall[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
        if np.any((numbers > 0) & (other > 0) & (numbers != other)):
            return True
    return False


def scored(
    runtime: Runtime, frames: LabelledFiles | Subset, methods: Mapping[str, Method]
) -> dict[str, InstanceScores]:
    """Scores of each method on labels of the runtime, of those of true labels, and of the bundle's own instances.

    The latter also as `RANKED`, where the bundle has an error map.
    """
    things, classes = _things(runtime), runtime.manifest.classes
    scores: dict[str, InstanceScores] = {}

    def add(name: str, *frame: Any) -> None:
        scores.setdefault(name, InstanceScores(len(classes), things)).add(*frame)

    for index in track(range(len(frames)), "instances", len(frames)):
        frame, truth = frames[index]
        true = frames.instances(index, truth)
        result = runtime.segment(frame, confidence=True)
        assert result.instances is not None
        add("bundle", true, truth, result.instances, result.labels)
        if result.instances.error_probability is not None:
            add(RANKED, true, truth, ranked(result.instances), result.labels)
        for name, method in methods.items():
            found = method(result.labels, things, classes, confidence=result.confidence, error_map=_errors(result))
            add(name, true, truth, found, result.labels)
            add(f"{name}, true labels", true, truth, method(truth, things, classes), truth)
    return scores


def ranked(found: Instances) -> Instances:
    """The same instances, the one with the least mean error probability first."""
    assert found.error_probability is not None
    return Instances.of(found.map, found.classes, 1 - found.error_probability, found.class_set)


def tuned(runtime: Runtime, frames: LabelledFiles | Subset) -> dict[str, Any]:
    """The watershed's parameters that are best on some frames, by mAP^r at 0.5."""
    ways = [{"sigma": sigma, "apart": apart} for sigma, apart in itertools.product(SIGMAS, APART)]
    methods = {str(number): partial(watershed, **way) for number, way in enumerate(ways)}
    scores = scored(runtime, frames, methods)
    return max(ways, key=lambda way: scores[str(ways.index(way))].map_r([0.5]) or 0)


def difference(first: InstanceScores, second: InstanceScores) -> PairedDifference | None:
    """Of mAP^r at 0.5."""
    return first.compared(second, [0.5])


def _things(runtime: Runtime) -> tuple[int, ...]:
    if not runtime.manifest.things:
        raise SystemExit(f"{runtime.manifest.name}: the bundle finds no instances")
    return runtime.manifest.things


def _errors(result: Segmentation) -> Any:
    return None if result.error_probability is None else result.error_map()


def _in_words(found: PairedDifference | None) -> str:
    if found is None or found.low is None or found.high is None:
        return "too few frames for an interval" if found is not None else ""
    return f"{100 * found.difference:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def main() -> None:
    """Score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split")
    parser.add_argument("--tune", type=Path, help="frames for the watershed's parameters; else these are the defaults")
    parser.add_argument("--touching", action="store_true", help="only frames in which an instance touches another")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with Runtime(args.bundle) as runtime:
        classes, things = runtime.manifest.classes, _things(runtime)
        best = tuned(runtime, open_labelled(args.tune, classes, things=things)) if args.tune else {}
        frames = open_labelled(args.data, classes, args.split, things=things)
        chosen = Subset(frames, touching(frames)) if args.touching else frames
        methods = {"components": connected_components, "watershed": partial(watershed, **best)}
        scores = scored(runtime, chosen, methods)
        told = {name: each.to_dict(classes) for name, each in scores.items()}
        differences = {name: difference(scores["bundle"], each) for name, each in scores.items() if name != "bundle"}
    print(f"{'':26} {' '.join(f'{name:>10}' for name in _SHOWN)} {'PQ':>10}  {'AUROC':>6}  bundle minus it")
    for name, each in told.items():
        figures = [each[key] for key in _SHOWN] + [each["panoptic"]["things"]["pq"]]
        text = [f"{100 * figure:10.1f}" if figure is not None else f"{'-':>10}" for figure in figures]
        trust = each["auroc"]["error_probability"]
        auroc = f"{'-':>6}" if trust is None else f"{trust:6.3f}"
        print(f"{name:26} {' '.join(text)}  {auroc}  {_in_words(differences.get(name))}")
    if args.json:
        intervals = {
            name: None if each is None else {"map_r_0.5": each.difference, "interval": [each.low, each.high]}
            for name, each in differences.items()
        }
        data = {"data": str(args.data), "frames": len(chosen), "touching": args.touching}
        answer = {"bundle": args.bundle, **data, "watershed": best, "methods": told}
        write_json(args.json, {**answer, "bundle_minus": intervals, "machine": machine_stamp(None)})


if __name__ == "__main__":
    main()
