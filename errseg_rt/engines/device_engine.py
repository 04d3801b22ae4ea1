"""What an engine on a GPU is: it executes one graph of a bundle on tensors that lie there, and waits for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""The dtype of activations between the graphs and the kernels, by the name that users give a precision. An engine may
compute in less (int8 inside, float16 outside)."""


@dataclass(frozen=True)
class DeviceSpec:
    """An input or output of a graph on a device.

    Attributes:
        dtype: `"float32"`, `"float16"` or `"bfloat16"`.
        shape: Sizes, None where dynamic.
    """

    dtype: str
    shape: tuple[int | None, ...]


class DeviceEngine(Protocol):
    """Executes one graph, `front` or `refine`, on arrays of a `Gpu`, so that a whole frame can be one CUDA graph.

    The contract, with `DeviceCascade` as the caller:

    *Names and shapes.* Those of the bundle's graphs (`errseg_rt.networks.graphs`), batch 1. `front`: `image
    [1, 3, Hi, Wi]` to `logits [1, K, h, w]`, `error_logit [1, 1, h, w]`, `low [1, Cl, h, w]`, `coarse [1, Cc, h8, w8]`
    and `gate [1, C, 1, 1]`. `refine`: `logits`, `low`, `coarse`, `gate` to `detail_logits [1, K, h, w]`.

    *Dtypes.* `inputs` and `outputs` say them; feeds come in exactly these and nothing is cast for anybody. `logits`,
    `low`, `coarse`, `gate` and `detail_logits` share one dtype, that of the precision (`PRECISIONS`): the kernels take
    them as they are. `image` may be of any dtype of `DeviceSpec`, and so may `error_logit`, which is best left in
    float32: pixels are ranked by it.

    *Layout.* Feeds are C-contiguous, but for `low`, which comes as the front engine gave it. Outputs are C-contiguous,
    but for `low`, which may also be contiguous in `torch.channels_last`: refinement reads that without a copy.

    *Stream.* All work is enqueued in the GPU's current stream as it is at the call; whatever runs elsewhere is joined
    to it by events. The call returns without waiting: no synchronisation, no copy to the host, nothing that
    the capture of a stream forbids.

    *Warm-up and capture.* Before a shape is captured, the caller runs it twice, on a side stream and outside capture:
    there an engine may allocate, choose algorithms, compile, set shapes and wait. After that, the same shape is called
    under capture, perhaps on another stream, several times over: once for each frame in flight. The graphs replay
    the recorded work without calling the engine again, so that every address it used must stay valid and belong to it
    for the engine's life, or come from `Gpu.empty` or torch's allocator during the call. Graphs are replayed
    one after the other on one stream, never at once, so that engine-owned scratch and outputs may be shared by all.

    *Outputs.* Scratch memory of the frame, or buffers that the engine owns and keeps for each shape; either
    way they are read before the next call and never written by the caller.

    *Threads.* The caller holds a lock: one call at a time, though not always from the same thread.

    *Failure.* EngineError, with the graph's name, what is wrong and how to mend it. Shapes that the engine cannot run
    (a profile that does not cover them) are found in the first warm-up run.
    """

    @property
    def inputs(self) -> Mapping[str, DeviceSpec]:
        """Inputs by name, in the graph's order."""
        ...

    @property
    def outputs(self) -> Mapping[str, DeviceSpec]:
        """Outputs by name, in the graph's order."""
        ...

    def run_on_device(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Enqueue the graph on the current stream: outputs by name, for inputs by name.

        Raises:
            EngineError: The graph cannot be run on these inputs.
        """
        ...
