"""PyTorch modules: semantic networks, the two branches, and the cascade that is the definition of the method."""

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.networks.cascade import Cascade, CascadeConfig, CascadeOutput, Front
from errseg_rt.networks.registry import SEMANTIC_NETWORKS, build_semantic, import_network, register
from errseg_rt.networks.semantic_branch import SemanticBranch
from errseg_rt.networks.taps import SemanticNetwork, Taps

__all__ = [
    "SEMANTIC_NETWORKS",
    "Cascade",
    "CascadeConfig",
    "CascadeOutput",
    "Front",
    "InputSpec",
    "SemanticBranch",
    "SemanticNetwork",
    "Taps",
    "build_semantic",
    "import_network",
    "register",
]
