"""Feature maps of any torch network: what its modules give, found by running it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from errseg_rt.bundle.contract import on_stride
from errseg_rt.bundle.input_spec import InputSpec, Size
from errseg_rt.errors import DataError
from errseg_rt.system.lines import one_line

OUTPUT = "output"
"""What the network's own output is called where its modules are named."""
_STRIDES = (1, 2, 4, 8, 16, 32, 64)
_SIDES = (5, 7), (8, 5)  # of the two images shown to a network, in steps of `_LEAST` pixels or of the input's multiple
_LEAST = 32
_STEP = re.compile(r"\[([^\[\]]+)\]")


@dataclass(frozen=True)
class FeatureMap:
    """A map that a module gives.

    Attributes:
        name: The module's dotted name; where it gives several tensors, followed by the way to this one, as
            `backbone[out]` or `encoder[2]`.
        stride: Input pixels from one of its pixels to the next.
        channels: Number of channels.
        layout: How it lies in memory: `"bchw"`, `"bhwc"`, or `"bnc"` (tokens, row by row).
        is_exact: Whether its sides are those of the input over the stride, rounded up.
    """

    name: str
    stride: int
    channels: int
    layout: str = "bchw"
    is_exact: bool = True

    def __str__(self) -> str:
        return f"{self.name} (stride {self.stride}, {self.channels} channels)"


class MapPath(NamedTuple):
    """Where a tensor is found: a module, and the way through what it gives."""

    module: str
    steps: tuple[str, ...]

    @classmethod
    def parse(cls, name: str) -> MapPath:
        """The path of a feature map's name."""
        return cls(name.partition("[")[0], tuple(_STEP.findall(name)))

    def of(self, output: Any) -> Any:
        """What lies there in the module's output.

        Raises:
            LookupError: Nothing does.
        """
        for step in self.steps:
            output = _inside(output)[step]
        return output


class Recorder:
    """Keeps what some modules of a network give, each its latest call: hooks that torch.export and torch.compile trace.

    Args:
        network: Gets a forward hook on each of these modules.
        names: Dotted names of its modules.
    """

    def __init__(self, network: nn.Module, names: Iterable[str]) -> None:
        self._kept = _Kept()
        self._hooks = [
            network.get_submodule(name).register_forward_hook(_Keep(self._kept, name)) for name in dict.fromkeys(names)
        ]

    def take(self) -> dict[str, Any]:
        """Outputs by name since the last time, of this thread's forward passes."""
        taken = dict(self._kept.outputs)
        self._kept.outputs.clear()
        return taken

    def remove(self) -> None:
        """Take the hooks off again."""
        for hook in self._hooks:
            hook.remove()


class _Kept(threading.local):  # several threads may run one network
    def __init__(self) -> None:
        self.outputs: dict[str, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Kept:
        memo[id(self)] = copy = _Kept()
        return copy

    def __reduce__(self) -> tuple[type[_Kept], tuple[()]]:
        return _Kept, ()


@dataclass(frozen=True)
class _Keep:  # no closure: a copy of the network keeps its own outputs
    kept: _Kept
    name: str

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.kept.outputs[self.name] = output


def feature_maps(network: nn.Module, spec: InputSpec) -> list[FeatureMap]:
    """Every feature map of a network, those of its modules in the order of their names, its output last.

    Args:
        network: Any network that takes an image `[B, 3, H, W]`, in eval mode.
        spec: The input that it wants, which says the sizes that it takes.

    Raises:
        DataError: It does not run on such an input.
    """
    names = [name for name, _ in network.named_modules() if name]
    recorder = Recorder(network, names)
    sizes = probe_sizes(spec)
    try:
        shapes = [_shapes(network, recorder, size) for size in sizes]
    finally:
        recorder.remove()
    common = [name for name in shapes[0] if all(name in found for found in shapes)]
    maps = (_map_of(name, sizes, [found[name] for found in shapes]) for name in common)
    return [found for found in maps if found is not None]


def probe_sizes(spec: InputSpec) -> list[Size]:
    """Sizes of the images that a network is shown, that its strides can be told from; one where it takes one only."""
    if (size := getattr(spec, "size", None)) is not None:
        return [size]
    step = max(spec.multiple, spec.multiple * round(_LEAST / spec.multiple))
    return [(rows * step + spec.plus_one, cols * step + spec.plus_one) for rows, cols in _SIDES]


@torch.no_grad()
def run(network: nn.Module, image: Tensor) -> Any:
    """What a network gives for an image.

    Raises:
        DataError: It fails.
    """
    try:
        return network(image)
    except Exception as error:  # of whatever is written in a network of somebody's
        shape = "x".join(map(str, image.shape))
        raise DataError(
            f"the network does not run on an image of {shape} ({type(error).__name__}: {one_line(error)}); say by "
            "input=InputSpec(multiple=...) which sizes it takes, and let it take one tensor [B, 3, H, W]"
        ) from error


def probe_image(network: nn.Module, batch: int, size: Size) -> Tensor:
    """Noise that is the same each time, where the network's weights lie."""
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    return torch.randn((batch, 3, *size), generator=torch.Generator().manual_seed(batch)).to(device)


def leaves(output: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors within what a module gives, and what they are called."""
    if isinstance(output, Tensor):
        yield name, output
    elif _is_nest(output):
        for step, inner in _inside(output).items():
            yield from leaves(inner, f"{name}[{step}]")


def _shapes(network: nn.Module, recorder: Recorder, size: Size) -> dict[str, torch.Size]:
    output = run(network, probe_image(network, 1, size))
    given = {**recorder.take(), OUTPUT: output}
    return {leaf: tensor.shape for name, out in given.items() for leaf, tensor in leaves(out, name)}


def _is_nest(output: Any) -> bool:
    return isinstance(output, Mapping | tuple | list) or (is_dataclass(output) and not isinstance(output, type))


def _inside(output: Any) -> dict[str, Any]:
    """What a mapping, a tuple, a list or a dataclass holds, by key, number or field."""
    if isinstance(output, Mapping):
        return {str(key): value for key, value in output.items()}
    if isinstance(output, tuple | list):
        return {str(index): value for index, value in enumerate(output)}
    if is_dataclass(output):
        return {each.name: getattr(output, each.name) for each in fields(output)}
    raise LookupError(output)


def _map_of(name: str, sizes: list[Size], shapes: list[torch.Size]) -> FeatureMap | None:
    for layout in ("bchw", "bhwc", "bnc"):
        for stride in _STRIDES:
            found = [_match(layout, shape, size, stride) for shape, size in zip(shapes, sizes, strict=True)]
            channels = {match[0] for match in found if match}
            if all(found) and len(channels) == 1:
                return FeatureMap(name, stride, channels.pop(), layout, all(match and match[1] for match in found))
    return None


def _match(layout: str, shape: torch.Size, size: Size, stride: int) -> tuple[int, bool] | None:
    """Channels of a tensor, and whether its size is exact, if it is a map of this stride over an input of a size."""
    exact = on_stride(size, stride)
    if layout == "bnc":
        is_map = len(shape) == 3 and shape[1] == exact[0] * exact[1]
        return (shape[2], True) if is_map else None
    if len(shape) != 4:
        return None
    *_, height, width = shape if layout == "bchw" else (shape[0], shape[3], shape[1], shape[2])
    # Strides that are rounded otherwise lose a pixel or add one.
    is_near = all(abs(side - want) <= 1 for side, want in zip((height, width), exact, strict=True))
    channels = shape[1 if layout == "bchw" else 3]
    return (channels, (height, width) == exact) if is_near else None
