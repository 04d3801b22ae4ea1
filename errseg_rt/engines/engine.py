"""What an engine is: it executes one graph of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph.

    Attributes:
        dtype: Element type.
        shape: Sizes, None where dynamic.
    """

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


class Engine(Protocol):
    """Executes one graph; may be used from several threads at once."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        ...

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Outputs by name, for inputs by name.

        Raises:
            EngineError: The graph cannot be run on these inputs.
        """
        ...
