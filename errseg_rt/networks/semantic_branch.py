"""A semantic branch of any torch network: its taps are what some of its modules give, by their dotted names."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sized
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errseg_rt.bundle.contract import GRID_STRIDE, on_stride
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.networks.feature_maps import (
    OUTPUT,
    FeatureMap,
    MapPath,
    Recorder,
    feature_maps,
    probe_image,
    probe_sizes,
    run,
)
from errseg_rt.networks.taps import Taps
from errseg_rt.networks.weights import load_weights
from errseg_rt.system.fields import nearest

STRIDES = {"low": GRID_STRIDE, "mid": 8, "deep": 16, "high": 16}
"""Strides of the taps; logits may have any."""
_LOG = logging.getLogger(__name__)
_MOST_LISTED = 12
_CLOSE = 1e-3  # of the largest logit: what the order of sums may change in float32


class SemanticBranch(nn.Module):
    """A semantic network of a torch module as it is; see `errseg_rt.networks.taps.SemanticNetwork`.

    Made by `from_module`. The module stays in eval mode, whatever `train` says: its norms are constants, as the method
    has a frozen network.
    """

    def __init__(
        self, network: nn.Module, sources: Mapping[str, FeatureMap], classes: int, *, align_corners: bool
    ) -> None:
        super().__init__()
        self.network = network.eval()
        self.sources = dict(sources)
        self.classes, self.align_corners = classes, align_corners
        self.low_channels, self.mid_channels, self.deep_channels, self.high_channels = (
            sources[name].channels for name in STRIDES
        )
        self._paths = {name: MapPath.parse(source.name) for name, source in sources.items()}
        hooked = {name for name, _ in network.named_modules()}
        self._recorder = Recorder(network, (path.module for path in self._paths.values() if path.module in hooked))

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        taps: Mapping[str, str],
        classes: int | Sized,
        input: InputSpec = InputSpec(),  # noqa: B008 (the word that recipes and manifests have; immutable)
        *,
        align_corners: bool = False,
        state_dict: Mapping[str, Any] | str | Path | None = None,
    ) -> SemanticBranch:
        """A semantic branch of any network that takes an image `[B, 3, H, W]`.

        Args:
            module: The network; it is kept, not copied, and put in eval mode.
            taps: Names of its modules for `low` (stride 4), `mid` (8), `deep` (16, before the context module), `high`
                (16, after it) and `logits`. Where a module gives several tensors, the way to one follows, as
                `backbone[out]` or `encoder[2]`; `output` is what the network itself gives. A tap that is left out, or
                has another stride, is made of the nearest one; without `logits` they are the network's own output.
            classes: Number of classes of the logits, or the class set.
            input: The input that the network wants; it decides the sizes of the images that it is tried on.
            align_corners: How its maps lie on the input, as `torch.nn.functional.interpolate` has it.
            state_dict: Weights to load first, or a file of them: wrapped as `errseg_rt.networks.weights` takes them.

        Raises:
            DataError: The network cannot be run or taps be found, the weights do not fit, the logits have another
                number of classes, or what it gives for a frame depends on other frames or on chance.
        """
        network, count = _bare(module), classes if isinstance(classes, int) else len(classes)
        if state_dict is not None:
            load_weights(network, state_dict)
        network.eval()
        found = {each.name: each for each in feature_maps(network, input)}
        sources = _sources(taps, found, count)
        branch = cls(network, sources, count, align_corners=align_corners)
        _check(branch, input)
        for name, stride in STRIDES.items():
            if sources[name].stride != stride:
                _LOG.info("%s: %s, resized to stride %d", name, sources[name], stride)
        return branch

    def train(self, mode: bool = True) -> SemanticBranch:
        """Set the mode of what is around the network, which stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, image: Tensor) -> Taps:
        """Taps of a normalised image `[B, 3, H, W]`."""
        outputs = {OUTPUT: self.network(image)}
        outputs.update(self._recorder.take())
        maps = {name: self._map(name, path.of(outputs[path.module]), image) for name, path in self._paths.items()}
        return Taps(**maps)

    def _map(self, name: str, value: Tensor, image: Tensor) -> Tensor:
        source = self.sources[name]
        if source.layout == "bhwc":
            value = value.permute(0, 3, 1, 2)
        elif source.layout == "bnc":
            size = on_stride((image.shape[2], image.shape[3]), source.stride)
            value = value.transpose(1, 2).reshape(-1, source.channels, *size)
        if name == "logits":
            return value
        return self._resized(value, source, STRIDES[name], image)

    def _resized(self, value: Tensor, source: FeatureMap, stride: int, image: Tensor) -> Tensor:
        """A map at the stride of a tap, with that tap's size exactly."""
        is_exact, at = source.is_exact, source.stride
        while at < stride:
            value, at = self._halved(value), 2 * at
        if is_exact and at == stride:
            return value
        size = on_stride((image.shape[2], image.shape[3]), stride)
        return F.interpolate(value, size=size, mode="bilinear", align_corners=self.align_corners)

    def _halved(self, value: Tensor) -> Tensor:
        """Means at twice the stride, sides rounded up; around each pixel that stays, or of each two by two."""
        if self.align_corners:
            return F.avg_pool2d(value, 3, 2, padding=1, count_include_pad=False)
        return F.avg_pool2d(value, 2, 2, ceil_mode=True, count_include_pad=False)


