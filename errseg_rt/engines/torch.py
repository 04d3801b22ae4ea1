"""PyTorch, which runs the modules themselves from the bundle's weights: the reference, and the GPU path of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from errseg_rt.bundle.contract import CONTRACT
from errseg_rt.engines.engine import DTYPES, TensorSpec
from errseg_rt.errors import DataError, EngineError
from errseg_rt.networks.cascade import Cascade, CascadeConfig
from errseg_rt.networks.fold import fold_norms
from errseg_rt.networks.graphs import GRAPHS, FrontGraph, RefineGraph
from errseg_rt.system.fields import FieldError


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
        self._hold(_graph(weights, cascade, name), name)

    @classmethod
    def of(cls, cascade: Cascade, name: str) -> TorchEngine:
        """The graph of a cascade that is there already, in eval mode."""
        engine = cls.__new__(cls)
        engine._hold(GRAPHS[name](cascade), name)
        return engine

    def _hold(self, graph: FrontGraph | RefineGraph, name: str) -> None:
        self.name, self._graph = name, graph
        self.inputs: Mapping[str, TensorSpec] = {
            key: TensorSpec("float32", shape) for key, shape in self._graph.input_shapes().items()
        }
        self.outputs: Mapping[str, TensorSpec] = {
            key: TensorSpec("float32", shape) for key, shape in self._graph.output_shapes().items()
        }

    @torch.inference_mode()
    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, npt.NDArray[Any]]:
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


class TorchGpuEngine:
    """One graph of a cascade on a GPU: channels last, constant norms folded; see `errseg_rt.engines.engine.Engine`.

    Convolutions are of the precision; softmax, exponentials, logarithms and what is left of the norms are computed in
    float32 (torch's autocast), and so are the sums of global averages.

    Args:
        weights: The bundle's safetensors.
        cascade: Shape of the networks, from the manifest.
        name: Which graph, a key of `GRAPHS`.
        device: Where it shall run.
        precision: A key of `DTYPES`, but for int8.
        compiled: Whether `torch.compile` fuses what lies between the convolutions: minutes, at the first frame of every
            size.

    Attributes:
        graph: The network as it is run, under autocast.

    Raises:
        EngineError: The weights do not fit, or the device does not hold them.
    """

    def __init__(
        self,
        weights: bytes,
        cascade: Mapping[str, Any],
        name: str,
        *,
        device: torch.device,
        precision: str,
        compiled: bool = False,
    ) -> None:
        self.name, self._device = name, device
        self._dtype: torch.dtype = getattr(torch, DTYPES[precision])
        graph = _graph(weights, cascade, name)
        inputs, outputs = graph.input_shapes(), graph.output_shapes()
        fold_norms(graph)
        for module in graph.modules():
            if isinstance(module, nn.Conv2d):  # ahead, or autocast would do so at every frame
                module.to(self._dtype)
        try:
            graph = graph.requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        except RuntimeError as error:
            raise EngineError(f"torch cannot bring the {name} graph to {device}: {error}") from error
        self.graph = torch.compile(graph, dynamic=False) if compiled else graph
        self.inputs: Mapping[str, TensorSpec] = {
            key: TensorSpec(DTYPES[precision], shape) for key, shape in inputs.items()
        }
        self.outputs: Mapping[str, TensorSpec] = {
            key: TensorSpec("float32" if CONTRACT[key].stays_float32 else DTYPES[precision], shape)
            for key, shape in outputs.items()
        }

    @torch.no_grad()
    def run(self, feeds: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Enqueue the graph on the current stream: outputs by name, for inputs by name.

        Raises:
            EngineError: The graph cannot be run on these inputs.
        """
        is_narrow = self._dtype != torch.float32
        try:
            given = (feeds[key].contiguous(memory_format=torch.channels_last) for key in self.inputs)
            with (
                torch.autocast(self._device.type, self._dtype, enabled=is_narrow, cache_enabled=False),
                _without_tf32() if not is_narrow else nullcontext(),
            ):
                values = self.graph(*given)
        except (KeyError, RuntimeError, TypeError) as error:
            shapes = {key: tuple(tensor.shape) for key, tensor in feeds.items()}
            raise EngineError(f"torch cannot run the {self.name} graph on {shapes}: {error}") from error
        return {
            key: _as_promised(key, value, getattr(torch, spec.dtype))
            for (key, spec), value in zip(self.outputs.items(), values, strict=True)
        }


def _without_tf32() -> AbstractContextManager[object]:
    """Have cuDNN compute float32 convolutions in float32, which torch leaves to tensor cores of fewer digits."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=True, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)


def _graph(weights: bytes, cascade: Mapping[str, Any], name: str) -> FrontGraph | RefineGraph:
    try:
        module = Cascade(CascadeConfig(**cascade))
    except (DataError, FieldError) as error:
        raise EngineError(f"torch cannot make the bundle's network ({error}); engine onnxruntime runs it") from error
    except (TypeError, ValueError) as error:
        raise EngineError(f"torch cannot load the {name} graph ({error}); export the bundle again") from error
    try:
        module.load_state_dict(load(weights))
    except (RuntimeError, SafetensorError) as error:
        raise EngineError(f"torch cannot load the {name} graph ({error}); export the bundle again") from error
    return GRAPHS[name](module.eval())


def _as_promised(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Of the dtype and layout that an engine hands on."""
    value = value.to(dtype)
    if name == "low" and value.is_contiguous(memory_format=torch.channels_last):
        return value
    return value.contiguous()
