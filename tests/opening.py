"""Opening one graph of a bundle, without a runtime around it."""

from __future__ import annotations

from typing import Any

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.engines.engine import Engine
from errseg_rt.engines.open import open_engine
from errseg_rt.options import Options
from errseg_rt.places.cpu import Cpu


def engine_on_cpu(engine: str, bundle: Bundle, graph: str, **options: Any) -> Engine:
    """An engine on this processor, with one thread."""
    return open_engine(bundle, graph, Options(engine, **{"threads": 1, **options}), Cpu(1))