def _bare(module: nn.Module) -> nn.Module:
    """The network within the wrappers of torch itself, whose names do not count."""
    if not isinstance(module, nn.Module):
        raise DataError(f"wanted a torch.nn.Module, got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        raise DataError("the network is a TorchScript module, whose inner tensors cannot be taken; give the nn.Module")
    while True:
        inner = getattr(module, "_orig_mod", None)  # torch.compile's
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _sources(taps: Mapping[str, str], found: Mapping[str, FeatureMap], classes: int) -> dict[str, FeatureMap]:
    """The map that each tap is made of."""
    for tap in taps:
        if tap not in Taps._fields:
            raise DataError(f"taps: there is no tap {tap!r}; {nearest(tap, Taps._fields)}")
    named = {tap: _named(tap, name, found) for tap, name in taps.items()}
    sources = {tap: named[tap] for tap in STRIDES if tap in named}
    if not sources:
        raise DataError(f"taps: wanted one of {', '.join(STRIDES)} at least; {candidates(found.values())}")
    given = list(sources.values())
    for tap, stride in STRIDES.items():
        if tap not in sources:
            sources[tap] = min(given, key=lambda each: abs(math.log2(each.stride / stride)))
            _LOG.info("%s: not named, made of %s", tap, sources[tap])
    logits = named.get("logits") or _only_logits(found, classes)
    if logits.channels != classes:
        raise DataError(f"taps: logits: {logits} for {classes} classes; {candidates(found.values(), channels=classes)}")
    return {"logits": logits, **sources}


def _named(tap: str, name: str, found: Mapping[str, FeatureMap]) -> FeatureMap:
    if name in found:
        return found[name]
    inside = [each for each in found.values() if each.name.startswith(f"{name}[")]
    if len(inside) == 1:
        return inside[0]
    stride = None if inside else STRIDES.get(tap)
    why = "gives several maps" if inside else "gives no map"
    raise DataError(f"taps: {tap}: {name!r} {why}; {candidates(inside or found.values(), stride=stride, like=name)}")


def _only_logits(found: Mapping[str, FeatureMap], classes: int) -> FeatureMap:
    """The one map of the network's output that can be its logits."""
    outputs = [each for each in found.values() if MapPath.parse(each.name).module == OUTPUT]
    fitting = [each for each in outputs if each.channels == classes]
    if len(fitting) == 1:
        return fitting[0]
    if len(outputs) == 1:
        return outputs[0]
    raise DataError(
        f"taps: which map holds the logits of {classes} classes? Name it as logits; "
        f"{candidates(fitting or outputs or found.values(), channels=None if fitting or outputs else classes)}"
    )


def candidates(
    maps: Iterable[FeatureMap], *, stride: int | None = None, channels: int | None = None, like: str = ""
) -> str:
    """A list of maps in words, the fitting ones alone where there are some.

    Args:
        maps: The maps.
        stride: What they shall have.
        channels: The same.
        like: A name; those of modules beside it come first.
    """
    maps = list(maps)
    fitting = [each for each in maps if stride in (None, each.stride) and channels in (None, each.channels)] or maps
    parent = like.rpartition(".")[0]
    outer = sorted(fitting, key=lambda each: (not (parent and each.name.startswith(parent)), each.name.count(".")))
    listed = ", ".join(map(str, outer[:_MOST_LISTED]))
    more = f" and {len(outer) - _MOST_LISTED} more" if len(outer) > _MOST_LISTED else ""
    return f"there are {listed}{more}" if outer else "it gives no maps at all"


@torch.no_grad()
def _check(branch: SemanticBranch, spec: InputSpec) -> None:
    """Raises DataError where logits of a frame depend on the frames beside it, or on chance."""
    both = probe_image(branch.network, 2, probe_sizes(spec)[0])
    alone, again = (_logits(branch, both[:1]) for _ in range(2))
    if not _is_close(alone, again):
        raise DataError(
            "the network gives other logits each time for the same image; is there dropout that eval() leaves on?"
        )
    if not _is_close(_logits(branch, both)[:1], alone):
        norms = [
            name
            for name, module in branch.network.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
        ]
        named = f", as norms without running statistics ({norms[0]}) make it" if norms else ""
        raise DataError(f"the network's logits of an image depend on the others in the batch{named}")


def _logits(branch: SemanticBranch, image: Tensor) -> Tensor:
    taps: Taps = run(branch, image)
    return taps.logits


def _is_close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= _CLOSE * other.abs().max().clamp_min(1e-6))
