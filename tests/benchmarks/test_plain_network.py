"""The plain network that the cascade is held against: the semantic branch, no more, and its labels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from benchmarks.plain_network import PlainNetwork, image_of, semantic_graph
from errseg_rt import Runtime
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.scenes import StreetScene

ROUNDING = 1e-4  # of logits: float32, whose sums may run in another order


@pytest.fixture(scope="module")
def runtime():
    with Runtime(threads=1) as opened:
        yield opened


def test_its_graph_gives_the_front_graphs_logits_and_computes_nothing_else(runtime):
    front, cut = runtime.bundle.read("graphs/front.onnx"), semantic_graph(runtime)
    image = image_of(StreetScene(0, 97, 129).frame(0).frame, runtime.manifest.input, threads=1)
    wanted, found = (OnnxRuntimeEngine(graph, "g", threads=1).run({"image": image}) for graph in (front, cut))
    assert list(found) == ["logits"]
    np.testing.assert_allclose(found["logits"], wanted["logits"], rtol=0, atol=ROUNDING)
    graph = onnx.load_from_string(cut).graph
    read = {name for node in graph.node for name in node.input} | {"logits"}
    assert all(read & set(node.output) for node in graph.node)
    assert {tensor.name for tensor in graph.initializer} <= read
    assert len(graph.node) < len(onnx.load_from_string(front).graph.node)


@pytest.mark.parametrize("size", [(240, 320), (360, 480)], ids=str)
def test_its_labels_are_the_semantic_branchs(runtime, size):
    frame = StreetScene(0, *size).frame(0).frame
    wanted = runtime.segment(frame, semantic=True).semantic_labels
    plain = PlainNetwork(runtime, threads=1)
    assert set(plain.ways) == {"torch", "numpy_cv2"}
    for way in plain.ways:
        found = plain.labels(frame, way)
        assert found.shape == size
        assert (found == wanted).mean() > 0.97, way  # at boundaries they round otherwise
