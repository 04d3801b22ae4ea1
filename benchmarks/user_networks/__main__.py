"""Does one command make a network that its user has give labels, error map and overlay, and are the labels its own?

    python -m benchmarks.user_networks --weights WEIGHTS --data DATA

`WEIGHTS` holds the published files, `DATA` the labelled frames, each under the names below; what is not there is left
out. Each network is wrapped and run by the commands that a user types, each in a process of its own. Beside that
stands the plain way: the network in ONNX Runtime, its output interpolated to the frame's size, the largest class. The
first minute is what the two commands take until a frame's four pictures are written, imports and compilation included.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from PIL import Image

from benchmarks.fuse_labels import CORES
from benchmarks.report import Row, finish
from benchmarks.user_networks.export import export

VOID = 255
CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of the 19 classes, in their order."""
PICTURES = ("labels", "colors", "error", "overlay")

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Labelled:
    """A frame and its true classes, `VOID` where there is none."""

    path: Path
    truth: Labels


@dataclass(frozen=True)
class Case:
    """A network as its user has it.

    Attributes:
        name: Of the rows.
        file: Its weights, below `WEIGHTS`.
        wrap: What its user says to `errseg-rt wrap`.
        frames: Writes labelled frames of `DATA` into a folder.
        is_iou: Whether the score is the IoU of class 1, else the accuracy, of all frames together.
        published: What else is known of it.
        network: The name under which it is exported first; None: it is an ONNX file already.
        mean, std: Of what the network takes, in the order of its planes, for pixels in 0..255.
        is_bgr: Order of its planes.
        threshold: Probability above which its one channel is the class; None: it has several, the largest wins.
        classes: Their names.
    """

    name: str
    file: str
    wrap: tuple[str, ...]
    frames: Callable[[Path, Path], Iterator[Labelled]]
    is_iou: bool
    published: str
    network: str | None = None
    mean: tuple[float, float, float] = (0, 0, 0)
    std: tuple[float, float, float] = (255, 255, 255)
    is_bgr: bool = False
    threshold: float | None = None
    classes: tuple[str, ...] = ()


def streets(data: Path, folder: Path) -> Iterator[Labelled]:
    """The frames of Cityscapes that are there."""
    for path in sorted((data / "cityscapes/leftImg8bit").rglob("*.png")):
        name = path.name.replace("leftImg8bit", "gtFine_labelIds")
        ids = cv2.imread(str(data / "cityscapes/gtFine" / path.parent.parent.name / path.parent.name / name), -1)
        table = np.full(256, VOID, np.uint8)
        table[list(CITYSCAPES)] = np.arange(19)
        yield Labelled(path, table[ids])


def roads(data: Path, folder: Path) -> Iterator[Labelled]:
    """Road against all else that is labelled."""
    for frame in streets(data, folder):
        yield Labelled(frame.path, np.where(frame.truth == VOID, VOID, frame.truth == 0).astype(np.uint8))


def vessels(data: Path, folder: Path) -> Iterator[Labelled]:
    """Retinas, cropped to what the camera saw."""
    source = data / "retina_drive/training"
    for path in sorted(source.glob("images/*.tif")):
        masks = (source / f"1st_manual/{path.name[:2]}_manual1.gif", source / f"mask/{path.stem}_mask.gif")
        manual, inside = (np.asarray(Image.open(mask)) > 0 for mask in masks)
        rows, cols = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        seen = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Image.open(path))[seen]).save(folder / f"{path.stem}.png")
        yield Labelled(folder / f"{path.stem}.png", np.where(inside, manual, VOID).astype(np.uint8)[seen])


def pedestrians(data: Path, folder: Path) -> Iterator[Labelled]:
    """Streets with people; every fourth picture."""
    for path in sorted((data / "penn_fudan/images").glob("*.jpg"))[::4]:
        people = cv2.imread(str(data / "penn_fudan/instances" / f"{path.stem}.png"), -1)
        yield Labelled(path, (people > 0).astype(np.uint8))


_SINET = {
    "wrap": (
        "--mean", "102.890434,111.25247,126.91212", "--std", "16047.8946,16019.4454,16920.704775", "--scale", "1",
        "--color", "bgr",
    ),
    "frames": pedestrians,
    "is_iou": True,
    "published": "0.544 on other pictures",
    "mean": (102.890434, 111.25247, 126.91212),
    "std": (16047.8946, 16019.4454, 16920.704775),
    "is_bgr": True,
    "classes": ("background", "person"),
}  # fmt: skip
CASES = (
    Case(
        "efficientvit-b0",
        "efficientvit_b0_cityscapes/cityscapes_b0.pt",
        ("--classes", "cityscapes", "--normalise", "imagenet"),
        streets,
        is_iou=False,
        published="0.9719 on these frames",
        network="efficientvit-b0",
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    ),
    Case(
        "twinlitenet",
        "twinlitenet_bdd100k/best.pth",
        ("--output", "drivable", "--normalise", "0..1"),
        roads,
        is_iou=True,
        published="0.851 on these frames",
        network="twinlitenet",
        classes=("other", "drivable"),
    ),
    Case(
        "wnet",
        "wnet_retina_drive/model_checkpoint.pth",
        ("--normalise", "0..1", "--threshold", "0.4196"),
        vessels,
        is_iou=False,
        published="0.9547 on the test frames of these",
        network="wnet",
        threshold=0.4196,
        classes=("background", "vessel"),
    ),
    Case("sinet", "sinet_portrait/SINet.onnx", **_SINET),  # type: ignore[arg-type]
    Case("sinet_softmax", "sinet_portrait/SINet_Softmax.onnx", **_SINET),  # type: ignore[arg-type]
    Case(
        "deeplab_dm05",
        "deeplab_dm05_person_onnx/deeplab_nchw.onnx",
        ("--normalise=-1..1",),
        pedestrians,
        is_iou=True,
        published="0.579 on other pictures",
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
        classes=("background", "person"),
    ),
)


