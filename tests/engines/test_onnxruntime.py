"""ONNX Runtime's execution providers: what a session is given, and what an engine says that it runs on."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnxruntime
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.errors import EngineError
from errseg_rt.runtime import Runtime

CPU, AZURE = "CPUExecutionProvider", "AzureExecutionProvider"


@pytest.fixture
def graph() -> bytes:
    return Bundle.open("camvid").read("graphs/front.onnx")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The providers of each session that is made."""
    session, given = onnxruntime.InferenceSession, []

    def made(graph: bytes, options: Any, providers: Any, **how: Any) -> Any:
        given.append(providers)
        return session(graph, options, providers=providers, **how)

    monkeypatch.setattr(onnxruntime, "InferenceSession", made)
    return given


@pytest.mark.parametrize(
    ("providers", "wanted"),
    [(None, [CPU]), ([(CPU, {"use_arena": "0"})], [(CPU, {"use_arena": "0"})]), ((CPU,), [CPU])],
    ids=["default", "with_options", "tuple"],
)
def test_providers_are_handed_on(graph: bytes, given: list[Any], providers, wanted) -> None:
    engine = OnnxRuntimeEngine(graph, "front", threads=1, providers=providers)
    assert given == [wanted]
    assert engine.providers == (CPU,)
    image = np.random.default_rng(0).normal(size=(1, 3, 17, 17)).astype(np.float32)
    assert np.isfinite(engine.run({"image": image})["logits"]).all()


def test_nothing_is_kept_for_a_size(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory pattern is, 45 KB for each of the embedded bundle's, for ever; and DirectML wants none."""
    session, given = onnxruntime.InferenceSession, []

    def made(graph: bytes, options: Any, **how: Any) -> Any:
        given.append(options.enable_mem_pattern)
        return session(graph, options, **how)

    monkeypatch.setattr(onnxruntime, "InferenceSession", made)
    OnnxRuntimeEngine(graph, "front", threads=1)
    assert given == [False]


def test_a_runtime_hands_them_to_both_graphs(given: list[Any]) -> None:
    with Runtime(threads=1, providers=[(CPU, {"use_arena": "0"})]) as runtime:
        assert given == [[(CPU, {"use_arena": "0"})]] * 2
        assert (runtime.providers, runtime.device) == ((CPU,), "cpu")
    assert runtime.providers == (CPU,), "a report is written when it is closed"


def test_what_a_session_runs_on_is_said(graph: bytes) -> None:
    if AZURE not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {AZURE}, the one that needs no hardware")
    # The CPU's stands in for what another does not take.
    assert OnnxRuntimeEngine(graph, "front", threads=1, providers=[AZURE]).providers == (AZURE, CPU)
    with Runtime(threads=1, providers=[AZURE]) as runtime:
        assert runtime.providers == (AZURE, CPU)


def test_one_that_is_not_there(graph: bytes) -> None:
    with pytest.raises(EngineError, match=f"has no NoSuchProvider here .it has .*{CPU}.*choose among these"):
        OnnxRuntimeEngine(graph, "front", providers=[CPU, "NoSuchProvider"])


def test_other_engines_have_none() -> None:
    pytest.importorskip("torch")
    with Runtime(engine="torch", threads=1) as runtime:
        assert runtime.providers == ()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : parsing failed.", "export the bundle again"),
        ("[ONNXRuntimeError] : 10 : INVALID_GRAPH : No Op registered for Nope", "export the bundle again"),
        ("[ONNXRuntimeError] : 1 : FAIL : Unsupported model IR version: 99", "upgrade onnxruntime, or export"),
        ("my.own:Relu(-1) is not a registered function/op", "upgrade onnxruntime, or export"),
        ("pthread_create failed, error code: 11 error msg: Resource temporarily", "no thread is to be had: raise the"),
        ("std::bad_alloc", "out of memory: free memory"),
        ("Failed to allocate memory for requested buffer of size 1", "out of memory: free memory"),
        ("the provider has lost its device", "errseg-rt doctor says what works here"),
    ],
)
def test_what_helps_where_a_graph_cannot_be_loaded(graph: bytes, monkeypatch, said: str, advice: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(EngineError, match="cannot load the front graph") as raised:
        OnnxRuntimeEngine(graph, "front")
    assert f"({said}); {advice}" in str(raised.value)


@pytest.mark.parametrize("damaged", [b"garbage", b"\x08\x0a"])
def test_a_file_that_is_at_fault(damaged: bytes) -> None:
    with pytest.raises(EngineError, match=r"; export the bundle again$"):
        OnnxRuntimeEngine(damaged, "front")


@pytest.mark.parametrize("why", ["can't start new thread", "can't create new thread at interpreter shutdown"])
def test_threads_that_are_not_to_be_had(graph: bytes, monkeypatch, why: str) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError(why)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    if "shutdown" in why:  # a thread that outlives the main thread may open an engine
        assert OnnxRuntimeEngine(graph, "front", threads=3).outputs
    else:
        with pytest.raises(EngineError, match=rf"cannot have 3 threads, only 1 .{why}.: raise the limit on threads"):
            OnnxRuntimeEngine(graph, "front", threads=3)
    assert OnnxRuntimeEngine(graph, "front", threads=1).outputs
