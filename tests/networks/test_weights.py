"""Weights within what others have saved: any checkpoint, any prefix; what does not fit is named."""

from __future__ import annotations

import argparse
from collections import OrderedDict

import pytest
import torch
from torch import nn

from errseg_rt.errors import DataError
from errseg_rt.networks import SemanticBranch
from errseg_rt.networks.weights import load_weights


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(OrderedDict(low=nn.Conv2d(3, 4, 3, 4, 1), norm=nn.BatchNorm2d(4)))
        self.mid, self.deep = nn.Conv2d(4, 5, 3, 2, 1), nn.Conv2d(5, 6, 3, 2, 1)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, image):
        return self.head(self.deep(self.mid(self.encoder(image))))


@pytest.fixture
def weights():
    torch.manual_seed(1)
    return Network().state_dict()


def prefixed(prefix, weights):
    return {prefix + name: tensor for name, tensor in weights.items()}


WRAPPED = {
    "plain": lambda w: w,
    **{prefix: lambda w, p=prefix: prefixed(p, w) for prefix in ("module.", "model.", "_orig_mod.", "net.")},
    "prefixes": lambda w: prefixed("module._orig_mod.student.", w),
    **{
        nest: lambda w, n=nest: {n: w, "epoch": 3}
        for nest in ("state_dict", "model", "model_state_dict", "ema", "params_ema", "generator")
    },
    "checkpoint": lambda w: {
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        "trainer": {"model": {"weights": prefixed("module.", w)}, "best": 0.5},
    },
    "auxiliary": lambda w: {**w, "aux_classifier.0.weight": torch.ones(2), "decode.auxiliary_head.bias": torch.ones(1)},
    "loss": lambda w: {"state_dict": {**prefixed("net.", w), "criterion.weight": torch.ones(3)}},
    "teacher": lambda w: {**prefixed("teacher.", dict(list(w.items())[:3])), **prefixed("student.", w)},
    "first_of_two": lambda w: {"ema": {name: tensor + 1 for name, tensor in w.items()}, "state_dict": w},
}


@pytest.mark.parametrize("as_file", [False, True], ids=["mapping", "file"])
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_weights_are_found_wherever_they_lie(weights, wrap, as_file, tmp_path):
    network, source = Network(), wrap(weights)
    if as_file:
        torch.save(source, tmp_path / "w.pt")
        source = tmp_path / "w.pt"
    load_weights(network, source)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)


def test_a_wrapper_around_the_network_takes_its_bare_weights(weights):
    branch = SemanticBranch.from_module(
        Network(), {"low": "encoder", "mid": "mid", "deep": "deep", "high": "deep"}, 3, state_dict=weights
    )
    load_weights(branch, {name: tensor + 1 for name, tensor in weights.items()})  # whose names begin with "network."
    torch.testing.assert_close(branch.network.head.bias, weights["head.bias"] + 1)


MISFITS = {
    "renamed": (
        lambda w: {f"backbone{name}": tensor for name, tensor in w.items()},
        r"missing encoder\.low\.weight, encoder\.low\.bias, encoder\.norm\.weight and 9 more; unexpected "
        r"backboneencoder\.low\.weight, .* and 10 more; its names begin with backboneencoder\., backbonemid\., "
        r"backbonedeep\. and others, those of the network with encoder\., mid\., deep\. and others$",
    ),
    "missing": (lambda w: {n: t for n, t in w.items() if n != "mid.bias"}, r"missing mid\.bias$"),
    "unexpected": (lambda w: {**w, "neck.weight": torch.ones(1)}, r"unexpected neck\.weight$"),
    "shape": (
        lambda w: {**w, "head.bias": torch.ones(9)},
        r"of another shape head\.bias is \[9\], wanted \[3\]$",
    ),
    "nothing": (lambda w: {}, "it holds no weights by name$"),
    "list": (lambda w: [1, 2], "it holds no weights by name$"),
    "nan": (lambda w: {**w, "head.bias": torch.full((3,), torch.nan)}, r"not finite head\.bias$"),
}


@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_is_named_and_changes_nothing(weights, change, message):
    network = Network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(DataError, match=f"^state_dict: does not fit the network: {message}"):
        load_weights(network, change(weights))
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


UNREADABLE = {
    "code": (
        lambda path: torch.save({"args": argparse.Namespace(lr=1), "model": Network().state_dict()}, path),
        r"holds more than weights \(argparse\.Namespace\), which is not loaded, as that could run code; save the "
        r"weights alone, by torch\.save\(network\.state_dict\(\), path\) or as safetensors$",
    ),
    "module": (
        lambda path: torch.save(Network(), path),
        r"holds more than weights \(\S+\), which is not loaded, as that could run code; save the weights alone, by",
    ),
    "lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        r"a pointer of Git LFS in the place of the file; fetch it by git lfs pull$",
    ),
    "missing": (lambda path: None, "no such file; save the weights alone, by torch"),
    "folder": (lambda path: path.mkdir(), "a folder; save the weights alone, by torch"),
    "text": (lambda path: path.write_text("hello, weights"), "damaged, or not written by torch.save; save the weights"),
}


@pytest.mark.parametrize(("write", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_without_weights_is_one_line(tmp_path, write, message):
    write(tmp_path / "w.pt")
    with pytest.raises(DataError, match=rf"w\.pt: {message}") as caught:
        load_weights(Network(), tmp_path / "w.pt")
    assert str(caught.value).isprintable()
