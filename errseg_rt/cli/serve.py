"""`errseg-rt serve`: frames over HTTP and WebSockets, and a page to look at them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.cli.execution import doubts_of_map, options_of, warm_up
from errseg_rt.cli.faults import say
from errseg_rt.cli.hiring import hired
from errseg_rt.cli.options import (
    BudgetOption,
    BundleOption,
    CompiledOption,
    DeadlineOption,
    DetailOption,
    DeviceOption,
    EngineOption,
    MaxPixelsOption,
    PrecisionOption,
    ProvidersOption,
    RayOption,
    ThreadsOption,
    ThresholdOption,
    WorkPixelsOption,
)
from errseg_rt.cluster import check_ray
from errseg_rt.errors import DataError
from errseg_rt.options import Options
from errseg_rt.system.progress import busy

if TYPE_CHECKING:
    from errseg_rt.runtime import Runtime
    from errseg_rt.service.replicas import Remote

_WANTED = ("fastapi", "uvicorn", "websockets", "prometheus_client")
_TOKEN = "ERRSEG_TOKEN"


def serve(
    source: Annotated[
        str | None,
        typer.Argument(help="What the page shows: a video, camera, URL or scene:SEED; none: what its readers send."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; only this machine reaches 127.0.0.1.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"File of the token that clients must show; or {_TOKEN} in the environment."),
    ] = None,
    public_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]", help="Name by which users reach it, behind a proxy, say; may be given again."
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate, as PEM, for https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key.")] = None,
    max_bytes: Annotated[int, typer.Option(metavar="N", help="Largest body of a request.")] = 32 << 20,
    max_clients: Annotated[int, typer.Option(metavar="N", help="Most streams and requests at a time.")] = 64,
    queue: Annotated[int, typer.Option(metavar="N", help="Most requests that wait; more are told to come again.")] = 16,
    grace: Annotated[
        float, typer.Option(metavar="S", help="Seconds from SIGTERM to the end, in which what runs is finished.")
    ] = 10.0,
    ray: RayOption = None,
    replicas: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Runtimes on Ray; default: as many as it has CPUs, or GPUs, for."),
    ] = None,
    transport: Annotated[str, typer.Option(metavar="tcp|udp", help="For a source of RTSP.")] = "tcp",
    give_up: Annotated[
        float | None,
        typer.Option(
            "--give-up-after", metavar="S", min=0.0, help="Seconds without a frame after which a camera is given up."
        ),
    ] = None,
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
) -> None:
    """Serve frames over HTTP and WebSockets, with the Open Inference Protocol, metrics, and a page at /.

    On a CPU requests run side by side on one thread each, unless --threads says otherwise. SIGTERM and Ctrl-C end it
    once what runs is finished.
    """
    if missing := [name for name in _WANTED if find_spec(name) is None]:
        raise DataError(
            f"serve needs {', '.join(missing)}, which the extra serve brings: pip install 'errseg-rt[serve]'"
        )
    from errseg_rt.service.live import Live
    from errseg_rt.service.server import Server, listen
    from errseg_rt.service.settings import Settings
    from errseg_rt.service.state import Service
    from errseg_rt.video.live import TRANSPORTS, Patience
    from errseg_rt.video.open import open_source

    if transport not in TRANSPORTS:
        raise typer.BadParameter(f"{transport!r} is none of {', '.join(TRANSPORTS)}.", param_hint="'--transport'")
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("go together.", param_hint="'--tls-cert' and '--tls-key'")
    if replicas is not None and ray is None:
        raise typer.BadParameter("is for --ray.", param_hint="'--replicas'")
    if ray is not None:
        check_ray(ray)
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
    if threads is None and options.kind == "cpu":
        options = options_of(**{**options.__dict__, "providers": providers, "threads": 1})
    try:
        settings = Settings(
            names=tuple(public_name or ()),
            token=_token(token_file),
            max_bytes=max_bytes,
            max_clients=max_clients,
            queue=queue,
            grace=grace,
        )
    except ValueError as error:
        name, _, _ = str(error).partition(" ")
        raise DataError(f"--{name.replace('_', '-')}: {error}") from error
    listening, answers = listen(host, port), sys.stdout
    with _opened(bundle, options, ray, replicas, settings.queue) as (runtime, workers):
        service = Service(runtime, settings, workers=workers)
        if source is not None:
            opened = open_source(
                source, transport=transport, patience=Patience(give_up=give_up), max_pixels=options.max_pixels
            )
            service.live = Live(runtime, opened, service.metrics, max(1, workers - 1))
            service.live.start()
        address, used = listening.getsockname()[:2]
        is_near = address.startswith("127.") or address == "::1"
        if not is_near and settings.token is None:
            say("warning", f"whoever reaches {address} may use this service; give a token by --token-file")
        for note in doubts_of_map(runtime.bundle):
            say("note", note)
        shown = f"[{address}]" if ":" in address else address

        def told() -> None:
            print(
                f"serving {service.model} at {'https' if tls_cert else 'http'}://{shown}:{used}",
                file=answers,
                flush=True,
            )

        server = Server(service, told, tls=(str(tls_cert), str(tls_key)) if tls_cert else None)
        server.run(sockets=[listening])
        service.work.close()
        if service.live is not None:
            service.live.close()
    if service.work.under_way:  # a frame that takes longer than the grace; its thread would hold the process
        os._exit(0)
    if server.signal == signal.SIGINT:
        raise typer.Exit(130)


@contextmanager
def _opened(
    bundle: str, options: Options, address: str | None, replicas: int | None, queue: int
) -> Iterator[tuple[Runtime | Remote, int]]:
    """What segments the frames, here or in a Ray cluster, and how many of them at a time."""
    from errseg_rt.runtime import Runtime

    if address is None:
        with Runtime(bundle, options=options) as runtime:
            warm_up(runtime)
            yield runtime, options.side_by_side
        return
    from errseg_rt.service.replicas import deployed

    opened = Bundle.open(bundle)
    with hired(address, options, replicas) as (_, most), ExitStack() as stack:
        with busy(f"deploy {most} replicas"):
            remote = stack.enter_context(deployed(opened, options, most, queue))
        yield remote, most


def _token(file: Path | None) -> str | None:
    """The token of a file, or of the environment; it is never an argument, which every user of a machine can list."""
    if file is None:
        return os.environ.get(_TOKEN) or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: the token cannot be read ({getattr(error, 'strerror', None) or error})") from error
