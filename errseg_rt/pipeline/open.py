"""Opening a bundle in a place: its engines, its pipeline, and how frames go through it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.engines.fitting import built_engines, kernels_of
from errseg_rt.engines.open import open_engine
from errseg_rt.options import Options
from errseg_rt.pipeline.direct import Direct
from errseg_rt.pipeline.flight import Flight
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.places.open import open_gpu
from errseg_rt.system.forks import keep_in_forks

if TYPE_CHECKING:
    from errseg_rt.places.place import Place


def open_way(bundle: Bundle, options: Options) -> Direct | Flight:
    """What sends frames through a bundle.

    Args:
        bundle: The bundle.
        options: How it is run; `build` is not looked at.

    Raises:
        BundleError: The bundle is damaged, or cannot be refined sparsely, as budgets and deadlines need.
        EngineError: There is no such GPU, the engine is not installed, or cannot load the bundle.
    """
    place = open_place(bundle, options)
    front = open_engine(bundle, "front", options, place)
    stage3 = open_engine(bundle, "refine", options, place) if bundle.manifest.has_detail else None
    is_bounded = (options.budget, options.deadline_ms) != (None, None)
    with place.entered():
        pipeline = Pipeline(
            bundle,
            front,
            stage3,
            place,
            detail="sparse" if is_bounded else options.detail,
            spec=input_spec(bundle, options),
        )
    way = Direct(pipeline) if place.is_immediate else Flight(pipeline)
    keep_in_forks(way)
    return way


def open_place(bundle: Bundle, options: Options) -> Place:
    """The place of the options; kernels that were compiled ahead are those of the bundle's built engines."""
    if options.kind == "cpu":
        from errseg_rt.places.cpu import Cpu

        return Cpu(options.cores)
    return open_gpu(
        options.index,
        needs_torch=options.engine == "torch",
        kernels=lambda: kernels_of(built_engines(bundle, options.engine, options.arithmetic, options.index)),
    )


def input_spec(bundle: Bundle, options: Options) -> InputSpec:
    """How the network takes a frame, with the limit that the options set."""
    spec = bundle.manifest.input
    return spec if options.work_pixels is None else replace(spec, work_pixels=options.work_pixels)
