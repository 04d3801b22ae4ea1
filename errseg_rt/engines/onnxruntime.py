"""ONNX Runtime: the default engine, which needs neither torch nor a GPU."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from threading import Event, Thread
from typing import Any

import numpy.typing as npt
import onnxruntime

from errseg_rt.engines.arena import give_back_with, share
from errseg_rt.engines.engine import TensorSpec
from errseg_rt.engines.providers import CPU, Providers, check_kept, check_there, load_libraries, names_of
from errseg_rt.errors import EngineError
from errseg_rt.system.shortage import ALLOW_THREADS, remedy

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
}
_LOG_ERRORS_ONLY = 3
# Idle worker threads spin, by default long after a run too: they would hold the cores that the kernels after it want,
# and on a machine that others use, spinning takes a core from who has work. This bridges the gaps between operators.
_SPINNING = {"session.intra_op.spin_duration_us": "100", "session.force_spinning_stop": "1"}


class OnnxRuntimeEngine:
    """One graph in ONNX Runtime.

    Args:
        graph: The ONNX model's bytes.
        name: What the graph is called in messages.
        threads: CPU threads of one run; None: all cores.
        providers: ONNX Runtime's execution providers, in order of preference; None: the CPU.

    Attributes:
        providers: Those that the graph runs on, the CPU's among them for what the others do not take.

    Raises:
        EngineError: A provider is not there, or the graph cannot be loaded.
    """

    def __init__(
        self,
        graph: bytes,
        name: str,
        *,
        threads: int | None = None,
        providers: Providers | None = None,
    ) -> None:
        self.name = name
        wanted = [CPU] if providers is None else list(providers)
        names = names_of(wanted)
        check_there(names)
        load_libraries(names)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = _LOG_ERRORS_ONLY
        # A pattern is kept for every size of frames there ever was, and takes half as much memory again at the peak;
        # frames of 1024x2048 are 3 to 4 % slower without, those of 360x480 1 %.
        options.enable_mem_pattern = False
        for key, value in _SPINNING.items():
            options.add_session_config_entry(key, value)
        if names == [CPU]:
            share(options)
        _check_threads(threads or 1)
        try:
            # Its fallback would print, and run the graph on the CPU.
            self._session = onnxruntime.InferenceSession(graph, options, providers=wanted, enable_fallback=0)
        except Exception as error:
            where, advice = "", _advice(error)
            if names != [CPU]:
                where, advice = f" on {', '.join(names)}", "leave providers out, or change their options"
            reason = " ".join(str(error).split())
            raise EngineError(f"onnxruntime cannot load the {name} graph{where} ({reason}); {advice}") from error
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        check_kept(name, names, self.providers)
        give_back_with(self)

    @functools.cached_property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name."""
        return {node.name: _spec(node) for node in self._session.get_inputs()}

    @functools.cached_property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        return {node.name: _spec(node) for node in self._session.get_outputs()}

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, npt.NDArray[Any]]:
        """Outputs by name, for inputs by name.

        Raises:
            EngineError: The graph cannot be run on these inputs.
        """
        try:
            values = self._session.run(list(self.outputs), dict(feeds))
        except Exception as error:
            shapes = {name: array.shape for name, array in feeds.items()}
            raise EngineError(f"onnxruntime cannot run the {self.name} graph on {shapes}: {error}") from error
        return dict(zip(self.outputs, values, strict=True))


def _check_threads(count: int) -> None:
    """Raise EngineError where there are no such threads: onnxruntime would find out halfway, and may wait for ever."""
    enough, others = Event(), []
    try:
        for _ in range(count - 1):
            other = Thread(target=enough.wait, daemon=True)
            other.start()
            others.append(other)
    except RuntimeError as error:
        if "shutdown" in str(error):  # of the interpreter, which binds Python's threads alone
            return
        raise EngineError(
            f"onnxruntime cannot have {count} threads, only {1 + len(others)} ({error}): {ALLOW_THREADS}"
        ) from error
    finally:
        enough.set()
        for other in others:
            other.join()


def _advice(error: Exception) -> str:
    """What helps where a graph cannot be loaded, by onnxruntime's own words."""
    text = str(error)
    if advice := remedy(error):
        return advice
    if any(word in text for word in ("INVALID_PROTOBUF", "INVALID_GRAPH", "No graph was found")):
        return "export the bundle again"
    if any(word in text for word in ("opset", "IR version", "NOT_IMPLEMENTED", "not a registered")):
        return "upgrade onnxruntime, or export the bundle again"
    return "errseg-rt doctor says what works here"


def _spec(node: Any) -> TensorSpec:
    return TensorSpec(_DTYPES[node.type], tuple(size if isinstance(size, int) else None for size in node.shape))
