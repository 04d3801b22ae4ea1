"""Stage 3 of a bundle's detail branch, its frozen norms folded into the convolutions before them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from errseg_rt.bundle.bundle import WEIGHTS, Bundle
from errseg_rt.errors import BundleError
from errseg_rt.kernels.refine.weights import RefineWeights

_EPS = 1e-5  # what a frozen norm adds to its variance
Array = npt.NDArray[np.float32]


def stage3_weights(bundle: Bundle) -> RefineWeights:
    """Weights of a bundle's stage 3, its norms folded.

    Raises:
        BundleError: They are damaged, or not those of a stage whose norms are frozen.
    """
    from safetensors import SafetensorError, safe_open

    path = bundle.path(WEIGHTS)
    try:
        with safe_open(path, framework="numpy") as file:
            weights = {name: file.get_tensor(name) for name in file.keys() if name.startswith("detail.")}  # noqa: SIM118
    except SafetensorError as error:
        raise BundleError(f"{path}: cannot be read ({error}); export the bundle again") from error
    manifest = bundle.manifest
    return refine_weights(
        weights,
        str(path),
        residual=bool(manifest.cascade.get("residual", True)),
        align_corners=manifest.align_corners,
    )


def refine_weights(weights: Mapping[str, Array], where: str, *, residual: bool, align_corners: bool) -> RefineWeights:
    """Fold stage 3 of a cascade's weights.

    Args:
        weights: By their names in `weights.safetensors`; others than those of the detail branch may be missing.
        where: Path of the weights, for error messages.
        residual: Whether the detail branch starts from the semantic logits.
        align_corners: How stage 2's output lies over the grid.

    Raises:
        BundleError: The weights hold no stage 3, or one whose norms are not frozen: those span the map, so that no
            pixel can be computed alone.
    """
    try:
        low, first, second = (_folded(weights, f"detail.stage3.{layer}") for layer in ("low", "fuse.0", "fuse.2"))
        project, head = weights["detail.stage3.project.weight"], weights["detail.head.weight"]
        biases = weights["detail.stage3.project.bias"], weights["detail.head.bias"]
        return RefineWeights(
            *low,
            project[:, :, 0, 0],
            biases[0],
            *first,
            *second,
            head[:, :, 0, 0],
            biases[1],
            residual=residual,
            align_corners=align_corners,
        )
    except KeyError as error:
        raise BundleError(
            f"{where}: no {error}, so that the detail branch has no frozen norms; refine it densely, or train it with "
            "frozen norms and export it again"
        ) from error
    except (IndexError, ValueError) as error:
        raise BundleError(f"{where}: not those of a detail branch ({error}); export the bundle again") from error


def _folded(weights: Mapping[str, Array], layer: str) -> tuple[Array, Array]:
    """Weight and bias of a convolution with the frozen norm behind it."""
    kernel = weights[f"{layer}.0.weight"].astype(np.float64)
    scale, shift, mean, var = (
        weights[f"{layer}.1.{name}"].astype(np.float64) for name in ("weight", "bias", "mean", "var")
    )
    factor = scale / np.sqrt(var + _EPS)
    return (kernel * factor[:, None, None, None]).astype(np.float32), (shift - mean * factor).astype(np.float32)
