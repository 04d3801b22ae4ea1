"""How a bundle's instances are found, in its manifest; the kernel that finds them defines what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from errseg_rt.kernels.instances.spec import InstanceSpec

__all__ = ["InstanceSpec", "instance_spec_of"]


def instance_spec_of(table: Mapping[str, Any] | None) -> InstanceSpec | None:
    """The spec that a manifest holds; None where it has no instances.

    Raises:
        TypeError: A field is missing or unknown.
        ValueError: A value is out of range.
    """
    if table is None:
        return None
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    return InstanceSpec(**fields)
