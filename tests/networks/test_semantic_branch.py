"""Any torch network as a semantic branch: its taps are its own maps, and it exports and compiles as it runs."""

from __future__ import annotations

import copy
import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.bundle.contract import on_stride
from errseg_rt.errors import DataError
from errseg_rt.networks import Cascade, CascadeConfig, InputSpec, SemanticBranch
from errseg_rt.networks.feature_maps import feature_maps
from errseg_rt.networks.graphs import GRAPHS

CLASSES = 5
TAPS = {"low": "stage1", "mid": "stage2", "deep": "stage3", "high": "context", "logits": "head"}
NAMES = ("low", "mid", "deep", "high")
SIZES = (97, 129), (64, 160), (131, 77)


def block(inputs, outputs, stride=1):
    layers = {
        "conv": nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        "bn": nn.BatchNorm2d(outputs),
        "relu": nn.ReLU(inplace=True),
    }
    return nn.Sequential(OrderedDict(layers))


class Network(nn.Module):
    """Strides 2, 4, 8, 16, a context module, and logits enlarged to the image, within whatever `wrap` makes of them."""

    def __init__(self, wrap=lambda logits: logits, classes=CLASSES, strides=(2, 2, 2, 2)):
        super().__init__()
        widths = (3, 6, 7, 8, 9)
        blocks = [block(*each) for each in zip(widths, widths[1:], strides, strict=False)]
        self.stem, self.stage1, self.stage2, self.stage3 = blocks
        self.context, self.head = block(9, 10), nn.Conv2d(10, classes, 1)
        self.wrap = wrap

    def forward(self, image):
        x = self.head(self.context(self.stage3(self.stage2(self.stage1(self.stem(image))))))
        return self.wrap(F.interpolate(x, size=image.shape[2:], mode="bilinear"))


@pytest.fixture(scope="module")
def make(random_norms):
    def make(*arguments, **options):
        torch.manual_seed(0)
        return random_norms(Network(*arguments, **options))

    return make


def noise(size, batch=1):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def chain(network, image):
    """What its modules give, by tap."""
    low = network.stage1(network.stem(image))
    mid = network.stage2(low)
    deep = network.stage3(mid)
    high = network.context(deep)
    return {"low": low, "mid": mid, "deep": deep, "high": high, "logits": network.head(high)}


@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.no_grad()
def test_taps_are_what_the_modules_give(make, size):
    network, image = make(), noise(size, 2)
    branch = SemanticBranch.from_module(network, TAPS, CLASSES)
    wanted = chain(network, image)
    for name, tap in branch(image)._asdict().items():
        torch.testing.assert_close(tap, wanted[name], rtol=0, atol=0)
        assert name == "logits" or getattr(branch, f"{name}_channels") == tap.shape[1]
    assert (branch.classes, branch.align_corners, branch.network) == (CLASSES, False, network)


