"""What the sub-commands that run a bundle share: options of a runtime, its start, and what a report says of it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import typer

from errseg_rt.options import Options
from errseg_rt.system.progress import busy

if TYPE_CHECKING:
    from errseg_rt.bundle.bundle import Bundle
    from errseg_rt.runtime import Runtime

_CPU_PROVIDERS = ("CPUExecutionProvider",)


def options_of(*, providers: str | None = None, **asked: Any) -> Options:
    """What a user asked for, as `Options`, which check it.

    Args:
        providers: ONNX Runtime's execution providers, with commas between them.
        asked: Other options by name; those that are None stay as they are by default.

    Raises:
        BadParameter: One is out of range, or two of them contradict each other; it names the option.
    """
    if providers is not None:
        asked["providers"] = tuple(name.strip() for name in providers.split(","))
    try:
        return Options(**{name: value for name, value in asked.items() if value is not None})
    except ValueError as error:
        name = str(error).partition(" ")[0]
        raise typer.BadParameter(f"{error}.", param_hint=f"'--{name.replace('_', '-')}'") from error


def warm_up(runtime: Runtime) -> None:
    """Compile the CPU's kernels, for which the first frame would wait.

    A GPU captures the work of each size of frames at the first of them, and a built engine may fit no other size:
    there is nothing to be done ahead of the frames.
    """
    if runtime.device == "cpu":
        with busy("warm up (the first time on a machine, kernels are compiled)"):
            runtime.warm_up()


def doubts_of_map(bundle: Bundle) -> list[str]:
    """What a user should know of a bundle's error map before trusting its figures, a line each."""
    if not bundle.manifest.has_errors:
        return ["the network gives labels alone, so that there is no error map"]
    if not bundle.manifest.is_calibrated:
        return [
            "the error probabilities are not calibrated: they are what the network itself thinks; errseg-rt calibrate "
            f"{shlex.quote(bundle.address)} --data DIR -o CALIBRATED fits them to labelled frames of yours"
        ]
    return []


def stamp(runtime: Runtime) -> dict[str, Any]:
    """Engine, precision and device of a runtime's results, for a report; and what ONNX Runtime runs on, if not a CPU.

    The device is where frames are walked: with providers of other hardware, the graphs run there in between.
    """
    found: dict[str, Any] = {
        "engine": runtime.options.engine,
        "precision": runtime.precision,
        "device": runtime.device,
    }
    if runtime.options.providers is not None or runtime.providers not in ((), _CPU_PROVIDERS):
        found["providers"] = list(runtime.providers)
    return found
