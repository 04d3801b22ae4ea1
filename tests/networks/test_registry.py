"""Names of semantic networks: what they make, who may register them, and that a file's word imports nothing."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from errseg_rt.errors import DataError, EngineError
from errseg_rt.networks import (
    SEMANTIC_NETWORKS,
    Cascade,
    CascadeConfig,
    SemanticBranch,
    build_semantic,
    import_network,
    register,
)
from errseg_rt.system.fields import FieldError

TAPS = {"low": "low", "mid": "mid", "deep": "deep", "high": "high"}
MODULE = """
import torch
from torch import nn

from errseg_rt.networks import SemanticBranch


class Network(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.low, self.mid = nn.Conv2d(3, 4, 3, 4, 1), nn.Conv2d(4, 5, 3, 2, 1)
        self.deep, self.high = nn.Conv2d(5, 6, 3, 2, 1), nn.Conv2d(6, 7, 1)
        self.head = nn.Conv2d(7, classes, 1)

    def forward(self, image):
        return self.head(self.high(self.deep(self.mid(self.low(image)))))


def make(classes):
    taps = {name: name for name in ("low", "mid", "deep", "high")}
    return SemanticBranch.from_module(Network(classes), taps, classes)


answer = 42
"""


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Names that a test registers are gone behind it."""
    before = dict(SEMANTIC_NETWORKS)
    yield
    SEMANTIC_NETWORKS.clear()
    SEMANTIC_NETWORKS.update(before)


@pytest.fixture
def of_user(tmp_path, monkeypatch):
    """A module of a user's, which can be imported."""
    (tmp_path / "networks_of_mine.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "broken_network.py").write_text("raise OSError('no\\nfile')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "networks_of_mine"
    sys.modules.pop("networks_of_mine", None)


def config(name, classes=5):
    return CascadeConfig(name, classes, 4, 4, error_features="low")


def test_a_registered_network_is_made_by_its_name(of_user):
    from importlib import import_module

    register("mine-1.0", import_module(of_user).make)
    branch = build_semantic("mine-1.0", 5)
    assert (type(branch), branch.classes) == (SemanticBranch, 5)
    cascade = Cascade(config("mine-1.0")).eval()
    with torch.no_grad():
        assert cascade.front(torch.zeros(1, 3, 64, 96)).logits.shape == (1, 5, 16, 24)


@pytest.mark.parametrize("name", ["squeezenas", "onnx", "module"])
def test_names_of_the_package_stay_what_they_are(name):
    with pytest.raises(ValueError, match=f"a network of the package is called '{name}'; choose another name"):
        register(name, lambda classes: None)


@pytest.mark.parametrize("name", ["", "my net", "a/b", "torchvision:mine", "../x", "a:b:c"])
def test_a_name_has_letters_and_digits(name):
    with pytest.raises(ValueError, match=r"a network cannot be called .*; wanted letters, digits, '-', '_' and '.'"):
        register(name, lambda classes: None)


def test_a_file_s_word_alone_imports_nothing(of_user):
    name = f"{of_user}:make"
    assert config(name).semantic == name
    with pytest.raises(DataError, match=f"the network {name} is not registered here, and a file's word alone imports"):
        Cascade(config(name))
    from errseg_rt.engines.torch import TorchEngine

    with pytest.raises(EngineError, match=r"^torch cannot make the bundle's network \(the network .* runs it$") as e:
        TorchEngine(b"", config(name).to_dict(), "front")
    assert str(e.value).isprintable()
    assert of_user not in sys.modules


def test_what_the_user_names_is_imported(of_user):
    name = f"{of_user}:make"
    import_network(name)
    assert Cascade(config(name)).semantic.high_channels == 7


def test_a_name_that_nothing_can_make_says_so():
    with pytest.raises(FieldError, match=r"semantic: the network 'onnx' cannot be made by its name; hand it in"):
        build_semantic("onnx", 5)
    with pytest.raises(FieldError, match=r"semantic: wanted one of .*, squeezenas, .*smp:NETWORK, .*, got 'vgg'"):
        config("vgg")


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("networks_of_mine:other", r"cannot be imported \(AttributeError: .*\); its folder must be one of PYTHONPATH$"),
        (
            "networks_of_nobody:make",
            r"cannot be imported \(ModuleNotFoundError: .*\); its folder must be one of PYTHON",
        ),
        ("broken_network:make", r"cannot be imported \(OSError: no file\); its folder must be one of PYTHONPATH$"),
        ("networks_of_mine:answer", r"wanted a function of the number of classes, got int$"),
    ],
    ids=["function", "module", "fault", "value"],
)
def test_what_cannot_be_imported_is_one_line(of_user, attribute, message):
    with pytest.raises(DataError, match=f"^{attribute}: {message}") as caught:
        import_network(attribute)
    assert str(caught.value).isprintable()


def test_a_factory_s_network_must_be_one():
    register("bare", lambda classes: nn.Conv2d(3, classes, 1))
    with pytest.raises(
        DataError, match=r"^bare: its factory gives a Conv2d without classes, low_channels, .*; wanted a"
    ):
        build_semantic("bare", 5)
    register("other", lambda classes: build_semantic("squeezenas", 7))
    with pytest.raises(DataError, match=r"^other: its factory gives a network of 7 classes, wanted 5$"):
        build_semantic("other", 5)
