"""What does it save to hand a network's logits to us: labels and error map, against the usual post-processing?

    python -m benchmarks.post_processing --weights squeezenas_mac_large_cityscapes.pth --frames cityscapes/leftImg8bit

Logits at stride 8 become labels and an error map of 1024x2048, on both sides, on one thread, in the processor's time:
logits of a rendered street, of a network on a frame, and noise, in which every pixel lies between classes: the worst
there is. Where `ultralytics` is installed, the predictor of its semantic networks is timed too; it gives labels alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from benchmarks.report import Row, compare, finish
from errseg_rt.kernels import Geometry, fuse_labels
from errseg_rt.kernels.preprocess.cpu import preprocess
from errseg_rt.scenes import StreetScene

SIZE = HEIGHT, WIDTH = 1024, 2048
STRIDE, CLASSES = 8, 19
GRID = (HEIGHT // STRIDE, WIDTH // STRIDE)
GEOMETRY = Geometry(GRID, SIZE, SIZE, SIZE, align_corners=False)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation, RGB in 0..1

Logits = npt.NDArray[np.float32]  # [C, h, w]
Done = tuple[npt.NDArray[Any], npt.NDArray[Any] | None]
"""Labels `[H, W]`, and where there is one, the error map, `float32 [H, W]`: 1 minus the label's probability."""


def ours(logits: Logits) -> Done:
    """One call."""
    fused = fuse_labels(logits, None, None, GEOMETRY, confidence=True, threads=1)
    assert fused.confidence is not None
    return fused.labels, np.subtract(1, fused.confidence, out=fused.confidence)


def torch_as_usual(logits: Logits) -> Done:
    """Interpolate, softmax, the largest."""
    full = interpolate(torch.from_numpy(logits)[None], size=SIZE, mode="bilinear", align_corners=False)
    probability, labels = full.softmax(1)[0].max(0)
    return labels.numpy(), (1 - probability).numpy()


def torch_softmax_first(logits: Logits) -> Done:
    """Softmax where it is cheap; it is the definition of ours."""
    small = torch.from_numpy(logits)[None].softmax(1)
    probability, labels = interpolate(small, size=SIZE, mode="bilinear", align_corners=False)[0].max(0)
    return labels.numpy(), (1 - probability).numpy()


def numpy_as_usual(logits: Logits) -> Done:
    """Resize, a class at a time, softmax, the largest."""
    full = np.stack([cv2.resize(plane, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR) for plane in logits])
    powers = np.exp(full - full.max(axis=0))
    probability = powers / powers.sum(axis=0)
    return probability.argmax(axis=0), 1 - probability.max(axis=0)


