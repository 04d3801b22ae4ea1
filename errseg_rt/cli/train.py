"""`errseg-rt train`: a recipe and labelled frames to the weights of a cascade."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.cli.execution import options_of
from errseg_rt.cli.frozen import NetworkOption, TapsOption, open_frozen
from errseg_rt.cli.labelled import FirstIdOption, LabelMapOption
from errseg_rt.cli.options import AllowDamagedOption, IgnoreOrientationOption, MaxPixelsOption
from errseg_rt.cli.outputs import check_folder
from errseg_rt.errors import EngineError
from errseg_rt.frames.reading import Reading
from errseg_rt.system.lines import one_line

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "64-true")
"""Lightning's names of the arithmetics in which all of a training works."""


def _precision(value: str) -> str:
    if value not in PRECISIONS:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(PRECISIONS)}.")
    return value


def _meaning(first_id: int | None, label_map: str | None) -> dict[str, Any]:
    """What label ids mean, in the stead of all that the recipe says of it; nothing where no option says so."""
    if (first_id, label_map) == (None, None):
        return {}
    return {"data": {"first_id": first_id, "label_map": label_map, "void": None}}


def _import_named(name: str, recipe: str) -> None:
    """Import the network that the user's recipe names in a module of theirs, and say so."""
    from errseg_rt.networks.registry import import_network, is_importable

    if is_importable(name):
        print(f"{recipe}: imports {name}, as cascade.semantic names it")
        import_network(name)


def train(
    recipe: Annotated[str, typer.Argument(help="Recipe's name in the package, or a TOML file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoints, logs and results.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with train/ and val/, each with images/ and labels/ or instances/, or the root of "
            "Cityscapes, ADE20K, VOC, SBD or data in COCO's panoptic format; default: rendered scenes."
        ),
    ] = None,
    also: Annotated[
        Path | None,
        typer.Option(help="Folder of further frames to learn from, with labels of the network's own classes."),
    ] = None,
    first_id: FirstIdOption = None,
    label_map: LabelMapOption = None,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    allow_damaged: AllowDamagedOption = False,
    ignore_orientation: IgnoreOrientationOption = False,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Weights to start the semantic branch from (.pth, .safetensors, or the prefix of a TensorFlow "
            "checkpoint, as model.ckpt)."
        ),
    ] = None,
    network: NetworkOption = None,
    taps: TapsOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Takes the place of the recipe's seed.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A value that takes the place of the recipe's, in TOML: detail.iterations=100, augment.flip=false, "
            "\"data.classes='camvid'\".",
        ),
    ] = None,
    shared: Annotated[
        Path | None,
        typer.Option(help="Folder of another training whose semantic branch, folds and kept taps are used."),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="Devices that share each batch.")] = 1,
    precision: Annotated[
        str, typer.Option(callback=_precision, help=f"Arithmetic: {', '.join(PRECISIONS)}.")
    ] = PRECISIONS[0],
    score_rendered: Annotated[
        int, typer.Option(min=0, max=60, help="Rendered frames to score the finished cascade on; 0: none.")
    ] = 60,
) -> None:
    """Train semantic, error-prediction and detail branch; called again after a kill, it goes on where it was."""
    try:
        from errseg_rt.training.checkpoint import finished_on
        from errseg_rt.training.loop import train as run
        from errseg_rt.training.outputs import RESULT
        from errseg_rt.training.recipe_files import load_recipe
    except ModuleNotFoundError as error:
        raise EngineError(f"training is not installed ({error}): pip install 'errseg-rt[train]'") from error
    except RuntimeError as error:  # torchmetrics imports torchvision where that is installed
        raise EngineError(
            f"training does not load here ({one_line(error)}); install a torchvision that fits this torch, or none"
        ) from error
    # Absolute paths say more of a machine than of a training.
    command = " ".join(["errseg-rt", *(Path(part).name if Path(part).is_absolute() else part for part in sys.argv[1:])])
    check_folder(out)
    options_of(max_pixels=max_pixels)  # which checks it
    given = _meaning(first_id, label_map)
    if given and data is None:
        raise typer.BadParameter("are for labelled frames: give --data.", param_hint="'--first-id' and '--label-map'")
    changes = [*(change or []), *([] if seed is None else [f"seed={seed}"])]
    frozen = None
    if network is None:
        if taps is not None:
            raise typer.BadParameter("is for a network of yours: give --network.", param_hint="'--taps'")
        settings = load_recipe(recipe, changes, given)
        _import_named(settings.cascade.semantic, recipe)
    else:
        settings, frozen = open_frozen(network, taps, recipe, changes, given)
    was_finished = (out / RESULT).exists()
    path = run(
        settings,
        data,
        out,
        init,
        command,
        also=also,
        network=frozen,
        shared=shared,
        devices=devices,
        precision=precision,
        score_rendered=score_rendered,
        reading=Reading(max_pixels, allow_damaged, ignore_orientation),
    )
    if was_finished:
        print(f"{path}: finished already on {finished_on(path)}; remove {out} to train again, or give another --out")
    print(f"{path}: make a bundle of it with errseg-rt export {path} -o BUNDLE")
