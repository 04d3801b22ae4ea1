"""A semantic branch of any torch network: its taps are what some of its modules give, by their dotted names."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sized
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from errseg_rt.bundle.contract import GRID_STRIDE, on_stride
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.networks.dynamic_pooling import DynamicPooling
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
from errseg_rt.networks.resized import to_stride
from errseg_rt.networks.taps import Taps
from errseg_rt.networks.weights import load_weights
from errseg_rt.system.fields import nearest

_LOG = logging.getLogger(__name__)
_MOST_LISTED = 12
_CLOSE = 1e-3  # of the largest logit: what the order of sums may change in float32


def tap_strides(grid_stride: int = GRID_STRIDE) -> dict[str, int]:
    """The stride of each tap but the logits, which may have any."""
    return {"low": grid_stride, "mid": 2 * grid_stride, "deep": 4 * grid_stride, "high": 4 * grid_stride}


class SemanticBranch(nn.Module):
    """A semantic network of a torch module as it is; see `errseg_rt.networks.taps.SemanticNetwork`.

    Made by `from_module`. The module stays in eval mode, whatever `train` says: its norms are constants, as the method
    has a frozen network.

    Attributes:
        network: The module.
        sources: The feature map that each tap is made of.
        input: The input that the network wants.
        grid_stride: Stride of `low`; `mid` has twice as much, `deep` and `high` four times.
    """

    def __init__(
        self,
        network: nn.Module,
        sources: Mapping[str, FeatureMap],
        classes: int,
        input: InputSpec,
        *,
        align_corners: bool,
        grid_stride: int,
    ) -> None:
        super().__init__()
        self.network, self.input, self.sources = network.eval(), input, dict(sources)
        self.classes, self.align_corners, self.grid_stride = classes, align_corners, grid_stride
        self._strides = {**tap_strides(grid_stride), "logits": max(grid_stride, sources["logits"].stride)}
        self.low_channels, self.mid_channels, self.deep_channels, self.high_channels = (
            sources[tap].channels for tap in tap_strides()
        )
        self._paths = {name: MapPath.parse(source.name) for name, source in sources.items()}
        modules = {name for name, _ in network.named_modules()}
        self._recorder = Recorder(network, (path.module for path in self._paths.values() if path.module in modules))

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        taps: Mapping[str, str],
        classes: int | Sized,
        input: InputSpec = InputSpec(),  # noqa: B008 (immutable)
        *,
        align_corners: bool = False,
        state_dict: Mapping[str, Any] | str | Path | None = None,
        grid_stride: int = GRID_STRIDE,
        resize: bool = False,
    ) -> SemanticBranch:
        """A semantic branch of any network that takes an image `[B, 3, H, W]`.

        Args:
            module: The network; it is kept, not copied, and put in eval mode.
            taps: Names of its modules for `low` (stride 4), `mid` (8), `deep` (16, before the context module), `high`
                (16, after it) and `logits`. Where a module gives several tensors, the way to one follows, as
                `backbone[out]` or `encoder[2]`; `output` is what the network itself gives. Where the network has no map
                at a stride, the tap is one at the nearest, which is resized. Without `logits` they are its output.
            classes: Number of classes of the logits, or the class set.
            input: The input that the network wants; it decides the sizes of the images that it is tried on.
            align_corners: How its maps lie on the input, as `torch.nn.functional.interpolate` has it.
            state_dict: Weights to load first, or a file of them: wrapped as `errseg_rt.networks.weights` takes them.
            grid_stride: Stride of `low`: 4, or 2 or 1, with the others as much finer.
            resize: Take maps of other strides for taps too, where the network has some at the right one.

        Raises:
            DataError: The network cannot be run or taps be found, the weights do not fit, the logits have another
                number of classes, or what it gives for a frame depends on other frames or on chance.
        """
        network, count = _bare(module), classes if isinstance(classes, int) else len(classes)
        if state_dict is not None:
            load_weights(network, state_dict)
        network.eval()
        found = {each.name: each for each in feature_maps(network, input)}
        sources = _sources(taps, found, count, tap_strides(grid_stride), resize=resize)
        branch = cls(network, sources, count, input, align_corners=align_corners, grid_stride=grid_stride)
        _check(branch, input)
        for tap, stride in branch._strides.items():
            if sources[tap].stride != stride:
                _LOG.info("%s: %s, resized to stride %d", tap, sources[tap], stride)
        return branch

    def train(self, mode: bool = True) -> SemanticBranch:
        """Set the mode of what is around the network, which stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, image: Tensor) -> Taps:
        """Taps of a normalised image `[B, 3, H, W]`."""
        with DynamicPooling() if torch.compiler.is_exporting() else nullcontext():
            outputs = {OUTPUT: self.network(image)}
        outputs.update(self._recorder.take())
        maps = {name: self._map(name, path.of(outputs[path.module]), image) for name, path in self._paths.items()}
        return Taps(**maps)

    def _map(self, tap: str, value: Tensor, image: Tensor) -> Tensor:
        """A tap of what its module gave: channels first, at its stride, with sides rounded up."""
        source, stride = self.sources[tap], self._strides[tap]
        size = (image.shape[2], image.shape[3])
        if source.layout == "bhwc":
            value = value.permute(0, 3, 1, 2)
        elif source.layout == "bnc":
            value = value.transpose(1, 2).reshape(-1, source.channels, *on_stride(size, source.stride))
        return to_stride(
            value,
            source.stride,
            stride,
            on_stride(size, stride),
            fits=source.is_exact,
            align_corners=self.align_corners,
        )


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


