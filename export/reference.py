"""What a bundle is held against: the cascade that it was exported from, run by torch."""

from __future__ import annotations

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.torch import TorchEngine
from errseg_rt.networks.cascade import Cascade
from errseg_rt.options import Options
from errseg_rt.pipeline.direct import Direct
from errseg_rt.pipeline.flight import Flight
from errseg_rt.pipeline.open import open_way
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.places.cpu import Cpu
from errseg_rt.training.frozen import FrozenNetwork


def torch_way(bundle: Bundle, cascade: Cascade) -> Direct | Flight:
    """What sends frames through the torch modules of a bundle on the CPU.

    Args:
        bundle: The bundle.
        cascade: That which it was exported from; of a frozen network, the network runs on ONNX Runtime, apart from the
            branches.
    """
    if not isinstance(cascade.semantic, FrozenNetwork):
        return open_way(bundle, Options("torch"))  # of the bundle's own weights
    front, stage3 = (TorchEngine.of(cascade, graph) for graph in bundle.manifest.graphs)
    return Direct(Pipeline(bundle, front, stage3, Cpu(Options().cores)))
