"""Networks run on made-up inputs, to see what no file says: shapes, strides, whether frames meddle with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from errseg_rt.errors import DataError, EngineError
from errseg_rt.system.lines import one_line
from errseg_rt.system.shortage import remedy

_SILENT = 4


class Probe:
    """A network in ONNX Runtime, which gives any of its tensors.

    Args:
        model: The network.
        outputs: Names of the tensors to give.
        where: What it is called in messages.

    Raises:
        DataError: ONNX Runtime does not take the graph.
    """

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str], where: str) -> None:
        self._where, self._outputs = where, list(outputs)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _SILENT
        options.enable_mem_pattern = False
        try:
            self._session = onnxruntime.InferenceSession(
                with_outputs(model, outputs).SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # which would print
            )
        except Exception as error:
            if advice := remedy(error):
                raise EngineError(f"{where}: onnxruntime cannot load it ({one_line(error)}); {advice}") from error
            raise DataError(f"{where}: onnxruntime cannot load it ({_reason(error)}); export it again") from error

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The tensors by name.

        Raises:
            DataError: The network does not run on this.
        """
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds)), strict=True))
        except Exception as error:
            if advice := remedy(error):
                raise EngineError(f"{self._where}: onnxruntime cannot run it ({one_line(error)}); {advice}") from error
            shapes = ", ".join("x".join(map(str, array.shape)) for array in feeds.values())
            raise DataError(f"{self._where}: does not run on an input of {shapes} ({_reason(error)})") from error


def with_outputs(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """A copy of a model that gives these tensors, of whatever type and shape they are."""
    copy: onnx.ModelProto = onnx.ModelProto.FromString(model.SerializeToString())
    known = {value.name: value for value in copy.graph.output}
    values = [known.get(name) or onnx.ValueInfoProto(name=name) for name in outputs]
    values = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in values]
    del copy.graph.output[:]
    copy.graph.output.extend(values)
    return copy


def noise(shape: Sequence[int], dtype: npt.DTypeLike, seed: int) -> npt.NDArray[Any]:
    """A picture of nothing: blocks and grain, about as far from 0 as normalised frames are; 0..255 in whole numbers."""
    random = np.random.default_rng(seed)
    coarse = random.normal(size=[min(side, 7) for side in shape])
    values = 0.3 * random.standard_normal(shape, np.float32)
    values += coarse[np.ix_(*(np.arange(side) * min(side, 7) // side for side in shape))]
    if np.dtype(dtype).kind in "iu":
        return (127 + 50 * values).clip(0, 127 if np.dtype(dtype) == np.int8 else 255).astype(dtype)
    return values.astype(dtype)


def _reason(error: Exception) -> str:
    """ONNX Runtime's words, in a line of bearable length, the node's name in it."""
    text = one_line(error)
    return text if len(text) < 300 else f"{text[:300]}..."
