"""Opening a runtime as the sub-commands that run a bundle share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from errseg_rt.errors import ErrsegError
from errseg_rt.system.progress import busy

if TYPE_CHECKING:
    from errseg_rt.runtime import Runtime


def open_runtime(bundle: str, engine: str, precision: str | None, device: str | None, **options: Any) -> Runtime:
    """A runtime, with what a user asked for; None leaves the choice to it.

    Args:
        bundle: Name or folder.
        engine: What executes the graphs.
        precision: What they are computed in.
        device: `"cpu"`, `"cuda"` or `"cuda:N"`.
        options: More of its options.

    Raises:
        ErrsegError: The bundle is damaged, there is no such GPU, or the engine cannot be used here.
        BadParameter: Options contradict each other, as a deadline and a GPU do.
    """
    from errseg_rt.runtime import Runtime

    try:
        return Runtime(bundle, engine, device=device, precision=precision, **options)
    except ErrsegError:  # some of which are ValueErrors too
        raise
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from error


def warm_up(runtime: Runtime) -> None:
    """Compile the CPU's kernels, for which the first frame would wait.

    A GPU captures the work of each size of frames at the first of them, and a built engine may fit no other size:
    there is nothing to be done ahead of the frames.
    """
    if runtime.device == "cpu":
        with busy("warm up (the first time on a machine, kernels are compiled)"):
            runtime.warm_up()


def stamp(runtime: Runtime) -> dict[str, str]:
    """Engine, precision and device of a runtime's results, for a report."""
    return {"engine": runtime.engine, "precision": runtime.precision, "device": runtime.device}
