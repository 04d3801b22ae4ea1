"""Feature maps of a torch network: what its modules give, in the order in which they are done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from errseg_rt.bundle.input_spec import InputSpec, Size
from errseg_rt.errors import DataError
from errseg_rt.networks.feature_maps import OUTPUT, leaves
from errseg_rt.networks.registry import SEMANTIC_NETWORKS, build_semantic
from errseg_rt.system.lines import one_line
from errseg_rt.taps.maps import FeatureMap, Maps
from errseg_rt.taps.sizes import Shape, is_exact, probe_sizes, stride_of

_IMPORTABLE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
_UNDONE = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def module_of(name: str, classes: int | None) -> nn.Module:
    """A network by the name that a recipe has for it, or `package.module:factory`, which is imported.

    Args:
        name: Its name.
        classes: Number of classes; a factory without it is called with nothing.

    Raises:
        DataError: There is none, or it cannot be made.
    """
    try:
        built: Any = build_semantic(name, classes or 2)
    except ValueError as error:
        if not _IMPORTABLE.fullmatch(name):
            raise DataError(
                f"{name}: no such file, and no network is called so; give an .onnx file, a bundle's folder, "
                f"package.module:factory, or one of {', '.join(sorted(SEMANTIC_NETWORKS))}"
            ) from error
        built = _imported(name, classes)
    if not isinstance(built, nn.Module):
        raise DataError(f"{name}: wanted a torch.nn.Module, or what makes one, got {type(built).__name__}")
    return built.eval()


def _imported(name: str, classes: int | None) -> Any:
    module, _, attribute = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        if isinstance(found, nn.Module) or not callable(found):
            return found
        return found() if classes is None else found(classes)
    except Exception as error:  # a module of the user's raises whatever it comes upon
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise DataError(f"{name}: cannot be imported and called ({reason})") from error


def module_maps(network: nn.Module, spec: InputSpec) -> tuple[Maps, list[str]]:
    """All feature maps that modules of a network give, and the names of those that it gives itself.

    A tensor that a module only hands on, as a sequence does what its last layer gives, has the outer module's name.

    Args:
        network: Takes an image `[B, 3, H, W]`, in eval mode.
        spec: The sizes that it takes.

    Raises:
        DataError: It does not run.
    """
    sizes = probe_sizes(spec)
    seen = [_run(network, size) for size in sizes]
    runs, outputs = [run for run, _ in seen], seen[0][1]
    found = []
    for name, (depth, _, made_by, is_end) in runs[0].items():
        shapes = [run[name][1] for run in runs if name in run]
        stride = stride_of(shapes, sizes)
        if stride:
            found.append(
                FeatureMap(
                    name,
                    stride,
                    shapes[0][1],
                    made_by,
                    depth,
                    is_end=is_end,
                    is_exact=is_exact(shapes, sizes, stride),
                )
            )
    strides = {each.name: each.stride for each in found}
    inner = {each.name for each in found if _is_inner(network, each, strides)}
    found = [replace(each, is_end=each.is_end and each.name not in inner) for each in found]
    maps = Maps(tuple(sorted(found, key=lambda each: each.depth)), len(runs[0]))
    return maps, [name for name in outputs if name in maps]


def _is_inner(network: nn.Module, each: FeatureMap, strides: Mapping[str, int]) -> bool:
    """Whether a map lies within a block whose own is at another stride."""
    above = each.name.partition("[")[0].rpartition(".")[0]
    return strides.get(above, each.stride) != each.stride and not isinstance(
        network.get_submodule(above), nn.Sequential
    )


@torch.no_grad()
def _run(network: nn.Module, size: Size) -> tuple[dict[str, tuple[int, Shape, str, bool]], list[str]]:
    """By name, its place in their order, its shape, what makes it, and whether it ends a layer; and the outputs."""
    seen: dict[int, tuple[str, Tensor, str, bool]] = {}  # by tensor, the last and so the outermost module that gives it

    def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        for leaf, tensor in leaves(output, name):
            seen[id(tensor)] = (leaf, tensor, type(module).__name__, not isinstance(module, _UNDONE))

    hooks = [module.register_forward_hook(partial(keep, name)) for name, module in network.named_modules() if name]
    try:
        output = network(torch.randn((1, 3, *size), generator=torch.Generator().manual_seed(0)))
    except Exception as error:  # of whatever is written in a network of somebody's
        raise DataError(
            f"the network does not run on an image of {size[0]}x{size[1]} ({type(error).__name__}: {one_line(error)}); "
            "say by --multiple which sizes it takes"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    given = dict(leaves(output, OUTPUT))
    for leaf, tensor in given.items():
        seen.setdefault(id(tensor), (leaf, tensor, type(network).__name__, True))
    named = {
        name: (depth, tuple(tensor.shape), made_by, is_end)
        for depth, (name, tensor, made_by, is_end) in enumerate(seen.values(), 1)
        if tensor.ndim == 4 and tensor.is_floating_point()
    }
    return named, [seen[id(tensor)][0] for tensor in given.values()]
