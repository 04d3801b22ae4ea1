"""Fusion: class logits on the grid to one label per pixel of the frame, without class maps of the frame's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from errseg_rt.system.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from errseg_rt.kernels.fuse_labels.operands import FusedLabels
    from errseg_rt.kernels.fuse_labels.reference import (
        Flagged,
        Logits,
        fuse_labels_reference,
        upsample_reference,
    )
    from errseg_rt.kernels.geometry import Geometry

__all__ = [
    "FusedLabels",
    "fuse_labels",
    "fuse_labels_reference",
    "upsample",
    "upsample_reference",
]


@overload
def fuse_labels(
    semantic: Logits,
    detail: Logits | None,
    flagged: Flagged | None,
    geometry: Geometry,
    *,
    error: Logits | None = None,
    confidence: bool = False,
    threads: int = 1,
) -> FusedLabels[npt.NDArray[Any]]: ...


@overload
def fuse_labels(
    semantic: torch.Tensor,
    detail: torch.Tensor | None,
    flagged: torch.Tensor | None,
    geometry: Geometry,
    *,
    error: torch.Tensor | None = None,
    confidence: bool = False,
) -> FusedLabels[torch.Tensor]: ...


def fuse_labels(
    semantic: Any,  # [C, h, w]
    detail: Any,  # [C, h, w] or [n, C]
    flagged: Any,  # [h, w]
    geometry: Geometry,
    *,
    error: Any = None,  # [h, w]
    confidence: bool = False,
    threads: int = 1,
) -> FusedLabels[Any]:
    """Label every pixel of a frame from class logits on a coarser grid (Gong et al. 2021, eq. 5).

    On the grid, P is softmax(detail) where flagged and softmax(semantic) elsewhere. P is interpolated bilinearly at
    each pixel of the frame, and the label is the class where it is largest: the lowest such class on ties. Neither P
    at the frame's size nor anything else of its size times C is ever made. It is what

        P = torch.where(flagged, detail.softmax(0), semantic.softmax(0))
        interpolate(P[None], size=frame.shape[:2], mode="bilinear", align_corners=...)[0].argmax(0)

    gives, but where two classes tie within rounding; it also undoes padding and resizing, as `geometry` says. It
    needs nothing of a cascade: the output of any segmentation network that predicts below its input's size will do.

        geometry = Geometry(grid_size=(256, 512), input_size=(1024, 2048), content_size=(1024, 2048),
                            output_size=frame.shape[:2], align_corners=False)
        labels = fuse_labels(logits, None, None, geometry, threads=4).labels

    NumPy arrays are worked on by the CPU, CUDA tensors by their GPU, in its current stream and without waiting for it;
    nothing is cast or moved. On the GPU it is the operator `torch.ops.errseg_rt.fuse_labels`, which `torch.compile`,
    `torch.export` and CUDA graphs take in. It may be called from several threads at once; on the CPU the GIL is
    released.

    Args:
        semantic: Logits `[C, h, w]`, C from 2 to 255, float32 or float16, or bfloat16 on the GPU; not NaN, not +inf.
        detail: Other logits of the same dtype, either of every grid pixel, `[C, h, w]`, or of some, `[n, C]`; None to
            replace nothing.
        flagged: Which pixels take theirs from `detail`: bool `[h, w]` with a map, int32 `[h, w]` with rows, the row of
            each pixel and -1 for none; None exactly when `detail` is None.
        geometry: How the frame's pixels lie on the grid.
        error: A map to return at the frame's size too, `[h, w]`, say the error probability, of any of the dtypes.
        confidence: Whether to return the fused probability of each label too.
        threads: How many threads share the rows of the frame; on the CPU alone.

    Returns:
        Labels `uint8 [H, W]`, and where asked for, confidence and error `float32 [H, W]`.

    Raises:
        ValueError: Another rank, shape, dtype, class count or device, an array that is not C-contiguous, or only one of
            `detail` and `flagged`. NumPy arrays also: a row that `detail` has not, an error that is not finite, or
            `threads` below 1; on the GPU such a row counts as none, since looking would mean waiting.
    """
    from errseg_rt.kernels.arrays import is_tensor

    if is_tensor("semantic", semantic):
        from errseg_rt.kernels.fuse_labels import torch_op

        return torch_op.fuse_labels(semantic, detail, flagged, geometry, error=error, confidence=confidence)
    from errseg_rt.kernels.fuse_labels import cpu

    return cpu.fuse_labels(semantic, detail, flagged, geometry, error=error, confidence=confidence, threads=threads)


def upsample(grid_map: Any, geometry: Geometry, threads: int = 1) -> npt.NDArray[np.float32]:
    """Interpolate one map bilinearly at every pixel of the frame.

    Args:
        grid_map: float32 or float16 `[h, w]`, a NumPy array, say the error probability.
        geometry: How the pixels of the frame lie on the grid.
        threads: How many threads share the rows of the frame.

    Returns:
        float32 `[H, W]`.

    Raises:
        ValueError: Another rank, shape, dtype or stride, or `threads` below 1.
    """
    try:
        from errseg_rt.kernels.fuse_labels import cpu
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        # Where a GPU does all that counts, numba need not be installed.
        from errseg_rt.kernels.fuse_labels.reference import upsample_reference

        return upsample_reference(grid_map, geometry)
    return cpu.upsample(grid_map, geometry, threads)


__getattr__ = lazy(
    __name__,
    {
        "FusedLabels": f"{__name__}.operands",
        "fuse_labels_reference": f"{__name__}.reference",
        "upsample_reference": f"{__name__}.reference",
    },
)
