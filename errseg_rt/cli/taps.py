"""`errseg-rt taps`: which tensors of a network the branches can work on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from errseg_rt.cli.options import JsonOption, print_json, print_table
from errseg_rt.errors import EngineError
from errseg_rt.taps.chosen import TAPS
from errseg_rt.taps.maps import FeatureMap, tap_strides


def taps(
    network: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx|BUNDLE", help="The network's file, or a bundle that wrap made of it.")
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
    every: Annotated[
        bool, typer.Option("--all", help="List every tensor, also those that only a norm or an activation reads.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the tensors of a network that the branches can work on, and propose taps to train them with."""
    try:
        from errseg_rt.export.network_file import open_network
    except ModuleNotFoundError as error:
        raise EngineError(f"onnx is not installed ({error}): pip install 'errseg-rt[build]'") from error
    if grid not in (None, 1, 2, 4):
        raise typer.BadParameter(f"{grid} is none of 1, 2, 4.", param_hint="'--grid'")
    opened = open_network(network, logits=logits)
    maps = opened.maps()
    stride = grid or opened.grid_stride(maps)
    proposed = opened.proposed(maps, stride)
    strides = {**tap_strides(stride), "logits": max(stride, proposed["logits"].map.stride)}
    listed = [each for each in maps.all if every or each.is_end]
    option = ",".join(f"{tap}={proposed[tap].map.name}" for tap in TAPS if tap != "logits")
    if logits:
        option += f",logits={logits}"
    if as_json:
        print_json(
            {
                "network": str(network),
                "classes": opened.classes,
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
    print_table(f"Tensors of {network.name}", ["name", "stride", "channels", "operator", "made by"], rows)
    rows = []
    for tap in TAPS:
        found, wanted = proposed[tap].map, strides[tap]
        how = "" if found.stride == wanted else f"; resized from stride {found.stride}"
        rows.append([tap, str(wanted), found.name, f"{proposed[tap].reason}{how}"])
    print_table(f"Proposed, for a grid of stride {stride}", ["tap", "stride", "tensor", "why"], rows)
    print(f"--taps {_quoted(option)}")


def _entry(each: FeatureMap, operators: int) -> dict[str, Any]:
    return {
        "name": each.name,
        "stride": each.stride,
        "channels": each.channels,
        "operator": each.depth,
        "operators": operators,
        "made_by": each.made_by,
    }


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
