"""`errseg-rt segment`: image files to labels, colours, error maps and overlays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from errseg_rt.batch.image import ImageWork, settings_of
from errseg_rt.batch.instances import InstanceFiles
from errseg_rt.batch.kept import Batch, Entry, earlier
from errseg_rt.batch.places import check_apart
from errseg_rt.batch.tally import Tally
from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.cli.execution import doubts_of_map, options_of, stamp, warm_up
from errseg_rt.cli.faults import say
from errseg_rt.cli.labelled import FirstIdOption, LabelMapOption, VoidOption, print_warnings
from errseg_rt.cli.options import (
    AllowDamagedOption,
    BudgetOption,
    BundleOption,
    CompiledOption,
    DeadlineOption,
    DetailOption,
    DeviceOption,
    EngineOption,
    IgnoreOrientationOption,
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
    run_summary,
)
from errseg_rt.cli.outputs import Outputs, check_file, check_folder
from errseg_rt.cli.ranking import RankOption, check_rank, print_ranking, ranking
from errseg_rt.datasets.doubts import doubts
from errseg_rt.datasets.inputs import Item, find_images
from errseg_rt.datasets.label_map import LabelMap, check_alone
from errseg_rt.datasets.output_ids import OutputIds
from errseg_rt.frames.reading import Reading
from errseg_rt.system.progress import track


def segment(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Image files, folders or globs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")],
    bundle: BundleOption = "camvid",
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
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB", help="Names, or paths below an input, that are passed over in it; may be given again."
        ),
    ] = None,
    allow_damaged: AllowDamagedOption = False,
    ignore_orientation: IgnoreOrientationOption = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what the summary in the folder of results says is done already.")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(help="Folder of true labels (PNG, named as the images), to score against.")
    ] = None,
    void: VoidOption = None,
    first_id: FirstIdOption = None,
    label_map: LabelMapOption = None,
    ids: Annotated[
        str | None,
        typer.Option(
            metavar="labelIds|trainIds|ade20k|palette|FILE",
            help="Write one PNG of label ids for each image, under its name, in the stead of the four pictures: ids of "
            "Cityscapes, of the classes, of ADE20K, of the classes with their colours as a palette, or of a label map.",
        ),
    ] = None,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances",
            help="Also write whose each pixel is, as NAME_instances.png of 16 bits, 0 nobody's, and the instances of "
            "all images as instances.json, COCO's, with run lengths; for bundles that find instances.",
        ),
    ] = False,
    panoptic: Annotated[
        bool,
        typer.Option(
            "--panoptic",
            help="Also write labels and instances as NAME_panoptic.png and panoptic.json, in COCO's panoptic format.",
        ),
    ] = False,
    rank: RankOption = False,
    as_json: JsonOption = False,
) -> None:
    """Segment image files: class ids, colours, error heat map and overlay of each, and one summary.json.

    A folder that holds images/ and labels/ is scored against its labels. A bad file is reported at the end, and the
    others are done.
    """
    from errseg_rt.runtime import Runtime

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
    check_file(out / "summary.json")
    reading = Reading(max_pixels, allow_damaged, ignore_orientation)
    found = find_images(inputs, labels, out, exclude or ())
    with Runtime(bundle, options=options) as runtime:
        classes = runtime.manifest.classes
        check_rank(runtime.manifest, is_asked=rank)
        extra = InstanceFiles.of(runtime.manifest, instances=instances, panoptic=panoptic)
        for path in extra.documents(out):
            check_file(path)
        if label_map is None:
            meaning = LabelMap.of(len(classes), void, first_id or 0)
        else:
            check_alone(void, first_id)
            meaning = LabelMap.open(label_map, classes)
        output = OutputIds.open(ids, classes) if ids is not None else None
        work = ImageWork(out, runtime.manifest, reading, meaning, output, extra)
        check_apart(found.items, work.results, is_ours=(out / "summary.json").exists())
        settings = {**settings_of(runtime.bundle, runtime.options), **work.settings}
        tally = Tally(classes)

        def summarise(frames: list[Entry]) -> dict[str, Any]:
            return {
                "bundle": runtime.manifest.name,
                **stamp(runtime),
                "settings": settings,
                **run_summary(runtime, frames),
                **tally.summary(len(found.items)),
                **extra.summary(frames),
                **(ranking(frames) if rank else {}),
                "notes": doubts_of_map(runtime.bundle)
                + doubts(tally.semantic.counts, classes, bundle, meaning.first_id),
            }

        def entry_of(item: Item) -> Entry:
            known = done.get(str(item.path))
            entry = known if known is not None and work.is_done(item, known) else work.do(runtime, item)
            tally.add(entry)
            return entry

        out.mkdir(parents=True, exist_ok=True)
        done = earlier(out / "summary.json", settings) if resume else {}
        batch = Batch(out / "summary.json", summarise)
        with batch.kept():
            warm_up(runtime)
            for item in track(found.items, "segment", len(found.items)):
                batch.attempt(item.path, lambda item=item: entry_of(item))  # type: ignore[misc]
                batch.keep()
        summary = batch.summary()
        outputs = Outputs()
        extra.write(batch.frames, out, reading, outputs.writing)
    if as_json:
        print_json(summary)
    elif batch.frames:
        print_run(summary)
        if summary["scored"]:
            _print_scores(summary)
        if rank:
            print_ranking(summary)
        if extra.kinds:
            listed = ", ".join(f"{count} {name}" for name, count in summary["instances"].items())
            print(f"instances: {listed or 'none'}")
        print(f"{len(batch.frames)} of {len(found.items)} images segmented: {out}")
    for note in found.notes:
        say("note", note)
    print_warnings(summary["notes"])
    for failure in batch.failed:
        say("error", failure["error"])
    for fault in outputs.faults:
        say("error", fault)
    if batch.failed or outputs.faults:
        raise typer.Exit(2)


def _print_scores(summary: dict[str, Any]) -> None:
    scored = summary["scored"]
    if summary["scores"]:
        print_scores(summary)
    share = f"{100 * scored['valid_pixels']:.1f} % of their pixels have a class"
    print(f"scored: {scored['frames']} of {scored['of']} frames; {share}")
