"""From a training's result to a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save

from errseg_rt.bundle.bundle import WEIGHTS, Bundle, write_bundle
from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.errors import DataError
from errseg_rt.export.graphs import export_graphs
from errseg_rt.export.model_card import model_card
from errseg_rt.networks.cascade import Cascade
from errseg_rt.training.checkpoint import load_cascade
from errseg_rt.training.frozen import FrozenNetwork
from errseg_rt.training.recipe import Recipe
from errseg_rt.training.recipe_files import parse_recipe


def export_bundle(
    checkpoint: Path,
    folder: Path,
    name: str,
    license_file: Path | None = None,
    check: Callable[[Bundle, Cascade], None] = lambda bundle, cascade: None,
) -> Bundle:
    """Write the bundle of a trained cascade.

    Args:
        checkpoint: `cascade.safetensors` of a training.
        folder: Where the bundle shall lie; a bundle that is there is replaced.
        name: What it shall be called.
        license_file: Terms of the weights, taken into the bundle.
        check: Is shown the new bundle before it takes its place, and the cascade; what it raises keeps the old one.

    Raises:
        DataError: The checkpoint is not that of a finished training, or that of a comparison, or the licence cannot be
            read.
        BundleError: `folder` holds something else.
    """
    cascade, notes = load_cascade(checkpoint)
    if "metrics" not in notes:
        raise DataError(f"{checkpoint}: its training is not finished; give cascade.safetensors of a finished one")
    try:
        recipe = _recipe(notes)
        calibration = Calibration.from_dict(notes["calibration"])
        of_detail = notes.get("detail_calibration")
        detail_calibration = None if of_detail is None else Calibration.from_dict(of_detail)
        baselines = {
            baseline: Calibration.from_dict(table) for baseline, table in notes.get("baseline_calibrations", {}).items()
        }
        provenance = _provenance(notes)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{checkpoint}: its notes are not those of a training ({error!r}); train again") from error
    if (recipe.method.selector, recipe.method.fusion, cascade.config.decoder) != ("error", "replace", "gau"):
        raise DataError(
            f"{checkpoint}: the recipe {recipe.name} is a comparison, which no runtime executes; only a detail branch "
            "behind the error-prediction branch can be exported"
        )
    manifest = Manifest(
        name=name,
        classes=recipe.classes,
        input=recipe.input,
        align_corners=cascade.semantic.align_corners,
        threshold=recipe.deployed.threshold,
        lowest_threshold=min(recipe.threshold, recipe.deployed.threshold),
        calibration=calibration,
        detail_calibration=detail_calibration,
        baseline_calibrations=baselines,
        cascade=_shape(cascade),
        grid_stride=cascade.config.grid_stride,
        instances=recipe.instances.spec(cascade.config.things),
        provenance=provenance,
        metrics=notes["metrics"],
    )
    files = {f"graphs/{graph}.onnx": data for graph, data in export_graphs(cascade, recipe.input).items()}
    files[WEIGHTS] = save({key: tensor.contiguous() for key, tensor in cascade.state_dict().items()})
    files["MODEL_CARD.md"] = model_card(manifest).encode()
    if license_file is not None:
        try:
            files["LICENSE.md"] = license_file.read_bytes()
        except OSError as error:
            raise DataError(f"{license_file}: cannot be read ({error.strerror})") from error
    with TemporaryDirectory() as temporary:
        check(write_bundle(Path(temporary) / "bundle", manifest, files), cascade)
    return write_bundle(folder, manifest, files)


def _shape(cascade: Cascade) -> dict[str, Any]:
    """Shape of the networks, and which file a frozen one is of."""
    shape = cascade.config.to_dict()
    if isinstance(cascade.semantic, FrozenNetwork):
        note = cascade.semantic.note
        taps = {name: str(tap) for name, tap in note.taps.items()}
        shape["network"] = {"file": note.file, "sha256": note.sha256, "taps": taps}
    return shape


def _recipe(notes: dict[str, Any]) -> Recipe:
    """The recipe that a training followed."""
    table = {name: value for name, value in notes["recipe"].items() if name != "name"}
    data = table.get("data")
    if isinstance(data, dict) and isinstance(data.get("merge"), list):
        # Once these were how the semantic branch was begun, which is over.
        table["data"] = {name: value for name, value in data.items() if name != "merge"}
    return parse_recipe(notes["recipe"]["name"], table)


def _provenance(notes: dict[str, Any]) -> dict[str, Any]:
    recipe = notes["recipe"]
    return {
        **recipe.get("provenance", {}),
        "recipe": recipe["name"],
        "seed": recipe["seed"],
        "command": notes["command"],
        "finished": notes["finished"],
        "torch": notes["torch"],
    }
