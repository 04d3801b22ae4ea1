"""Adaptive pooling of a traced graph, whose windows would else be those of the size that it was traced at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from errseg_rt.networks.pspnet import pool_bins


class DynamicPooling(TorchFunctionMode):
    """Within it, adaptive average pooling to several bins is done as matrix products; its results are the same."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or what takes its place."""
        given = dict(kwargs or {})
        if func is F.adaptive_avg_pool2d:
            return _pooled(*args, **given)
        if func is F.interpolate and given.get("mode") == "area" and given.get("size") is not None:
            return _pooled(args[0] if args else given["input"], given["size"])
        return func(*args, **given)


def _pooled(input: Tensor, output_size: int | tuple[int | None, int | None]) -> Tensor:
    bins = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    rows, cols = (side if want is None else want for want, side in zip(bins, input.shape[2:], strict=True))
    return input.mean(dim=(2, 3), keepdim=True) if (rows, cols) == (1, 1) else pool_bins(input, rows, cols)
