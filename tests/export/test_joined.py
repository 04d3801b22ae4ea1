"""One front graph of a frozen network and of its branches: it gives what both give apart, and runs everywhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from errseg_rt import Runtime
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.errors import DataError, EngineError
from errseg_rt.export.bundle import export_bundle
from errseg_rt.export.engines.builds import BuildOptions, build_engine
from errseg_rt.export.engines.parity import compare
from errseg_rt.export.graphs import export_graphs
from errseg_rt.export.reference import torch_way
from errseg_rt.options import Options
from errseg_rt.pipeline.open import open_way
from errseg_rt.scenes import StreetScene
from errseg_rt.training.checkpoint import load_cascade
from errseg_rt.training.frozen import NETWORK
from tests.joined import SPEC, cascade_of, checkpoint_of
from tests.user_network import TAPS, PlainUNet, UserNetwork, lively, write

ONE_SIZE = InputSpec(size=(64, 96))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("joined")


@pytest.fixture(scope="module")
def path(folder):
    return write(lively(UserNetwork()), folder / "user.onnx")


@pytest.fixture(scope="module")
def unet(folder):
    return write(lively(PlainUNet()), folder / "unet.onnx", ONE_SIZE.size, fixed=True)


CASES = {
    "stride_4": ("path", SPEC, 4, "low"),
    "stride_2_of_the_image": ("path", SPEC, 2, "image"),
    "one_size_stride_1": ("unet", ONE_SIZE, 1, "low"),
    "one_size_stride_4": ("unet", ONE_SIZE, 4, "image"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_gives_what_the_parts_give_apart(request, case):
    name, spec, grid_stride, features = case
    cascade = cascade_of(request.getfixturevalue(name), spec, grid_stride, features)
    front = OnnxRuntimeEngine(export_graphs(cascade, spec, ("front",))["front"], "front")
    for size in [spec.size] if spec.size else [(49, 81), (97, 33)]:
        image = np.random.default_rng(1).standard_normal((1, 3, *size), np.float32)
        with torch.no_grad():
            apart = cascade.front(torch.from_numpy(image))
        joined = front.run({"image": image})
        assert list(joined) == list(apart._fields)
        assert joined["logits"].shape[2:] == tuple(-(-side // grid_stride) for side in size)
        for output, wanted in zip(joined.values(), apart, strict=True):
            np.testing.assert_allclose(output, wanted.numpy(), rtol=1e-3, atol=2e-4)


def test_a_localization_head_reads_a_frozen_networks_taps(path):
    cascade = cascade_of(path, SPEC, 4, names=TAPS, things=(1, 3))
    front = OnnxRuntimeEngine(export_graphs(cascade, SPEC, ("front",))["front"], "front")
    image = np.random.default_rng(1).standard_normal((1, 3, 49, 81), np.float32)
    with torch.no_grad():
        wanted = cascade.localization(cascade.taps(torch.from_numpy(image))).numpy()
    found = front.run({"image": image})["boxes"]
    assert found.shape == (1, 8, 13, 21)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


def test_finer_logits_come_to_the_grid_as_means_of_probabilities(unet):
    cascade = cascade_of(unet, ONE_SIZE, 4)
    image = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 3, *ONE_SIZE.size), np.float32))
    full = cascade_of(unet, ONE_SIZE, 1).taps(image).logits.softmax(dim=1)
    means = full.reshape(1, 2, 16, 4, 24, 4).mean(dim=(3, 5))
    torch.testing.assert_close(cascade.taps(image).logits.softmax(dim=1), means, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def cascade(path):
    return cascade_of(path, SPEC, 4, names=TAPS)


@pytest.fixture(scope="module")
def checkpoint(cascade, folder):
    return checkpoint_of(cascade, folder)


@pytest.fixture(scope="module")
def bundle(checkpoint, folder):
    return export_bundle(checkpoint, folder / "bundle", "user's")


@pytest.fixture(scope="module")
def frames():
    scene = StreetScene(0, 97, 131)
    return [scene.frame(index).frame for index in (0, 9)]


def test_the_bundle_runs_as_the_cascade_does(bundle, checkpoint, frames):
    parity = compare(torch_way(bundle, load_cascade(checkpoint)[0]), open_way(bundle, Options()), frames)
    assert parity.agreement >= 0.999
    assert parity.branches["error"].largest < 1e-2


def test_sparse_refinement_is_the_dense_one(bundle, frames):
    results = []
    for detail in ("sparse", "dense"):
        with Runtime(bundle.folder, detail=detail, threads=1) as runtime:
            results.append(runtime.segment(frames[0], threshold=0.3))
    assert results[0].refined > 0
    assert (results[0].labels == results[1].labels).mean() > 0.999


def test_weights_are_those_of_the_branches_alone(bundle):
    from safetensors.numpy import load

    assert {name.partition(".")[0] for name in load(bundle.read("weights.safetensors"))} == {"error", "detail"}


def test_names_of_the_network_are_kept_apart_from_those_of_the_branches(bundle):
    graph = onnx.load_model_from_string(bundle.read("graphs/front.onnx")).graph
    makers = {name.partition("/")[0] for node in graph.node for name in node.output}
    assert makers <= {"network", "taps", "branches", "logits", "error_logit", "low", "coarse", "gate"}
    assert [value.name for value in graph.input] == ["image"]


def test_the_frozen_file_is_told(bundle, cascade, cli):
    told = bundle.manifest.cascade["network"]
    assert (told["file"], told["sha256"]) == ("user.onnx", cascade.semantic.note.sha256)
    shown = cli("inspect", bundle.folder).out
    for fact in ("user.onnx", cascade.semantic.note.sha256):
        assert fact in bundle.read("MODEL_CARD.md").decode()
        assert fact in shown


def test_the_torch_engine_says_that_it_cannot(bundle):
    with pytest.raises(EngineError, match="its network came from a file") as told:
        Runtime(bundle.folder, engine="torch")
    assert "onnxruntime or tensorrt" in str(told.value)


def test_it_is_quantised(bundle, frames):
    build_engine(Bundle.open(bundle.folder), BuildOptions("onnxruntime", "int8"))
    with Runtime(bundle.folder, threads=1) as fp32, Runtime(bundle.folder, precision="int8", threads=1) as int8:
        a, b = fp32.segment(frames[0]).labels, int8.segment(frames[0]).labels
        assert (a == b).mean() > 0.8  # of random weights


def test_a_network_that_is_missing_beside_the_checkpoint(checkpoint, tmp_path):
    moved = tmp_path / checkpoint.name
    moved.write_bytes(checkpoint.read_bytes())
    with pytest.raises(DataError, match=rf"{NETWORK}: the frozen network \(user\.onnx\) cannot be read"):
        export_bundle(moved, tmp_path / "bundle", "x")


def test_an_older_opset_is_brought_to_that_of_the_branches(cascade, bundle):
    model = onnx.load_model_from_string(cascade.semantic.graph)
    assert next(each.version for each in model.opset_import if not each.domain) <= 18
    joined = onnx.load_model_from_string(bundle.read("graphs/front.onnx"))
    assert {each.version for each in joined.opset_import if not each.domain} == {18}
