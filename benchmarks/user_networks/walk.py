"""The walk of docs/networks.md, as it stands there: every command of it, and its pictures.

    python -m benchmarks.user_networks.walk --drive DRIVE --checkpoint model_checkpoint.pth

`DRIVE` is the folder of DRIVE's training images (`images/`, `1st_manual/`, `mask/`). Scores go into
`benchmarks/results/vessels.json`, the picture, of a drawn retina, into `docs/networks/`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.report import RESULTS
from benchmarks.user_networks.page import Step, steps
from benchmarks.user_networks.retina import draw
from errseg_rt.places.driver import gpu_name
from errseg_rt.system.stamp import machine_stamp

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "networks"
_CLI = "from errseg_rt.cli.app import main; raise SystemExit(main())"


def main() -> None:
    """Walk, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drive", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="folder to work in, which stays; default: one that goes")
    args = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in (("DRIVE", args.drive), ("model_checkpoint.pth", args.checkpoint)):
            if not (folder / name).exists():
                (folder / name).symlink_to(path.resolve())
        seconds = {step.text: run(step, folder) for step in steps()}
        write(folder, {text: round(took, 1) for text, took in seconds.items() if not text.count("\n")})


def run(step: Step, folder: Path) -> float:
    """Do a step in a folder: the seconds it took."""
    if step.kind == "file":
        (folder / step.name).write_text(step.text, encoding="utf-8")
        return 0.0
    words = ["-c", step.text] if step.kind == "python" else step.words
    if words[0] == "errseg-rt":
        words = ["-c", _CLI, *words[1:]]
    elif words[0] == "python":
        words = words[1:]
    print(f"$ {step.text if step.kind == 'command' else 'the Python of the page'}", flush=True)
    start = time.perf_counter()
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, *words], cwd=folder, check=True, env={**os.environ, "PYTHONPATH": paths})
    return time.perf_counter() - start


def write(folder: Path, seconds: dict[str, float]) -> None:
    """The scores and the picture."""
    before, after = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("before", "after"))
    content = {"machine": machine_stamp(gpu_name()), "seconds": seconds, "before": before, "after": after}
    (RESULTS / "vessels.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    pictures(folder)


def pictures(folder: Path) -> None:
    """A drawn retina: frame, overlay, error map as wrapped, calibrated and trained."""
    from errseg_rt import Runtime

    drawn = draw(seed=1)
    tiles: list[npt.NDArray[Any]] = [drawn.frame]
    for name in ("vessels_calibrated", "vessels_trained"):
        with Runtime(folder / name) as runtime:
            result = runtime.segment(drawn.frame)
        wrong = (result.labels == 1) != drawn.vessels
        tiles += [result.overlay(drawn.frame)] if len(tiles) == 1 else []
        tiles += [result.heat()]
    tiles.append(np.repeat((255 * (wrong & drawn.inside)).astype(np.uint8)[..., None], 3, axis=2))
    small = [cv2.resize(tile, (256, 256), interpolation=cv2.INTER_AREA) for tile in tiles]
    cv2.imwrite(str(PICTURES / "vessels.png"), np.hstack(small))


if __name__ == "__main__":
    main()
