"""`errseg-rt video`: a video, a camera or a stream to a clip of what is seen."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.cli.execution import doubts_of_map, options_of, stamp, warm_up
from errseg_rt.cli.faults import say
from errseg_rt.cli.options import (
    BudgetOption,
    BundleOption,
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
    print_table,
)
from errseg_rt.cli.outputs import check_file, check_folder
from errseg_rt.errors import DataError
from errseg_rt.system.atomic import write_json
from errseg_rt.system.lines import escaped
from errseg_rt.system.progress import is_watched
from errseg_rt.system.signals import ending_by_exception

if TYPE_CHECKING:
    from errseg_rt.runtime import Runtime
    from errseg_rt.video.picture import Source
    from errseg_rt.video.stream import Stats, Stream

_CLIPS = (".mp4", ".m4v", ".mov")
_EVERY = 0.5  # seconds from one line of progress to the next


def video(
    source: Annotated[
        str,
        typer.Argument(
            help="Video file; folder or glob of images; number of a camera; URL (rtsp, http, udp) or .sdp file; "
            "scene:SEED."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results, or the clip's own file, *.mp4.")],
    overlay: Annotated[bool, typer.Option("--overlay", help="Show the labels over the frame.")] = False,
    labels: Annotated[bool, typer.Option("--labels", help="Show the labels alone.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Show the error map alone.")] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Show frame, labels, error map and figures; the default.")
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="labels|pngs|lines",
            help="Write also: a lossless video of label ids, a PNG of them for each frame, a line of JSON for each; "
            "may be given again.",
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="all|latest", help="Lose no frame, or never lag behind; default: latest for live sources."
        ),
    ] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Play a file as a camera would give it.")] = False,
    stride: Annotated[int, typer.Option(min=1, help="Every how many frames one is taken.")] = 1,
    fps: Annotated[
        float | None,
        typer.Option(metavar="N", help="Frames a second that are taken at most; of images, those there are."),
    ] = None,
    start: Annotated[float, typer.Option(metavar="S", min=0.0, help="Seconds of a file at which to begin.")] = 0.0,
    duration: Annotated[float | None, typer.Option(metavar="S", min=0.0, help="Seconds to take.")] = None,
    transport: Annotated[
        str, typer.Option(metavar="tcp|udp", help="For RTSP: udp loses frames, and is sooner.")
    ] = "tcp",
    give_up: Annotated[
        float | None,
        typer.Option(
            "--give-up-after", metavar="S", min=0.0, help="Seconds without a frame after which a camera is given up."
        ),
    ] = None,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Leave out the sound of a file.")] = False,
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
    as_json: JsonOption = False,
) -> None:
    """Segment a video, a camera or a stream, and write what is seen as a clip that browsers play.

    Ctrl-C ends it with whole files. While it is written, the clip is NAME.partial.mp4, which plays, too.
    """
    from errseg_rt.runtime import Runtime
    from errseg_rt.video.files import FileSource
    from errseg_rt.video.given import Paced
    from errseg_rt.video.live import TRANSPORTS, Patience
    from errseg_rt.video.open import open_source
    from errseg_rt.video.record import KINDS, Recorder
    from errseg_rt.video.stream import POLICIES

    view = _view(overlay=overlay, labels=labels, errors=errors, side_by_side=side_by_side)
    kinds = tuple(dict.fromkeys(also or ()))
    for option, given, known in (
        ("--also", kinds, KINDS),
        ("--policy", (policy,) if policy else (), POLICIES),
        ("--transport", (transport,), TRANSPORTS),
    ):
        if wrong := [each for each in given if each not in known]:
            raise typer.BadParameter(f"{wrong[0]!r} is none of {', '.join(known)}.", param_hint=f"'{option}'")
    if fps is not None and not fps > 0:
        raise typer.BadParameter("must be above 0.", param_hint="'--fps'")
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
    name = _name_of(source)
    is_clip = out.suffix.lower() in _CLIPS and not out.is_dir()
    folder, clip = (out.parent, out) if is_clip else (out, out / f"{name}.mp4")
    name = clip.stem
    check_folder(folder)
    check_file(clip)
    if clip.exists() and Path(source).exists() and clip.resolve() == Path(source).resolve():
        raise DataError(f"{clip}: is the source itself; give another --out")
    opened = open_source(
        source,
        transport=transport,
        patience=Patience(give_up=give_up),
        fps=fps,
        start=start,
        duration=duration,
        max_pixels=max_pixels,
    )
    audio = opened.path if isinstance(opened, FileSource) and not no_audio else None
    played: Source = Paced(opened) if realtime else opened
    with Runtime(bundle, options=options) as runtime:
        if view == "errors" and not runtime.manifest.has_errors:
            raise DataError(f"bundle {bundle}: has no error map; leave out --errors")
        warm_up(runtime)
        stream = runtime.stream(played, policy=policy, stride=stride, max_fps=fps)
        recorder = Recorder(folder, name, clip, view=view, also=kinds, audio=audio)
        begun, ended_by = time.monotonic(), ""
        with ending_by_exception(), stream, recorder, _progress(stream) as report:
            try:
                for shot in stream:
                    if duration is not None and shot.timestamp >= start + duration:
                        break
                    recorder.write(shot)
                    report()
            except KeyboardInterrupt:
                ended_by = "Ctrl-C"
        seconds = time.monotonic() - begun
        summary = _summary(runtime, stream.stats, played.name, seconds) | {
            "outputs": {kind: str(path) for kind, path in recorder.outputs.items()},
            "notes": [*doubts_of_map(runtime.bundle), *recorder.notes],
            "ended_by": ended_by or None,
        }
    if not is_clip:
        write_json(folder / f"{name}.json", summary)
    if as_json:
        print_json(summary)
    else:
        _print(summary)
    for note in summary["notes"]:
        say("note", note)
    if ended_by:
        raise typer.Exit(130)


def _view(**asked: bool) -> str:
    """What the clip shows."""
    given = [name.replace("_", "-") for name, is_asked in asked.items() if is_asked]
    if len(given) > 1:
        raise typer.BadParameter("contradict each other: give one.", param_hint=" and ".join(f"'--{n}'" for n in given))
    return given[0] if given else "side-by-side"


def _name_of(source: str) -> str:
    """How results of a source are called: nothing of a URL's user, password or parameters."""
    if "://" in source:
        parts = urlsplit(source)
        text = f"{parts.hostname or ''}{parts.path}"
    else:
        path = Path(source)
        text = path.stem if path.suffix and path.is_file() else path.name or path.resolve().name
        text = f"camera{source}" if re.fullmatch(r"\d{1,3}", source) and not path.exists() else text
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "video"


