"""Files of a training: checkpoints that survive a kill, and the cascade's weights with all that is known of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError, safe_open
from torch import Tensor

from errseg_rt.errors import DataError
from errseg_rt.networks.cascade import Cascade, CascadeConfig
from errseg_rt.networks.torch_files import read_torch
from errseg_rt.system.atomic import write_atomically
from errseg_rt.training.frozen import NETWORK, FrozenNetwork, FrozenNote
from errseg_rt.training.tensor_files import read_tensors, write_tensors

_ANEW = "remove it to start the stage anew"
_PARTS = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step"}
"""What Lightning goes on from."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the old one and renames it, and never unpickles more than weights."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save, leaving the old file whole until the new one is.

        Raises:
            OSError: The file cannot be written.
        """
        with write_atomically(Path(path)) as temporary:
            data = BytesIO()  # a disk that is full is an OSError of ours, and of torch's writer whatever it meets next
            torch.save(checkpoint, data)
            temporary.write_bytes(data.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Load tensors and plain values.

        Raises:
            DataError: The file is damaged.
        """
        checkpoint: dict[str, Any] = read_torch(Path(path), _ANEW, map_location)
        return checkpoint


def check_checkpoint(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raises DataError unless a training of such weights can go on from a checkpoint."""
    checkpoint = read_torch(path, _ANEW)
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= _PARTS:
        raise DataError(f"{path}: not a checkpoint of a training; {_ANEW}")
    if _shapes(checkpoint["state_dict"]) != _shapes(weights):
        raise DataError(f"{path}: a checkpoint of another network; {_ANEW}")


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


def save_cascade(path: Path, cascade: Cascade, notes: dict[str, Any]) -> None:
    """Write a cascade's weights as safetensors, with its shape and `notes` (plain JSON values) in the header.

    A frozen network's graph lies beside them.
    """
    header = {"cascade": json.dumps(cascade.config.to_dict()), "notes": json.dumps(notes)}
    if isinstance(cascade.semantic, FrozenNetwork):
        cascade.semantic.save(path.parent / NETWORK)
        header["network"] = cascade.semantic.note.to_json()
    write_tensors(path, cascade.state_dict(), header)


def finished_on(path: Path) -> str:
    """When the training of a whole cascade ended, as its notes say."""
    with safe_open(path, framework="pt") as file:
        return str(json.loads(file.metadata()["notes"]).get("finished", "an unknown day"))


def load_cascade(path: Path, mend: str = "train again or give another file") -> tuple[Cascade, dict[str, Any]]:
    """Read what `save_cascade` wrote, in eval mode.

    Args:
        path: The file.
        mend: What the user can do where it is damaged.

    Raises:
        DataError: The file is missing, is no such file, or its weights do not fit its shape; or the frozen network
            beside it is missing or another.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; a training writes cascade.safetensors into its --out folder")
    try:
        weights, header = read_tensors(path)
        note = FrozenNote.from_json(header["network"]) if "network" in header else None
        semantic = None if note is None else FrozenNetwork.open(path.parent / NETWORK, note)
        cascade = Cascade(CascadeConfig(**json.loads(header["cascade"])), semantic)
        cascade.load_state_dict(weights)
        notes: dict[str, Any] = json.loads(header["notes"])
    except DataError as error:  # of its semantic network, which cannot be made here
        raise DataError(f"{path}: {error}") from error
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        reason = f"no note of {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{path}: damaged, or not the weights of a cascade ({reason}); {mend}") from error
    return cascade.eval(), notes