class Plain:
    """The usual way with an ONNX file."""

    def __init__(self, path: Path, case: Case) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = CORES
        self.case = case
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0]

    def __call__(self, frame: npt.NDArray[np.uint8]) -> Labels:
        """Labels `[H, W]` of a frame BGR `uint8 [H, W, 3]`."""
        height, width = self.input.shape[2:]
        planes = frame if self.case.is_bgr else frame[..., ::-1]
        if isinstance(height, int):
            planes = cv2.resize(planes, (width, height), interpolation=cv2.INTER_LINEAR)
        image = ((planes - np.array(self.case.mean)) / np.array(self.case.std)).astype(np.float32)
        output = self.session.run(None, {self.input.name: np.ascontiguousarray(image.transpose(2, 0, 1)[None])})[0]
        full = torch.nn.functional.interpolate(torch.from_numpy(output), size=frame.shape[:2], mode="bilinear")[0]
        if self.case.threshold is not None:
            return np.asarray((full[0].sigmoid() > self.case.threshold).numpy(), np.uint8)
        return np.asarray(full.argmax(0).numpy(), np.uint8)


class Score:
    """Accuracy, or the IoU of class 1, of all frames together."""

    def __init__(self, is_iou: bool) -> None:
        self.is_iou, self.hit, self.of = is_iou, 0, 0

    def add(self, labels: Labels, truth: Labels) -> None:
        """Count a frame."""
        counted = truth != VOID
        found, true = labels[counted], truth[counted]
        hit, of = ((found & true) > 0, (found | true) > 0) if self.is_iou else (found == true, np.ones_like(counted))
        self.hit += int(hit.sum())
        self.of += int(of.sum()) if self.is_iou else int(counted.sum())

    @property
    def percent(self) -> float:
        """In percent."""
        return 100 * self.hit / self.of


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=[case.name for case in CASES])
    parser.add_argument("--keep", type=Path, help="folder in which everything stays that the commands write")
    args, rest = parser.parse_known_args()
    torch.set_num_threads(CORES)
    rows = []
    for case in CASES:
        if (args.only and case.name not in args.only) or not (args.weights / case.file).is_file():
            continue
        with TemporaryDirectory() as folder:
            kept = args.keep / case.name if args.keep else Path(folder)
            kept.mkdir(parents=True, exist_ok=True)
            rows += measure(case, args.weights, args.data, kept)
    finish(rows, "user_networks", rest)
    return 0


def measure(case: Case, weights: Path, data: Path, folder: Path) -> list[Row]:
    """Rows of one network."""
    path, bundle = weights / case.file, folder / "bundle"
    if case.network:
        path = folder / f"{case.network}.onnx"
        export(case.network, weights / case.file, path, dynamic=case.network == "efficientvit-b0")
    frames = list(case.frames(data, folder / "frames"))
    if not frames:
        return []
    words = list(case.wrap)
    if case.classes:
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in case.classes), encoding="utf-8")
        words += ["--classes", str(folder / "classes.txt")]
    wrap = ["wrap", str(path), "-o", str(bundle), *words]
    seconds = [
        _run(wrap),
        _run(["segment", str(frames[0].path), "-o", str(folder / "first"), "--bundle", str(bundle)]),
    ]
    written = sorted(file.name for file in (folder / "first").iterdir())
    missing = [picture for picture in PICTURES if not any(name.endswith(f"_{picture}.png") for name in written)]
    if missing:
        raise RuntimeError(f"{case.name}: no picture of {' and '.join(missing)}")
    # Of all, in one call; names are unique within each set of frames.
    _run(["segment", *(str(frame.path) for frame in frames), "-o", str(folder / "out"), "--bundle", str(bundle)])
    ours, plain, network = Score(case.is_iou), Score(case.is_iou), Plain(path, case)
    equal = []
    for frame in frames:
        labels = cv2.imread(str(next((folder / "out").rglob(f"{frame.path.stem}_labels.png"))), -1)
        theirs = network(cv2.imread(str(frame.path)))
        ours.add(labels, frame.truth)
        plain.add(theirs, frame.truth)
        equal.append(float((labels == theirs).mean()))
    what = "IoU of class 1" if case.is_iou else "accuracy"
    return [
        Row(
            f"user_networks/first_minute@{case.name}",
            sum(seconds),
            "s",
            note=f"wrap {seconds[0]:.1f} s, segment {seconds[1]:.1f} s; {path.name} {shlex.join(case.wrap)}",
        ),
        Row(
            f"user_networks/labels@{case.name}",
            ours.percent,
            "%",
            plain.percent,
            note=(
                f"{what} of {len(frames)} frames; {ours.percent - plain.percent:+.3f} points against the plain way, "
                f"{100 * np.mean(equal):.3f} % of labels equal; published {case.published}"
            ),
        ),
    ]


def _run(words: Sequence[str]) -> float:
    """Seconds of a command."""
    start = time.perf_counter()
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        [sys.executable, "-c", "from errseg_rt.cli.app import main; raise SystemExit(main())", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"errseg-rt {shlex.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
