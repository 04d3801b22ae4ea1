"""What a grid coarser than a network's own costs thin things: the vessels of W-Net on grids of stride 1, 2 and 4.

    python -m benchmarks.user_networks.thin --drive DRIVE --checkpoint model_checkpoint.pth

`DRIVE` holds the training images of the data set of that name: `images/`, `1st_manual/`, `mask/`. Every second one is
looked at, stretched to 512x512, inside its field of view. The network was trained on some of them: what counts are the
differences.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.user_networks import wnet

_SIZE, _THRESHOLD = 512, 0.4196
_LEAST = 1e-6  # of a probability, so that its logit is finite


def coarser(logits: torch.Tensor, stride: int, of: str) -> torch.Tensor:
    """Logits `[1, 1, h, w]` on a grid of a stride, as means of `"probabilities"` or of `"logits"`."""
    if stride == 1 or of == "logits":
        return F.avg_pool2d(logits, stride)
    return F.avg_pool2d(logits.sigmoid(), stride).clamp(_LEAST, 1 - _LEAST).logit()


def dice(found: np.ndarray, truth: np.ndarray, seen: np.ndarray) -> float:
    """Twice the common pixels over those of both, where something is seen; `bool [H, W]` all three."""
    return float(2 * (found & truth & seen).sum() / ((found & seen).sum() + (truth & seen).sum()))


def main() -> None:
    """Print the mean Dice of each grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drive", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    arguments = parser.parse_args()
    network = wnet.load(arguments.checkpoint).eval()
    level = torch.tensor(_THRESHOLD).logit().item()
    scores: dict[tuple[int, str], list[float]] = {}
    for path in sorted((arguments.drive / "images").iterdir())[::2]:
        number = path.name[:2]
        frame = np.asarray(Image.open(path).convert("RGB"))
        truth, seen = (
            np.asarray(Image.open(next((arguments.drive / part).glob(f"{number}*")))) > 127
            for part in ("1st_manual", "mask")
        )
        image = cv2.resize(frame, (_SIZE, _SIZE), interpolation=cv2.INTER_LINEAR)
        with torch.no_grad():
            logits = network(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
        for stride, of in ((1, "probabilities"), *((s, o) for s in (2, 4) for o in ("probabilities", "logits"))):
            full = F.interpolate(coarser(logits, stride, of), size=truth.shape, mode="bilinear", align_corners=False)
            scores.setdefault((stride, of), []).append(dice(full[0, 0].numpy() > level, truth, seen))
    for (stride, of), found in scores.items():
        print(f"grid {stride}, means of {of}: Dice {np.mean(found):.3f} on {len(found)} frames")


if __name__ == "__main__":
    main()
