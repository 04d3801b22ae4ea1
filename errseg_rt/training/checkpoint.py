"""Files of a training: checkpoints that survive a kill, and the cascade's weights with all that is known of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from errseg_rt.errors import DataError
from errseg_rt.networks.cascade import Cascade, CascadeConfig
from errseg_rt.system.atomic import write_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the old one and renames it, and never unpickles more than weights."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save, leaving the old file whole until the new one is."""
        with write_atomically(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Load tensors and plain values."""
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return checkpoint


def save_cascade(path: Path, cascade: Cascade, notes: dict[str, Any]) -> None:
    """Write a cascade's weights as safetensors, with its shape and `notes` (plain JSON values) in the header."""
    weights = {name: tensor.contiguous() for name, tensor in cascade.state_dict().items()}
    header = {"cascade": json.dumps(cascade.config.to_dict()), "notes": json.dumps(notes)}
    with write_atomically(path) as temporary:
        temporary.write_bytes(save(weights, header))


def load_cascade(path: Path) -> tuple[Cascade, dict[str, Any]]:
    """Read what `save_cascade` wrote, in eval mode.

    Raises:
        DataError: The file is missing, is no such file, or its weights do not fit its shape.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; a training writes cascade.safetensors into its --out folder")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        cascade = Cascade(CascadeConfig(**json.loads(header["cascade"])))
        cascade.load_state_dict(weights)
        notes: dict[str, Any] = json.loads(header["notes"])
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{path}: not the weights of a cascade ({error}); train again or give another file") from error
    return cascade.eval(), notes


def load_semantic_weights(cascade: Cascade, path: Path, merge: tuple[tuple[int, ...], ...]) -> None:
    """Start the semantic branch from weights of the same network, its classifier rows averaged over merged classes.

    Args:
        cascade: Its semantic branch is filled.
        path: A state dict (`.pth`, read with `weights_only`).
        merge: For each class of the cascade, the classes of the file that it merges; empty: they are the same.

    Raises:
        DataError: The file is missing or does not fit.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; --init wants the weights of the semantic network")
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        wanted = cascade.semantic.state_dict()
        for name, tensor in weights.items():
            if merge and name in wanted and tensor.shape[:1] != wanted[name].shape[:1]:
                weights[name] = torch.stack([tensor[list(rows)].mean(dim=0) for rows in merge])
        cascade.semantic.load_state_dict(weights)
    except (RuntimeError, pickle.UnpicklingError, AttributeError, IndexError, EOFError, ValueError) as error:
        reason = (str(error) or "the file is empty").splitlines()[0]
        raise DataError(f"{path}: does not fit the semantic network ({reason})") from error