def _sources(
    taps: Mapping[str, str], found: Mapping[str, FeatureMap], classes: int, strides: Mapping[str, int], *, resize: bool
) -> dict[str, FeatureMap]:
    """The map that each tap is made of."""
    for tap in taps:
        if tap not in Taps._fields:
            raise DataError(f"taps: there is no tap {tap!r}; {nearest(tap, Taps._fields)}")
    logits = (
        _named("logits", taps["logits"], found, channels=classes) if "logits" in taps else _only_logits(found, classes)
    )
    if logits.channels != classes:
        raise DataError(f"taps: logits: {logits} for {classes} classes; {_candidates(found, channels=classes)}")
    there = {each.stride for each in found.values() if each != logits}
    sources = {"logits": logits}
    for tap, stride in strides.items():
        taken = min(there, key=lambda each: (abs(math.log2(each / stride)), each), default=stride)
        if tap not in taps:
            raise DataError(f"taps: {tap} is not named; at stride {taken} {_candidates(found, stride=taken)}")
        source = sources[tap] = _named(tap, taps[tap], found, stride=taken)
        if source.stride != taken and not resize:
            nearest_one = "" if taken == stride else f", the nearest to {stride} that there is"
            raise DataError(
                f"taps: {tap}: {source}: wanted one of stride {taken}{nearest_one}, or resize=True; "
                f"{_candidates(found, stride=taken, like=source.name)}"
            )
    return sources


def _named(tap: str, name: str, found: Mapping[str, FeatureMap], **wanted: int) -> FeatureMap:
    if name in found:
        return found[name]
    inside = {each: found[each] for each in found if each.startswith(f"{name}[")}
    fitting = [each for each in inside.values() if all(getattr(each, key) == value for key, value in wanted.items())]
    if len(fitting) == 1:
        return fitting[0]
    why = "gives several maps" if inside else "gives no map"
    raise DataError(f"taps: {tap}: {name!r} {why}; {_candidates(inside or found, like=name, **wanted)}")


def _only_logits(found: Mapping[str, FeatureMap], classes: int) -> FeatureMap:
    """The one map of the network's output that can be its logits."""
    outputs = {name: each for name, each in found.items() if MapPath.parse(name).module == OUTPUT}
    fitting = {name: each for name, each in outputs.items() if each.channels == classes}
    for maps in (fitting, outputs):
        if len(maps) == 1:
            return next(iter(maps.values()))
    named = "which map holds the logits? Name it as taps['logits']"
    if outputs:
        raise DataError(f"{named}; as output {_candidates(fitting or outputs)}")
    raise DataError(f"the network's output holds no map; {named}; {_candidates(found, channels=classes)}")


def _candidates(
    found: Mapping[str, FeatureMap], *, stride: int | None = None, channels: int | None = None, like: str = ""
) -> str:
    """A list of maps in words: those of a stride and of so many channels, or all where there are none.

    Outer modules come first, those beside the module of the name `like` before them.
    """
    maps = list(found.values())
    fitting = [each for each in maps if stride in (None, each.stride) and channels in (None, each.channels)] or maps
    beside = like.rpartition(".")[0]
    outer = sorted(fitting, key=lambda each: (not (beside and each.name.startswith(beside)), each.name.count(".")))
    more = f" and {len(outer) - _MOST_LISTED} more" if len(outer) > _MOST_LISTED else ""
    return f"there are {', '.join(map(str, outer[:_MOST_LISTED]))}{more}" if outer else "there are no maps at all"


@torch.no_grad()
def _check(branch: SemanticBranch, spec: InputSpec) -> None:
    """Raises DataError where logits of a frame depend on the frames beside it, or on chance."""
    both = probe_image(branch.network, 2, probe_sizes(spec)[0])
    if both.is_meta:  # shapes without values
        return
    together, again, alone = (_logits(branch, image) for image in (both, both, both[:1]))
    if not _is_close(again, together):
        raise DataError(
            "the network gives other logits each time for the same image; is there dropout that eval() leaves on?"
        )
    if not _is_close(together[:1], alone):
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
