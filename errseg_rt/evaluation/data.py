"""Where `open_labelled` was before it went to `errseg_rt.datasets`; kept for one version."""

from __future__ import annotations

import warnings
from typing import Any


def __getattr__(name: str) -> Any:
    """The function from its new place, with a warning that names it."""
    if name != "open_labelled":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from errseg_rt.datasets import open_labelled

    message = "errseg_rt.evaluation.data goes with the next version: from errseg_rt.datasets import open_labelled"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return open_labelled
