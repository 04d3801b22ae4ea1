"""What an engine is: it executes one graph of a bundle, on the arrays of a place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from errseg_rt.kernels.launch import Launcher

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "float16"}
"""The dtype of activations between the graphs and the kernels on a GPU, by the name that users give a precision; int8
is inside."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph.

    Attributes:
        dtype: Its name, say `"float32"`.
        shape: Sizes, None where dynamic.
        by_pixel: Whether the channels of a pixel lie one behind the other, as in `torch.channels_last`.
    """

    dtype: str
    shape: tuple[int | None, ...]
    by_pixel: bool = False


def empty_as(launcher: Launcher, spec: TensorSpec, shape: Sequence[int]) -> Any:
    """Memory for a tensor `[1, C, h, w]`, which lies as its specification says."""
    if not spec.by_pixel:
        return launcher.empty(shape, spec.dtype)
    batch, channels, *size = shape
    return launcher.empty((batch, *size, channels), spec.dtype).permute(0, 3, 1, 2)


def lies_as(spec: TensorSpec, array: Any) -> bool:
    """Whether an array has the layout of its specification."""
    return bool((array.permute(0, 2, 3, 1) if spec.by_pixel else array).is_contiguous())


class Engine(Protocol):
    """Executes one graph, `front` or `refine`, on arrays of a place.

    *Names, shapes and dtypes* are those of `errseg_rt.bundle.contract`, batch 1; `inputs` and `outputs` say what this
    engine takes and gives. Nothing is cast for anybody: feeds come in exactly these dtypes. Tensors between the graphs
    share one dtype, but for those that stay float32; kernels take them as they are.

    *On a CPU* arrays are NumPy's, results are there when `run` returns, and several threads may call it at once.

    *On a GPU* the caller is `errseg_rt.pipeline.flight`, which holds a lock: one call at a time, though not always from
    the same thread.

    - *Layout.* Feeds are C-contiguous, but for `low`, which comes as the front engine gave it. Outputs are
      C-contiguous, but for `low`, which may also be contiguous in `torch.channels_last`: refinement reads that without
      a copy.
    - *Stream.* All work is enqueued in the GPU's current stream as it is at the call; whatever runs elsewhere is joined
      to it by events. The call returns without waiting: no synchronisation, no copy to the host, nothing that the
      capture of a stream forbids.
    - *Warm-up and capture.* Before a shape is captured, the caller runs it twice, on a side stream and outside capture:
      there an engine may allocate, choose algorithms, compile, set shapes and wait. After that, the same shape is
      called under capture, perhaps on another stream, several times over: once for each frame in flight. The graphs
      replay the recorded work without calling the engine again, so that every address it used must stay valid: it is
      the engine's own for life, or comes from `Gpu.empty` or torch's allocator during the call, or belongs to what the
      engine hands to `Gpu.hold`, `Gpu.workspace` for one. What is the engine's for life must not grow with the number
      of shapes.
    - *Outputs.* Scratch memory of the frame; they are read before the next frame begins, and never written by the
      caller.
    """

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name, in the graph's order."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name, in the graph's order."""
        ...

    def run(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Outputs by name, for inputs by name.

        Raises:
            EngineError: The graph cannot be run on these inputs; it is named, with what is wrong and how to mend it.
        """
        ...
