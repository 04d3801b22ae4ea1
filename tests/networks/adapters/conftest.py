"""What the tests of the adapters share: libraries where they are installed, and a network on every engine."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest
import torch
from safetensors.torch import save
from torch.nn import functional as F

from errseg_rt.engines.onnxruntime import OnnxRuntimeEngine
from errseg_rt.engines.torch import TorchEngine
from errseg_rt.export.graphs import _export
from errseg_rt.kernels.preprocess import preprocess
from errseg_rt.networks import Cascade, CascadeConfig, build_semantic
from errseg_rt.networks.graphs import FrontGraph
from errseg_rt.scenes import StreetScene

CLASSES = 7
SIZES = (96, 160), (128, 96)
_PACKAGES = {
    "torchvision": ("torchvision",),
    "smp": ("torchvision", "segmentation-models-pytorch"),
    "hf": ("transformers",),
    "monai": ("monai",),
}


@pytest.fixture(scope="session")
def installed():
    """Skips a test whose adapter's library is not there."""

    def check(name):
        for package in _PACKAGES[name.partition(":")[0]]:
            if not has(package):
                pytest.skip(f"{package} is not installed; the extra adapters has it")

    return check


def has(package):
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


@pytest.fixture
def on_every_engine(random_norms):
    """Labels of rendered scenes at two sizes by torch's modules, the exported front graph and the torch engine."""

    def labels(name, semantic=None):
        torch.manual_seed(0)
        config = CascadeConfig(name if semantic is None else "module", CLASSES, 4, 4, error_features="low")
        cascade = random_norms(Cascade(config, semantic or build_semantic(name, CLASSES)))
        sample = torch.randn(2, 3, *SIZES[0])
        heads = [m for m in cascade.semantic.modules() if getattr(m, "out_channels", None) == CLASSES]
        with torch.no_grad():  # else one class wins everywhere, and all ways agree
            heads[-1].bias.sub_(cascade.semantic(sample).logits.mean(dim=(0, 2, 3)))
        graph = _export(FrontGraph(cascade), (sample,), "front").SerializeToString()
        exported = OnnxRuntimeEngine(graph, "front", threads=1)
        weights = save({key: tensor.contiguous() for key, tensor in cascade.state_dict().items()})
        again = TorchEngine(weights, config.to_dict(), "front") if semantic is None else None
        for size in SIZES:
            frame = StreetScene(1, *size).frame(0).frame
            image = preprocess(frame, size, size, mean=cascade.semantic.input.mean, std=cascade.semantic.input.std)
            with torch.inference_mode():
                ways = [cascade.front(torch.from_numpy(image)).logits]
            ways += [torch.from_numpy(e.run({"image": image})["logits"]) for e in (exported, again) if e]
            yield [
                F.interpolate(way, size, mode="bilinear", align_corners=cascade.semantic.align_corners).argmax(1)
                for way in ways
            ]

    return labels
