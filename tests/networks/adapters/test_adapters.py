"""Networks of other libraries, by name: their taps, and one answer from torch, ONNX Runtime and the torch engine."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest
import torch

from errseg_rt.bundle.contract import on_stride
from errseg_rt.errors import DataError, EngineError
from errseg_rt.networks import CascadeConfig, build_semantic
from errseg_rt.networks.adapters import LIBRARIES, is_name

CLASSES = 7
EXPORTED = (
    "torchvision:lraspp_mobilenet_v3_large",
    "smp:DeepLabV3Plus/resnet18",
    "smp:PSPNet/resnet18",
    "smp:Unet/tu-convnext_atto",
    "hf:nvidia/segformer-b0-finetuned-cityscapes-1024-1024",
    "monai:UNet",
)
"""At least one of each library, and of each thing that is hard to export: tokens, bins, full size, aligned corners."""
NAMES = (
    *EXPORTED,
    *(f"torchvision:{head}_{net}" for head in ("deeplabv3", "fcn") for net in ("resnet50", "resnet101")),
    "torchvision:deeplabv3_mobilenet_v3_large",
    "smp:DeepLabV3/resnet34",
    "smp:UPerNet/resnet34",
    "smp:Segformer/mit_b0",
    "smp:FPN/resnet18",
    "smp:UnetPlusPlus/mobilenet_v2",
    "smp:DeepLabV3Plus/tu-resnet18",
    "hf:nvidia/segformer-b5-finetuned-ade-640-640",
    "hf:openmmlab/upernet-convnext-tiny",
)


@pytest.mark.parametrize("name", NAMES)
def test_taps_have_the_strides_and_channels_that_the_branches_take(installed, name):
    installed(name)
    with torch.device("meta"):  # shapes alone
        network = build_semantic(name, CLASSES)
        taps = network(torch.empty(1, 3, 96, 160))
    assert network.classes == taps.logits.shape[1] == CLASSES
    assert max(taps.logits.shape[2:]) <= 40
    for tap, stride in (("low", 4), ("mid", 8), ("deep", 16), ("high", 16)):
        shape = (1, getattr(network, f"{tap}_channels"), *on_stride((96, 160), stride))
        assert tuple(getattr(taps, tap).shape) == shape, tap


@pytest.mark.parametrize("name", EXPORTED)
def test_labels_are_the_same_on_every_engine(installed, on_every_engine, name):
    installed(name)
    for module, exported, engine in on_every_engine(name):
        assert len(module.unique()) > 1
        assert (exported == module).float().mean() >= 0.9999
        assert (engine == module).float().mean() >= 0.9999


@pytest.mark.parametrize("name", NAMES)
def test_names_are_known_without_the_libraries(monkeypatch, name):
    for library in ("torchvision", "segmentation_models_pytorch", "transformers", "monai"):
        monkeypatch.setitem(sys.modules, library, None)
    assert is_name(name)
    assert CascadeConfig(name, CLASSES, 4, 4).semantic == name


@pytest.mark.parametrize(("name", "package"), [(name, LIBRARIES[name.partition(":")[0]][0]) for name in EXPORTED])
def test_a_missing_library_is_one_line_with_the_command(monkeypatch, name, package):
    adapter = import_module(f"errseg_rt.networks.adapters.{package}")
    for loaded in [each for each in sys.modules if each.partition(".")[0] in ("torchvision", "monai", "transformers")]:
        monkeypatch.setitem(sys.modules, loaded, None)
    for library in ("torchvision", "monai", "transformers"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError, match=r"^wants [\w-]+, which is not installed \(.*\): pip install 'errseg-rt\[") as e:
        adapter.build(name.partition(":")[2], CLASSES)
    assert str(e.value).isprintable()


def test_a_library_that_does_not_load_is_one_line(monkeypatch):
    from errseg_rt.networks import adapters

    def broken(name):
        raise RuntimeError("operator torchvision::nms\ndoes not exist")

    monkeypatch.setattr(adapters, "import_module", broken)
    message = r"^torchvision does not load here \(operator torchvision::nms does not exist\); install the build that "
    with pytest.raises(DataError, match=message):
        adapters.library("torchvision.models", "torchvision")


UNKNOWN = {
    "torchvision:resnet50": r"torchvision:resnet50: there are deeplabv3_mobilenet_v3_large, .*; wanted torchvision",
    "torchvision:fcn_resnet51": r"torchvision:fcn_resnet51: ValueError: Unknown model fcn_resnet51; wanted torchvision",
    "smp:Unet": r"smp:Unet: names no encoder; wanted smp:ARCHITECTURE/ENCODER as ",
    "smp:Vnet/resnet18": r"smp:Vnet/resnet18: \w+: .*; wanted smp:ARCHITECTURE/ENCODER as ",
    "smp:Unet/resnet1": r"smp:Unet/resnet1: \w+: .*; wanted smp:ARCHITECTURE/ENCODER as ",
    "monai:VNet": r"monai:VNet: there is no VNet here; wanted monai:UNet$",
}


@pytest.mark.parametrize(("name", "message"), UNKNOWN.items(), ids=UNKNOWN)
def test_a_network_that_a_library_lacks_is_one_line(installed, name, message):
    installed(name)
    with pytest.raises(DataError, match=f"^{message}") as caught:
        build_semantic(name, CLASSES)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_a_model_that_is_not_in_the_cache_is_one_line(installed, monkeypatch, tmp_path):
    installed("hf:")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = (
        r"^hf:nobody/nothing: not of a known shape, and its configuration is not in the cache .* hf download nobody/"
    )
    with pytest.raises(DataError, match=message):
        build_semantic("hf:nobody/nothing", CLASSES)


@pytest.fixture
def transformers(installed):
    installed("hf:")
    return import_module("transformers")


def upernet(transformers):
    backbone = transformers.ConvNextConfig(
        hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], out_features=[f"stage{i}" for i in range(1, 5)]
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=16, auxiliary_in_channels=16, auxiliary_channels=8, num_labels=CLASSES
    )
    return transformers.UperNetForSemanticSegmentation(config)


def test_a_network_of_transformers_that_is_there_already(transformers, on_every_engine):
    from errseg_rt.networks.adapters.hugging_face import branch_of

    for module, exported in on_every_engine("module", branch_of(upernet(transformers), CLASSES)):
        assert (exported == module).float().mean() >= 0.9999


def test_saved_weights_and_configurations_are_taken(transformers, tmp_path):
    from errseg_rt.networks.adapters.hugging_face import pretrained

    torch.manual_seed(5)
    network = upernet(transformers)
    network.save_pretrained(tmp_path)
    branch = pretrained(str(tmp_path), CLASSES)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(branch.network.state_dict()[name], tensor, rtol=0, atol=0)
    again = build_semantic(f"hf:{tmp_path}", CLASSES)
    assert [each.shape for each in again.parameters()] == [each.shape for each in branch.parameters()]
    with pytest.raises(DataError, match=r"logits: decode_head \(stride 4, 7 channels\) for 9 classes"):
        pretrained(str(tmp_path), 9)


def test_a_class_whose_taps_are_not_known_is_one_line(transformers):
    from errseg_rt.networks.adapters.hugging_face import branch_of

    with pytest.raises(DataError, match=r"^the taps of Conv2d are not known, but of Segformer"):
        branch_of(torch.nn.Conv2d(3, 4, 1), CLASSES)


def test_the_torch_engine_says_what_it_lacks(monkeypatch):
    from errseg_rt.engines.torch import TorchEngine

    for library in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, library, None)
    config = CascadeConfig("torchvision:fcn_resnet50", CLASSES, 4, 4).to_dict()
    message = (
        r"^torch cannot make the bundle's network \(torchvision:fcn_resnet50: wants torchvision, .* pip install "
        r"'errseg-rt\[adapters\]'.*\); engine onnxruntime runs it$"
    )
    with pytest.raises(EngineError, match=message):
        TorchEngine(b"", config, "front")


@torch.no_grad()
def test_masks_of_queries_become_class_logits(transformers):
    from errseg_rt.networks.adapters.hugging_face import branch_of

    stages = [f"stage{i}" for i in range(1, 5)]
    backbone = transformers.SwinConfig(
        embed_dim=12, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4, out_features=stages
    )
    sizes = dict.fromkeys(("hidden_dim", "feature_size", "mask_feature_size", "dim_feedforward"), 32)
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, **sizes, encoder_layers=1, decoder_layers=2, num_queries=10, num_labels=CLASSES
    )
    torch.manual_seed(0)
    network = transformers.Mask2FormerForUniversalSegmentation(config)
    branch, image = branch_of(network, CLASSES), torch.randn(1, 3, 96, 160)
    taps, output = branch(image), network(image)
    masks = output.masks_queries_logits[0].double().sigmoid()
    of_class = output.class_queries_logits[0].double().softmax(dim=1)
    scores = sum(of_class[query, :CLASSES, None, None] * masks[query] for query in range(10))
    torch.testing.assert_close(taps.logits[0].softmax(dim=0).double(), scores / scores.sum(0), rtol=1e-4, atol=1e-5)
    assert [tuple(tap.shape[2:]) for tap in taps] == [(24, 40), (24, 40), (12, 20), (6, 10), (6, 10)]
