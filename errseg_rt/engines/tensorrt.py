"""TensorRT: the deployment path, on engines that `errseg-rt build-engine` has put into the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from errseg_rt.bundle.built import BuiltEngine
from errseg_rt.engines.engine import TensorSpec, lies_as
from errseg_rt.engines.tensorrt_plan import Plans
from errseg_rt.errors import EngineError
from errseg_rt.kernels.launch import dtype_of

if TYPE_CHECKING:
    from errseg_rt.places.place import Gpu


class TensorRTEngine:
    """One graph in TensorRT; see `errseg_rt.engines.engine.Engine`.

    Args:
        built: Built engines that fit this machine.
        graph: `"front"` or `"refine"`.
        gpu: The GPU.

    Raises:
        EngineError: TensorRT cannot be used here, or cannot load the graph.
    """

    def __init__(self, built: Sequence[BuiltEngine], graph: str, *, gpu: Gpu) -> None:
        self._gpu, self._graph = gpu, graph
        with gpu.entered():
            self._plans = Plans(built, graph, gpu)
            first = self._plans.first
        self.inputs: Mapping[str, TensorSpec] = first.inputs
        self.outputs: Mapping[str, TensorSpec] = first.outputs

    def run(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Enqueue the graph in the current stream: outputs by name, for inputs by name, in scratch memory.

        Raises:
            EngineError: Nothing was built for these inputs, they are of another dtype or layout, or TensorRT fails.
        """
        for name, array in feeds.items():
            spec = self.inputs.get(name)
            if spec and (dtype_of(array) != spec.dtype or not lies_as(spec, array)):
                order = " by pixel" if spec.by_pixel else ""
                raise EngineError(
                    f"tensorrt cannot run the {self._graph} graph: {name} must be contiguous {spec.dtype}{order}, got "
                    f"{dtype_of(array)} with strides {array.stride()}"
                )
        return self._plans.binding({name: tuple(array.shape) for name, array in feeds.items()}).enqueue(
            feeds, self._gpu
        )
