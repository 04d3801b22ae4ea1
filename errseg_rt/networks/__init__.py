"""PyTorch modules: semantic networks, the two branches, and the cascade that is the definition of the method."""

from errseg_rt.networks.cascade import Cascade, CascadeConfig, CascadeOutput, Front
from errseg_rt.networks.registry import SEMANTIC_NETWORKS
from errseg_rt.networks.semantic_branch import SemanticBranch

__all__ = ["SEMANTIC_NETWORKS", "Cascade", "CascadeConfig", "CascadeOutput", "Front", "SemanticBranch"]
