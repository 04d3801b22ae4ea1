"""Engines: what they say of their graphs, and every way in which one cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.engine import Engine, TensorSpec
from errseg_rt.errors import EngineError
from errseg_rt.options import Options
from tests.opening import engine_on_cpu

FLOAT = "float32"
ENGINES = ("onnxruntime", "torch")  # those that run anywhere; TensorRT's tests lie in tests/tensorrt


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open("camvid")


@pytest.fixture(scope="module", params=ENGINES)
def engines(request: pytest.FixtureRequest, bundle: Bundle) -> dict[str, Engine]:
    if request.param == "torch":
        pytest.importorskip("torch")
    return {graph: engine_on_cpu(request.param, bundle, graph) for graph in ("front", "refine")}


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng([*shape]).normal(size=shape).astype(np.float32)


def test_inputs_and_outputs_are_named_in_order(engines: dict[str, Engine]) -> None:
    front, refine = engines["front"], engines["refine"]
    assert list(front.inputs) == ["image"]
    assert list(front.outputs) == ["logits", "error_logit", "low", "coarse", "gate"]
    assert list(refine.inputs) == ["logits", "low", "coarse", "gate"]
    assert list(refine.outputs) == ["detail_logits"]


def test_batch_height_and_width_are_dynamic(engines: dict[str, Engine], bundle: Bundle) -> None:
    classes = len(bundle.manifest.classes)
    assert engines["front"].inputs["image"] == TensorSpec(FLOAT, (None, 3, None, None))
    assert engines["front"].outputs["logits"] == TensorSpec(FLOAT, (None, classes, None, None))
    assert engines["front"].outputs["error_logit"] == TensorSpec(FLOAT, (None, 1, None, None))
    assert engines["refine"].outputs["detail_logits"] == TensorSpec(FLOAT, (None, classes, None, None))


@pytest.mark.parametrize("size", [(1, 17, 33), (2, 65, 49)], ids=["one", "batch_of_two"])
def test_outputs_are_what_their_specs_say(engines: dict[str, Engine], size) -> None:
    batch, height, width = size
    front = engines["front"].run({"image": image(batch, 3, height, width)})
    refined = engines["refine"].run({name: front[name] for name in engines["refine"].inputs})
    for engine, outputs in ((engines["front"], front), (engines["refine"], refined)):
        assert list(outputs) == list(engine.outputs)
        for name, spec in engine.outputs.items():
            assert outputs[name].dtype == spec.dtype
            assert len(outputs[name]) == batch
            pairs = zip(outputs[name].shape, spec.shape, strict=True)
            assert all(wanted is None or given == wanted for given, wanted in pairs)
    grid = (-(-height // 4), -(-width // 4))
    assert front["logits"].shape[2:] == front["error_logit"].shape[2:] == refined["detail_logits"].shape[2:] == grid


def test_a_batch_is_its_frames_one_by_one(engines: dict[str, Engine]) -> None:
    frames = image(2, 3, 49, 65)
    together = engines["front"].run({"image": frames})
    for index in range(2):
        alone = engines["front"].run({"image": frames[index : index + 1]})
        for name in ("logits", "error_logit"):
            # Sums of the same numbers in another order.
            np.testing.assert_allclose(together[name][index], alone[name][0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "feeds",
    [{}, {"image": image(1, 4, 33, 33)}, {"image": image(33, 33)}, {"picture": image(1, 3, 33, 33)}],
    ids=["nothing", "channels", "rank", "name"],
)
def test_inputs_that_do_not_fit(engines: dict[str, Engine], feeds) -> None:
    with pytest.raises(EngineError, match="cannot run the front graph on"):
        engines["front"].run(feeds)


def test_an_unknown_engine() -> None:
    with pytest.raises(ValueError, match="engine must be onnxruntime, tensorrt or torch, got 'tensorflow'"):
        Options("tensorflow")


def test_a_provider_that_is_not_there(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"has no NoSuchProvider here \(it has .*CPUExecutionProvider"):
        engine_on_cpu("onnxruntime", bundle, "front", providers=["NoSuchProvider", "CPUExecutionProvider"])
    with pytest.raises(EngineError, match="has no NoSuchProvider here"):
        engine_on_cpu("onnxruntime", bundle, "front", providers=[("NoSuchProvider", {"device_id": 0})])


def test_providers_are_for_onnxruntime_alone() -> None:
    with pytest.raises(ValueError, match="providers are those of the engine onnxruntime, not of torch"):
        Options("torch", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("engine", "extra"), [("onnxruntime", "--force-reinstall onnxruntime"), ("torch", r"'errseg-rt\[torch\]'")]
)
def test_an_engine_that_is_not_installed(bundle: Bundle, monkeypatch, engine, extra) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    monkeypatch.delitem(sys.modules, f"errseg_rt.engines.{engine}", raising=False)
    with pytest.raises(EngineError, match=f"engine {engine} is not installed .*pip install {extra}"):
        engine_on_cpu(engine, bundle, "front")


@pytest.mark.parametrize("engine", ENGINES)
def test_files_that_are_no_graph(tiny_bundle: Path, engine) -> None:
    if engine == "torch":
        pytest.importorskip("torch")
    with pytest.raises(EngineError, match=f"{engine} cannot load the front graph"):
        engine_on_cpu(engine, Bundle.open(tiny_bundle), "front")
