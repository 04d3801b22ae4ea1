"""`errseg-rt taps`: which tensors of a network the branches can work on."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.cli.options import JsonOption, print_json, print_table
from errseg_rt.errors import DataError, EngineError
from errseg_rt.taps.chosen import TAPS
from errseg_rt.taps.maps import FeatureMap, Maps, grid_stride_of, tap_strides
from errseg_rt.taps.proposal import propose


def taps(
    network: Annotated[
        str,
        typer.Argument(
            metavar="MODEL.onnx|BUNDLE|NAME",
            help="The network's file, or a bundle that wrap made of it; or a torch network, by the name that recipes "
            "have for it or as package.module:factory.",
        ),
    ],
    logits: Annotated[
        str | None, typer.Option(metavar="NAME", help="The tensor that holds the classes; default: the only output.")
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(
            metavar="1|2|4", help="Stride of the grid that the branches work on; default: the logits', at most 4."
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Number of classes, for a torch network that is made of it.")
    ] = None,
    multiple: Annotated[
        int, typer.Option(min=1, metavar="N", help="Of which the sides of a torch network's input are multiples.")
    ] = 32,
    every: Annotated[
        bool, typer.Option("--all", help="List every tensor, also those that only a norm or an activation reads.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the tensors of a network that the branches can work on, and propose taps to train them with."""
    if grid not in (None, 1, 2, 4):
        raise typer.BadParameter(f"{grid} is none of 1, 2, 4.", param_hint="'--grid'")
    if _is_torch(network):
        maps, name = _of_module(network, classes, multiple, logits)
    else:
        maps, name, classes = _of_file(Path(network), logits)
    stride = grid or grid_stride_of(maps, name)
    proposed = propose(maps, name, stride)
    strides = {**tap_strides(stride), "logits": max(stride, proposed["logits"].map.stride)}
    listed = [each for each in maps.all if every or each.is_end]
    option = ",".join(f"{tap}={proposed[tap].map.name}" for tap in TAPS if tap != "logits")
    if logits:
        option += f",logits={logits}"
    if as_json:
        print_json(
            {
                "network": network,
                "classes": classes or maps[name].channels,
                "grid_stride": stride,
                "tensors": [_entry(each, maps.operators) for each in listed],
                "proposed": {
                    tap: {
                        "name": proposed[tap].map.name,
                        "stride": proposed[tap].map.stride,
                        "wanted_stride": strides[tap],
                        "reason": proposed[tap].reason,
                    }
                    for tap in TAPS
                },
                "taps": option,
            }
        )
        return
    rows = [
        [each.name, str(each.stride), str(each.channels), f"{each.depth} of {maps.operators}", each.made_by]
        for each in listed
    ]
    print_table(f"Tensors of {network}", ["name", "stride", "channels", "operator", "made by"], rows)
    rows = []
    for tap in TAPS:
        found, wanted = proposed[tap].map, strides[tap]
        how = "" if found.stride == wanted else f"; resized from stride {found.stride}"
        rows.append([tap, str(wanted), found.name, f"{proposed[tap].reason}{how}"])
    print_table(f"Proposed, for a grid of stride {stride}", ["tap", "stride", "tensor", "why"], rows)
    print(f"--taps {shlex.quote(option)}")


def _is_torch(network: str) -> bool:
    """Whether it is the name of a torch network, not a file."""
    if Path(network).exists():
        return False
    return re.fullmatch(r"[\w.]+:[\w.]+|[\w-]+", network) is not None


def _of_file(path: Path, logits: str | None) -> tuple[Maps, str, int]:
    """Feature maps of an ONNX file or a bundle, the name of the logits, and the number of classes."""
    try:
        from errseg_rt.export.network_file import open_network
    except ModuleNotFoundError as error:
        raise EngineError(f"onnx is not installed ({error}): pip install 'errseg-rt[build]'") from error
    opened = open_network(path, logits=logits)
    return opened.maps(), opened.logits, opened.classes


def _of_module(name: str, classes: int | None, multiple: int, logits: str | None) -> tuple[Maps, str]:
    """The same of a torch network."""
    try:
        from errseg_rt.networks.module_maps import module_maps, module_of
    except ModuleNotFoundError as error:
        raise EngineError(f"torch is not installed ({error}): pip install 'errseg-rt[torch]'") from error
    sys.path.insert(0, "")  # as python -m has it, for modules in the working folder
    maps, given = module_maps(module_of(name, classes), InputSpec(multiple=multiple))
    if logits is None and len(given) != 1:
        named = f"it gives {', '.join(given)}" if given else "it gives no map [1, channels, height, width]"
        raise DataError(f"{name}: {named}; name the class logits by --logits, one of the tensors of its modules")
    return maps, logits or given[0]


def _entry(each: FeatureMap, operators: int) -> dict[str, Any]:
    return {
        "name": each.name,
        "stride": each.stride,
        "channels": each.channels,
        "operator": each.depth,
        "operators": operators,
        "made_by": each.made_by,
    }