@contextmanager
def _progress(stream: Stream) -> Iterator[Callable[[], None]]:
    """Give a function that says now and then how it goes, where a person looks on."""
    if not is_watched():
        yield lambda: None
        return
    from rich.console import Console

    begun, due = time.monotonic(), 0.0
    with Console(stderr=True).status("video") as status:

        def report() -> None:
            nonlocal due
            now = time.monotonic()
            if now < due:
                return
            due = now + _EVERY
            stats = stream.stats
            steps = ", ".join(f"{step} {value:.0f}" for step, value in stats.milliseconds.items())
            status.update(
                f"{stats.segmented} frames, {stats.segmented / max(now - begun, 1e-3):.1f} a second, {stats.dropped} "
                f"dropped, {stats.corrupt} damaged, {stats.reopened} times opened again; ms: {steps}"
            )

        yield report


def _summary(runtime: Runtime, stats: Stats, name: str, seconds: float) -> dict[str, Any]:
    return {
        "source": name,
        "bundle": runtime.manifest.name,
        **stamp(runtime),
        "frames": {
            "read": stats.read,
            "segmented": stats.segmented,
            "dropped": stats.dropped,
            "damaged": stats.corrupt,
        },
        "reopened": stats.reopened,
        "seconds": seconds,
        "fps": stats.segmented / seconds if seconds > 0 else None,
        "latency": dict(stats.latency),
        "milliseconds": dict(stats.milliseconds),
    }


def _print(summary: dict[str, Any]) -> None:
    rows = [[step, f"{value:.1f}"] for step, value in summary["milliseconds"].items()]
    if rows:
        print_table("Median time per frame", ["stage", "ms"], rows)
    frames = summary["frames"]
    parts = [f"{frames['segmented']} of {frames['read']} frames in {summary['seconds']:.1f} s"]
    parts += [f"{frames[word]} {word}" for word in ("dropped", "damaged") if frames[word]]
    if summary["reopened"]:
        parts.append(f"opened again {summary['reopened']} times")
    if summary["latency"]:
        latency = summary["latency"]
        parts.append(f"latency {1000 * latency['median']:.0f} ms, 95 % within {1000 * latency['p95']:.0f}")
    print("; ".join(parts))
    for kind, path in summary["outputs"].items():
        print(f"{kind}: {escaped(path)}")
