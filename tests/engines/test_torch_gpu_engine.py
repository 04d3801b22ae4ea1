"""The torch engine on tensors: on this machine those of the CPU, which every GPU's must resemble."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from errseg_rt.bundle.bundle import Bundle  # noqa: E402
from errseg_rt.engines.engine import DTYPES, Engine  # noqa: E402
from errseg_rt.engines.open import open_engine  # noqa: E402
from errseg_rt.errors import EngineError  # noqa: E402
from errseg_rt.networks.fold import fold_norms  # noqa: E402
from errseg_rt.networks.norms import FrozenNorm  # noqa: E402
from errseg_rt.networks.registry import SEMANTIC_NETWORKS  # noqa: E402
from errseg_rt.options import PRECISIONS as OF_ENGINES  # noqa: E402
from errseg_rt.options import Options  # noqa: E402
from tests.opening import engine_on_cpu  # noqa: E402
from tests.places.eager_gpu import EagerGpu  # noqa: E402

PRECISIONS = OF_ENGINES["torch"]["gpu"]
# Of logits of some tens: rounding of float32 sums, and of what half precision stores between some sixty layers.
TOLERANCES = {"fp32": 2e-3, "fp16": 0.3, "bf16": 2.0}


def image(precision: str) -> torch.Tensor:
    drawn = np.random.default_rng(0).normal(size=(1, 3, 65, 97)).astype(np.float32)
    return torch.from_numpy(drawn).to(getattr(torch, DTYPES[precision]))


def opened(graph: str, precision: str) -> Engine:
    options = Options("torch", device="cuda", precision=precision)
    return open_engine(Bundle.open("camvid"), graph, options, EagerGpu())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_agrees_with_the_reference_in_every_precision(precision: str) -> None:
    bundle = Bundle.open("camvid")
    engine, given = opened("front", precision), image(precision)
    outputs = engine.run({"image": given})
    wanted = engine_on_cpu("torch", bundle, "front").run({"image": given.float().numpy()})
    assert list(outputs) == list(engine.outputs) == list(wanted)
    for name in ("logits", "error_logit"):
        np.testing.assert_allclose(outputs[name].float().numpy(), wanted[name], rtol=0, atol=TOLERANCES[precision])
    refine = opened("refine", precision)
    feeds = {name: outputs[name] for name in refine.inputs}
    detail = refine.run(feeds)["detail_logits"].float().numpy()
    same = engine_on_cpu("torch", bundle, "refine").run({name: x.float().numpy() for name, x in feeds.items()})
    np.testing.assert_allclose(detail, same["detail_logits"], rtol=0, atol=TOLERANCES[precision])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_outputs_are_what_their_specs_and_the_protocol_say(precision: str) -> None:
    engine = opened("front", precision)
    for name, value in engine.run({"image": image(precision)}).items():
        spec = engine.outputs[name]
        assert str(value.dtype) == f"torch.{spec.dtype}"
        assert spec.dtype == ("float32" if name == "error_logit" else DTYPES[precision])
        assert all(wanted in (None, given) for given, wanted in zip(value.shape, spec.shape, strict=True))
        layout = torch.channels_last if name == "low" else torch.contiguous_format
        assert value.is_contiguous(memory_format=layout)
        assert not value.requires_grad


# One of each family: the others are built of the same layers.
@pytest.mark.parametrize(
    "name", ["squeezenas", "efficientvit-b0", "deeplabv3plus-resnet50", "pspnet-xception65", "dpc-xception71"]
)
def test_folded_norms_change_rounding_alone(name: str) -> None:
    torch.manual_seed(0)
    network = SEMANTIC_NETWORKS[name](5).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.1)
    given = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        wanted = network.double()(given.double())
        fold_norms(network)
        found = network(given.double())
    # A deep stem's last norm is a sibling of the sequence that ends in its convolution.
    assert len([m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]) <= 1
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6 * float(theirs.abs().max()))


def test_frozen_norms_fold_and_group_norms_stay() -> None:
    frozen = FrozenNorm(4)
    frozen.mean.normal_()
    frozen.var.uniform_(0.5, 2)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), frozen, torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 1), torch.nn.GroupNorm(2, 4)
    ).double()
    given = torch.randn(1, 3, 7, 7).double()
    wanted = network(given)
    fold_norms(network)
    assert [type(module).__name__ for module in network] == ["Conv2d", "Identity", "ReLU", "Conv2d", "GroupNorm"]
    torch.testing.assert_close(network(given), wanted)


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(EngineError, match="torch cannot run the front graph on"):
        opened("front", "fp32").run({"image": torch.zeros(1, 4, 33, 33)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "onnxruntime"}, "device must fit the engine: onnxruntime runs on a CPU, got 'cuda'"),
        (
            {"engine": "torch", "precision": "int4"},
            "precision must be fp32, fp16 or bf16 with torch on a GPU, got 'int4'",
        ),
        (
            {"engine": "torch", "precision": "int8"},
            "precision must be fp32, fp16 or bf16 with torch on a GPU, got 'int8'",
        ),
    ],
)
def test_what_there_is_not(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Options(device="cuda", **options)


@pytest.mark.parametrize(("precision", "may_round"), [("fp32", False), ("fp16", True)])
def test_float32_is_not_rounded_on_the_way(precision, may_round) -> None:
    """cuDNN computes float32 convolutions with 10 bits, TF32, unless it is told not to."""
    engine, seen = opened("front", precision), []
    graph, before = engine.graph, torch.backends.cudnn.allow_tf32
    engine.graph = lambda *given: (seen.append(torch.backends.cudnn.allow_tf32), graph(*given))[1]
    engine.run({"image": image(precision)})
    assert seen == [may_round and before]
    assert torch.backends.cudnn.allow_tf32 == before