def numpy_softmax_first(logits: Logits) -> Done:
    """Softmax where it is cheap, and no array of all classes: the fastest that we know of with OpenCV."""
    powers = np.exp(logits - logits.max(axis=0))
    small = powers / powers.sum(axis=0)
    labels = np.zeros(SIZE, np.uint8)
    largest = cv2.resize(small[0], (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    for c in range(1, CLASSES):
        plane = cv2.resize(small[c], (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        labels[plane > largest] = c
        np.maximum(largest, plane, out=largest)
    return labels, 1 - largest


def yolo() -> Callable[[Logits], Done] | None:
    """What the predictor of YOLO's semantic networks makes of logits, without an error map; None where it lacks."""
    if find_spec("ultralytics") is None:
        return None
    from ultralytics.models.yolo.semantic.predict import SemanticSegmentationPredictor as Predictor

    names = {c: str(c) for c in range(CLASSES)}
    predictor = SimpleNamespace(
        args=SimpleNamespace(classes=None),
        model=SimpleNamespace(names=names),
        batch=[["frame"]],
        _class_map_dtype=Predictor._class_map_dtype,
    )
    image, frame = torch.empty(1, 3, *SIZE), np.zeros((*SIZE, 3), np.uint8)

    def post_process(logits: Logits) -> Done:
        (result,) = Predictor.postprocess(predictor, torch.from_numpy(logits)[None], image, [frame])
        return result.semantic_mask.data.numpy(), None

    return post_process


USUAL = {
    "torch": torch_as_usual,
    "torch_softmax_first": torch_softmax_first,
    "numpy_cv2": numpy_as_usual,
    "numpy_cv2_softmax_first": numpy_softmax_first,
}
DEFINED_AS_OURS = ("torch_softmax_first", "numpy_cv2_softmax_first")


def of_a_street() -> Logits:
    """Labels of a rendered street, blurred as a network's answer at stride 8 is, with some noise."""
    labels = StreetScene(0, HEIGHT, WIDTH).frame(0).labels[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    planes = [cv2.GaussianBlur((labels == c).astype(np.float32), (0, 0), 1.0) for c in range(CLASSES)]
    rough = 2 * np.random.default_rng(0).standard_normal((CLASSES, *GRID), np.float32)
    return np.asarray(10 * np.stack(planes) + np.stack([cv2.GaussianBlur(p, (0, 0), 2.0) for p in rough]), np.float32)


def of_noise() -> Logits:
    """Nearly no cell has one class."""
    return np.random.default_rng(0).standard_normal((CLASSES, *GRID), np.float32)


def of_a_network(weights: Path, frame: Path) -> Logits:
    """What SqueezeNAS says of a frame."""
    from errseg_rt.networks.squeezenas import SqueezeNAS

    network = SqueezeNAS(CLASSES).eval()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    mean, std = IMAGENET
    picture = cv2.imread(str(frame))
    image = preprocess(picture, SIZE, SIZE, mean=mean, std=std, color="bgr", dtype="float32", threads=1)
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(image)).logits[0].numpy())


def one_class(logits: Logits) -> float:
    """Share of the cells between four grid pixels whose corners have one class: those that cost us nearly nothing."""
    winner = logits.argmax(axis=0)
    corners = np.stack([winner[:-1, :-1], winner[:-1, 1:], winner[1:, :-1], winner[1:, 1:]])
    return float((corners == corners[0]).all(axis=0).mean())


def rows(where: str, logits: Logits, pairs: int) -> list[Row]:
    """Against each of the usual ways, after a look at whether they say the same."""
    labels, error = ours(logits)
    others: dict[str, Callable[[Logits], Done]] = dict(USUAL)
    predictor = yolo()
    if predictor is not None:
        others["yolo_predictor"] = predictor
    found = []
    for name, usual in others.items():
        theirs, their_error = usual(logits)
        equal = float((labels == theirs).mean())
        if name in DEFINED_AS_OURS:
            _check(name, equal, error, their_error)
        note = (
            f"{HEIGHT}x{WIDTH}, {CLASSES} classes, one thread; {one_class(logits):.1%} of cells of one class; "
            f"{equal:.2%} of labels equal"
        )
        note += "; theirs without an error map" if their_error is None else ""
        found.append(
            compare(
                f"post_processing/vs_{name}@{where}",
                lambda: ours(logits),
                lambda usual=usual: usual(logits),
                pairs=pairs,
                note=note,
                clock=time.process_time,
            )
        )
    return found


def _check(name: str, equal: float, error: npt.NDArray[Any] | None, theirs: npt.NDArray[Any] | None) -> None:
    """Raise where what is defined alike differs by more than rounding: OpenCV has weights of a few bits fewer."""
    assert error is not None
    assert theirs is not None
    away = float(np.abs(error - theirs).max())
    if equal < 0.9999 or away > 1e-4:
        raise RuntimeError(f"{name}: {equal:.4%} of labels are equal, errors differ by {away:.2g}; nothing was timed")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--weights", type=Path, help="of SqueezeNAS, 19 classes")
    parser.add_argument("--frames", type=Path, help="folder in which frames of 1024x2048 lie, also in sub-folders")
    args, rest = parser.parse_known_args()
    if (args.weights is None) != (args.frames is None):
        parser.error("--weights and --frames belong together")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    inputs = {"street": of_a_street(), "noise": of_noise()}
    if args.weights:
        inputs["network"] = of_a_network(args.weights, min(args.frames.rglob("*.png")))
    with torch.inference_mode():
        found = [row for where, logits in inputs.items() for row in rows(where, logits, args.pairs)]
    finish(found, "post_processing", rest)


if __name__ == "__main__":
    main()