@torch.no_grad()
def test_logits_finer_than_the_grid_are_averaged(make):
    network, image = make(), noise((64, 96))
    branch = SemanticBranch.from_module(network, {**TAPS, "logits": "output"}, CLASSES)
    wanted = F.avg_pool2d(network(image), 4)
    torch.testing.assert_close(branch(image).logits, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.no_grad()
def test_where_a_stride_is_missing_the_nearest_map_is_resized(make, size, align_corners, caplog):
    network, image = make(strides=(2, 1, 2, 2)), noise(size)  # strides 2, 2, 4, 8
    taps = {"low": "stage2", "mid": "stage3", "deep": "stage3", "high": "context"}
    with caplog.at_level(logging.INFO, logger="errseg_rt"):
        branch = SemanticBranch.from_module(
            network, {**taps, "logits": "head"}, CLASSES, align_corners=align_corners, resize=False
        )
    assert "high: context (stride 8, 10 channels), resized to stride 16" in caplog.messages
    found, fine = branch(image), chain(network, image)
    assert found.mid.equal(fine["deep"])
    assert tuple(found.deep.shape[2:]) == tuple(found.high.shape[2:]) == on_stride(size, 16)
    for tap, of in (("deep", "deep"), ("high", "high")):
        ones = F.avg_pool2d(torch.ones_like(fine[of]), 3, 2, 1, divisor_override=1)
        by_corners = F.avg_pool2d(fine[of], 3, 2, 1, divisor_override=1) / ones
        padded = F.pad(fine[of], (0, fine[of].shape[3] % 2, 0, fine[of].shape[2] % 2))
        there = F.pad(torch.ones_like(fine[of]), (0, fine[of].shape[3] % 2, 0, fine[of].shape[2] % 2))
        by_edges = F.avg_pool2d(padded, 2, divisor_override=1) / F.avg_pool2d(there, 2, divisor_override=1)
        wanted = by_corners if align_corners else by_edges
        torch.testing.assert_close(getattr(found, tap), wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_coarser_maps_are_enlarged(make):
    network, image = make(strides=(4, 4, 2, 1)), noise((128, 96))  # strides 4, 16, 32, 32
    taps = {"low": "stem", "mid": "stem", "deep": "stage1", "high": "context", "logits": "head"}
    found = SemanticBranch.from_module(network, taps, CLASSES, InputSpec(multiple=32), resize=True)(image)
    wanted = F.interpolate(chain(network, image)["high"], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(found.high, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.mid, F.avg_pool2d(network.stem(image), 2), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_finer_grid_has_finer_taps(make):
    network, image = make(strides=(1, 2, 2, 2)), noise((64, 96))
    taps = {"low": "stage1", "mid": "stage2", "deep": "stage3", "high": "context", "logits": "head"}
    branch = SemanticBranch.from_module(network, taps, CLASSES, grid_stride=2)
    assert branch.grid_stride == 2
    assert [tuple(tap.shape[2:]) for tap in branch(image)[1:]] == [(32, 48), (16, 24), (8, 12), (8, 12)]


class Output(NamedTuple):
    logits: Tensor
    features: Tensor


@dataclass
class Record:
    logits: Tensor
    loss: Any = None


WRAPPED = {
    "plain": (lambda x: x, None),
    "dictionary": (lambda x: OrderedDict(out=x), None),
    "nested": (lambda x: {"main": [x]}, None),
    "tuple": (lambda x: (x, x.mean()), None),
    "named_tuple": (lambda x: Output(x, x[:, :3]), None),
    "dataclass": (lambda x: Record(x), None),
    "named_in_full": (lambda x: {"out": x, "aux": 2 * x}, "output[out]"),
    "module_of_one": (lambda x: {"out": x, "aux": 2 * x}, "head"),
}


@pytest.mark.parametrize(("wrap", "name"), WRAPPED.values(), ids=WRAPPED)
@torch.no_grad()
def test_logits_are_found_in_what_the_network_gives(make, wrap, name):
    network, image = make(wrap), noise((64, 96))
    taps = {tap: TAPS[tap] for tap in NAMES}
    branch = SemanticBranch.from_module(network, taps if name is None else {**taps, "logits": name}, CLASSES)
    logits = chain(network, image)["logits"]
    wanted = logits if name == "head" else F.avg_pool2d(F.interpolate(logits, (64, 96), mode="bilinear"), 4)
    torch.testing.assert_close(branch(image).logits, wanted, rtol=1e-4, atol=1e-5)


class Layouts(nn.Module):
    """Stages whose modules give channels last, tokens, and a list."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 7, 2, 2)
        self.third, self.head = nn.Conv2d(7, 8, 2, 2), nn.Conv2d(8, CLASSES, 1)
        self.last_channels, self.tokens, self.several = nn.LayerNorm(6), nn.LayerNorm(7), nn.Identity()

    def forward(self, image):
        x = self.last_channels(self.first(image).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = self.second(x)
        y = self.tokens(y.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(y.shape)
        return self.head(self.several([y, self.third(y)])[1])


@torch.no_grad()
def test_channels_last_tokens_and_lists_are_maps_too():
    torch.manual_seed(0)
    network, image = Layouts(), noise((64, 96))
    taps = {"low": "last_channels", "mid": "tokens", "deep": "several[1]", "high": "third"}
    found = SemanticBranch.from_module(network, taps, CLASSES)(image)
    x = network.last_channels(network.first(image).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    y = network.second(x)
    tokens = network.tokens(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found.low, x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.mid, tokens, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.deep, network.third(tokens), rtol=1e-5, atol=1e-5)


def test_maps_are_told_from_pooled_vectors_and_constants():
    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1)
            self.coarse, self.flat = nn.AdaptiveAvgPool2d(6), nn.Flatten()

        def forward(self, image):
            x = self.conv(image)
            return {"gate": self.flat(self.pool(x)), "coarse": self.coarse(x), "map": x, "empty": None}

    found = {str(each) for each in feature_maps(Pooling(), InputSpec())}
    assert found == {"conv (stride 2, 4 channels)", "output[map] (stride 2, 4 channels)"}


def test_the_network_stays_in_eval_mode(make):
    network = make().train()
    branch = SemanticBranch.from_module(network, TAPS, CLASSES)
    assert not network.training
    assert not network.stem.bn.training
    cascade = Cascade(CascadeConfig("module", CLASSES, 4, 4), branch)
    cascade.train()
    assert cascade.training
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda module: torch.compile(module, backend="eager")])
def test_wrappers_of_torch_are_taken_off(make, wrap):
    network = make()
    assert SemanticBranch.from_module(wrap(network), TAPS, CLASSES).network is network


class Fluctuating(Network):
    def forward(self, image):
        return F.dropout(super().forward(image), 0.5, training=True)


class Whole(Network):
    def forward(self, image):
        return super().forward(image) - image.mean()


def bare_norms():
    network = Network()
    network.stage2.bn = nn.BatchNorm2d(8, track_running_stats=False)
    return network


def two_classes(x):
    return {"a": x, "b": x}


FAULTS = {
    "unknown_tap": (Network, {"lwo": "stem"}, r"taps: there is no tap 'lwo'; did you mean low\?"),
    "unknown_module": (
        Network,
        {"mid": "stage9"},
        r"taps: mid: 'stage9' gives no map; there are stage2 \(stride 8, 8 channels\), ",
    ),
    "another_stride": (
        Network,
        {"low": "stem"},
        r"taps: low: stem \(stride 2, 6 channels\): wanted one of stride 4, or resize=True; there are stage1 \("
        r"stride 4, 7 channels\), stage1\.conv \(.*$",
    ),
    "nearest_stride": (
        lambda: Network(strides=(2, 2, 2, 1)),
        {"high": "stage1"},
        r"taps: high: stage1 \(stride 4, 7 channels\): wanted one of stride 8, the nearest to 16 that there is, or ",
    ),
    "not_named": (Network, {"high": None}, r"taps: high is not named; at stride 16 there are stage3 \(stride 16, "),
    "classes": (
        lambda: Network(classes=7),
        {},
        r"taps: logits: head \(stride 16, 7 channels\) for 5 classes; there are ",
    ),
    "output_classes": (
        lambda: Network(classes=7),
        {"logits": None},
        r"taps: logits: output \(stride 1, 7 channels\) for 5 classes; there are ",
    ),
    "which_output": (
        lambda: Network(two_classes),
        {"logits": None},
        r"which map holds the logits\? Name it as taps\['logits'\]; as output there are output\[a\] \(stride 1, 5 "
        r"channels\), output\[b\] \(stride 1, 5 channels\)$",
    ),
    "labels": (
        lambda: Network(lambda x: x.argmax(1)),
        {"logits": None},
        r"the network's output holds no map; which map holds the logits\? Name it as taps\['logits'\]; there are head ",
    ),
    "several_maps": (
        lambda: Network(two_classes),
        {"logits": "output"},
        r"taps: logits: 'output' gives several maps; there are output\[a\] ",
    ),
    "chance": (Fluctuating, {"logits": None}, "the network gives other logits each time for the same image; is there"),
    "batch": (Whole, {"logits": None}, "the network's logits of an image depend on the others in the batch$"),
    "batch_norm": (
        bare_norms,
        {},
        r"the network's logits of an image depend on the others in the batch, as norms without running statistics "
        r"\(stage2\.bn\) make it$",
    ),
    "sizes": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(9, 3)),
        {},
        r"the network does not run on an image of 1x3x160x224 \(RuntimeError: .*\); say by input=InputSpec\(multiple=",
    ),
    "no_module": (lambda: torch.relu, {}, "wanted a torch.nn.Module, got builtin_function_or_method$"),
    "script": (lambda: torch.jit.script(nn.Conv2d(3, 4, 3)), {}, "the network is a TorchScript module, whose inner"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("build", "change", "message"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_a_branch_is_one_line(build, change, message):
    torch.manual_seed(0)
    taps = {tap: name for tap, name in {**TAPS, **change}.items() if name is not None}
    with pytest.raises(DataError, match=f"^{message}") as caught:
        SemanticBranch.from_module(build(), taps, CLASSES)
    assert str(caught.value).isprintable()


@torch.no_grad()
def test_a_copy_and_threads_keep_their_own_maps(make):
    branch = SemanticBranch.from_module(make(), TAPS, CLASSES)
    other = copy.deepcopy(branch)
    other.network.stage1.bn.bias.add_(1)
    image = noise((64, 96))
    assert not other(image).low.equal(branch(image).low)
    images = [noise((64, 96 + 32 * index)) for index in range(4)]
    wanted = [branch(each) for each in images]
    wrong = []

    def work(index):
        with torch.no_grad():
            for _ in range(20):
                wrong.extend(
                    a.shape for a, b in zip(branch(images[index]), wanted[index], strict=True) if not a.equal(b)
                )

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def pooled(x):
    """Logits that see the map's means in bins, whose windows follow from its size."""
    size = x.shape[2:]
    bins = [nn.AdaptiveAvgPool2d(3)(x), F.adaptive_avg_pool2d(x, (2, 5)), F.interpolate(x, (3, 1), mode="area")]
    levels = [*bins, F.adaptive_avg_pool2d(x, (None, 4)), F.adaptive_avg_pool2d(x, 1)]
    return two_classes(x + sum(F.interpolate(level, size, mode="bilinear") for level in levels))


@pytest.fixture(scope="module")
def cascade(make):
    """Taps that are found and taps that are resized, up and down, of an output within a dictionary."""
    network = make(pooled, strides=(2, 2, 2, 1))
    taps = {"low": "stage1", "mid": "stage2", "deep": "stage1", "high": "stem.conv", "logits": "output[a]"}
    torch.manual_seed(0)
    branch = SemanticBranch.from_module(network, taps, CLASSES, resize=True)
    return Cascade(CascadeConfig("module", CLASSES, 4, 4, error_features="low"), branch).eval()


@pytest.fixture(scope="module")
def front(cascade):
    from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
    from errseg_rt.export.graphs import export_graphs

    return OnnxRuntimeEngine(export_graphs(cascade, names=("front",))["front"], "front", threads=1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.no_grad()
def test_exported_with_dynamic_sizes_it_gives_the_same(cascade, front, size):
    image = noise(size)
    wanted = cascade.front(image)
    found = front.run({"image": image.numpy()})
    for name, tensor in wanted._asdict().items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-3, atol=1e-4, err_msg=name)
    assert (found["logits"].argmax(1) == wanted.logits.argmax(1).numpy()).mean() >= 0.9999


@torch.no_grad()
def test_it_compiles_in_one_graph(cascade):
    image = noise((64, 96))
    compiled = torch.compile(GRAPHS["front"](cascade), fullgraph=True, backend="eager")
    for found, wanted in zip(compiled(image), cascade.front(image), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (InputSpec(plus_one=True, scale=0.5), (97, 129)),
        (InputSpec(multiple=32), (128, 160)),
        (InputSpec(multiple=14), (98, 140)),
        (InputSpec(size=(80, 112)), (80, 112)),
    ],
    ids=str,
)
def test_it_is_traced_at_a_size_that_it_takes(spec, size):
    from errseg_rt.export.graphs import sample_size

    assert sample_size(spec) == size


def test_what_torch_cannot_export_is_one_line():
    from errseg_rt.export.graphs import export_graphs

    class ByItsValues(Network):
        def forward(self, image):
            return super().forward(image) if image.mean().item() < 9 else image

    branch = SemanticBranch.from_module(ByItsValues(), TAPS, CLASSES)
    with pytest.raises(DataError, match=r"^torch cannot export the front graph to ONNX for sizes that vary") as caught:
        export_graphs(Cascade(CascadeConfig("module", CLASSES, 4, 4), branch))
    assert str(caught.value).isprintable()
