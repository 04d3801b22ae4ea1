"""`errseg-rt demo`: a rendered street, or rendered cells, through an embedded bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from errseg_rt.batch.figures import frame_summary
from errseg_rt.bundle.classes import CAMVID, ClassSet
from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.cli.execution import options_of, stamp, warm_up
from errseg_rt.cli.options import (
    BudgetOption,
    CompiledOption,
    DeadlineOption,
    DetailOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    MaxPixelsOption,
    PrecisionOption,
    ProvidersOption,
    ThreadsOption,
    ThresholdOption,
    WorkPixelsOption,
    print_json,
    print_run,
    print_scores,
    print_table,
    run_summary,
)
from errseg_rt.cli.outputs import check_file, check_folder
from errseg_rt.datasets.scores import ConfusionMatrix
from errseg_rt.errors import DataError
from errseg_rt.system.atomic import write_json
from errseg_rt.system.progress import track

if TYPE_CHECKING:
    from errseg_rt.scenes import NucleiScene, StreetScene

_FPS = 15.0
_STILLS = 3
_WIDEST = 16384 // 2  # of two panels, which H.264 takes
_CLIP = "demo.mp4"
NUCLEI = ("background", "nucleus")
"""Classes of rendered cells."""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("errseg-demo"),
    frames: Annotated[int, typer.Option(min=1, help="Length of the clip.")] = 60,
    height: Annotated[int, typer.Option(min=32, max=8192, help="Height of a frame in pixels.")] = 360,
    width: Annotated[int, typer.Option(min=32, max=_WIDEST, help="Width of a frame in pixels.")] = 480,
    seed: Annotated[int, typer.Option(min=0, help="Which scene.")] = 1000,
    instances: Annotated[
        bool, typer.Option("--instances", help="Show cells, and the bundle nuclei, which tells them apart.")
    ] = False,
    bundle: Annotated[
        str | None,
        typer.Option(
            "--bundle", "-b", help="Embedded bundle's name, or a bundle's folder, with classes of streets or of nuclei."
        ),
    ] = None,
    engine: EngineOption = "onnxruntime",
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    compiled: CompiledOption = False,
    providers: ProvidersOption = None,
    threads: ThreadsOption = None,
    threshold: ThresholdOption = None,
    detail: DetailOption = None,
    budget: BudgetOption = None,
    deadline_ms: DeadlineOption = None,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    work_pixels: WorkPixelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Render a street, or cells, segment it, and show frame, labels and error map side by side.

    Writes demo.mp4, a few stills and summary.json; prints stage times, the mIoU of semantic and fused labels, and how
    well instances are told apart, where the bundle does that.
    """
    from errseg_rt.datasets import TrueInstances
    from errseg_rt.evaluation import InstanceScores
    from errseg_rt.evaluation.tables import instance_figures
    from errseg_rt.runtime import Runtime
    from errseg_rt.video.clip import ClipWriter
    from errseg_rt.video.drawing import drawn

    options = options_of(
        engine=engine,
        precision=precision,
        device=device,
        compiled=compiled,
        providers=providers,
        threads=threads,
        threshold=threshold,
        detail=detail,
        budget=budget,
        deadline_ms=deadline_ms,
        max_pixels=max_pixels,
        work_pixels=work_pixels,
    )
    check_folder(out)
    for name in (_CLIP, "summary.json"):
        check_file(out / name)
    if height * width > max_pixels:
        raise DataError(f"frames of {height}x{width} pixels are over the limit of {max_pixels}; raise --max-pixels")
    bundle = bundle or ("nuclei" if instances else "camvid")
    stills = set(np.linspace(0, frames - 1, min(_STILLS, frames)).astype(int).tolist())
    done: list[dict[str, Any]] = []
    with (
        Runtime(bundle, options=options) as runtime,
        ClipWriter(out / _CLIP) as video,
    ):
        classes, things = runtime.manifest.classes, runtime.manifest.things
        scene = _scene_of(classes, bundle)(seed, height, width, _FPS)
        if instances and not things:
            raise DataError(f"bundle {bundle}: finds no instances; leave out --instances or --bundle")
        semantic, fused = ConfusionMatrix(len(classes)), ConfusionMatrix(len(classes))
        told_apart = InstanceScores(len(classes), things)
        warm_up(runtime)
        for index in track(range(frames), "demo", frames):
            rendered = scene.frame(index)
            result = runtime.segment(rendered.frame, semantic=True)
            video.write(drawn("side-by-side", rendered.frame, result, index / _FPS), index / _FPS)
            if index in stills:
                result.save(out, f"frame_{index:04d}", rendered.frame)
            done.append(frame_summary(result))
            fused.add(rendered.labels, result.labels)
            if result.semantic_labels is not None:
                semantic.add(rendered.labels, result.semantic_labels)
            if result.instances is not None:
                truth = TrueInstances.of_labels(rendered.instances.astype(np.int32), rendered.labels)
                told_apart.add(truth, rendered.labels, result.instances, result.labels)
        summary: dict[str, Any] = {
            "bundle": runtime.manifest.name,
            **stamp(runtime),
            "clip": {"seed": seed, "frames": frames, "height": height, "width": width, "fps": _FPS},
            **run_summary(runtime, done),
            "scores": {"semantic": semantic.to_dict(classes), "fused": fused.to_dict(classes)}
            | ({"instances": told_apart.to_dict(classes)} if things else {}),
        }
    write_json(out / "summary.json", summary)
    if as_json:
        print_json(summary)
        return
    print_run(summary)
    print_scores(summary)
    if things:
        for table in instance_figures(summary["scores"]["instances"])[:2]:
            print_table(table.title, table.headings(), table.text())
    print(f"{out / _CLIP}: frame, labels and error map side by side")


def _scene_of(classes: ClassSet, bundle: str) -> type[StreetScene] | type[NucleiScene]:
    """What is rendered for a bundle, by the names of its classes."""
    from errseg_rt.scenes import NucleiScene, StreetScene

    if classes.names == CAMVID.names:
        return StreetScene
    if classes.names == NUCLEI:
        return NucleiScene
    raise DataError(f"bundle {bundle}: its classes are not those of rendered streets or nuclei; use segment instead")
