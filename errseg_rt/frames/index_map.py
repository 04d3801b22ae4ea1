"""Instance maps as 16-bit PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from errseg_rt.errors import FrameError
from errseg_rt.kernels.instances.spec import MOST
from errseg_rt.system.atomic import write_atomically

INSTANCES = "instances"
"""What such a file shows, in its name: `<name>_instances.png`."""


def write_index_map(index: npt.NDArray[np.integer[Any]], path: Path) -> Path:
    """Write whose each pixel is as a PNG of 16 bits and one channel, whole or not at all.

    Args:
        index: Integers `[H, W]`, 0 nobody's.
        path: The file; its folder is made where it is missing.

    Returns:
        The file.

    Raises:
        FrameError: There are more instances than 16 bits tell apart.
        OSError: It cannot be written.
    """
    most = int(index.max(initial=0))
    if most > MOST:
        raise FrameError(
            f"{path}: {most} instances, but a 16-bit PNG tells {MOST} apart; segment the frame in parts, or give the "
            "bundle a higher least score"
        )
    with write_atomically(path) as temporary:
        # Encoded in memory: OpenCV takes only some names, and reports no disk that is full.
        temporary.write_bytes(cv2.imencode(".png", index.astype(np.uint16))[1].tobytes())
    return path
