"""PyTorch: the reference engine, which runs the modules themselves from the bundle's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from errseg_rt.engines.engine import Array, TensorSpec
from errseg_rt.errors import EngineError
from errseg_rt.networks.cascade import Cascade, CascadeConfig
from errseg_rt.networks.graphs import GRAPHS


class TorchEngine:
    """One graph of a cascade, as its torch module, in float32 on the CPU.

    Args:
        weights: The bundle's safetensors.
        cascade: Shape of the networks, from the manifest.
        name: Which graph, a key of `GRAPHS`.

    Raises:
        EngineError: The weights do not fit.
    """

    def __init__(self, weights: bytes, cascade: Mapping[str, Any], name: str) -> None:
        self.name = name
        try:
            module = Cascade(CascadeConfig(**cascade))
            module.load_state_dict(load(weights))
        except (RuntimeError, TypeError, ValueError, SafetensorError) as error:
            raise EngineError(f"torch cannot load the {name} graph ({error}); export the bundle again") from error
        self._graph = GRAPHS[name](module.eval())
        float32 = torch.empty(0).numpy().dtype
        self.inputs: Mapping[str, TensorSpec] = {
            key: TensorSpec(float32, shape) for key, shape in self._graph.input_shapes().items()
        }
        self.outputs: Mapping[str, TensorSpec] = {
            key: TensorSpec(float32, shape) for key, shape in self._graph.output_shapes().items()
        }

    @torch.inference_mode()
    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Outputs by name, for inputs by name.

        Raises:
            EngineError: The graph cannot be run on these inputs.
        """
        try:
            values = self._graph(*(torch.from_numpy(feeds[key]) for key in self.inputs))
        except (KeyError, RuntimeError, TypeError) as error:
            shapes = {key: array.shape for key, array in feeds.items()}
            raise EngineError(f"torch cannot run the {self.name} graph on {shapes}: {error}") from error
        return {key: value.numpy() for key, value in zip(self.outputs, values, strict=True)}
