"""What can be read of a network: in its file, and by running it on made-up inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from errseg_rt.errors import DataError
from errseg_rt.export.engines.nodes import attributes, every_node
from errseg_rt.export.wrap.ends import Ends, find_ends, grid_of, steps, stride_of_pixels, tail
from errseg_rt.export.wrap.graph import tensor_names
from errseg_rt.export.wrap.probe import Probe, noise
from errseg_rt.export.wrap.reading import opset
from errseg_rt.system.fields import nearest
from errseg_rt.system.lines import one_line

Size = tuple[int, int]
_SIZES: tuple[Size, ...] = (
    (256, 384),
    (257, 385),
    (512, 768),
    (513, 769),
    (224, 336),
    (448, 672),
)  # tried where a network takes any
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128, 14, 28, 56)  # powers of two, and patches of vision transformers
_SIDES = (193, 230, 199, 238)  # the least of the inputs that are tried for a multiple
_LEAST_SIDE = 8  # of an input
_ONE_SCALE = "DynamicQuantizeLinear"  # for the whole batch: such networks are right for one frame at a time
_SAME = 1e-3  # of the largest value: more is no rounding
_ALIGNMENTS = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}


@dataclass(frozen=True)
class Input:
    """The input of a network.

    Attributes:
        name: Its name.
        dtype: What it takes.
        layout: Its axes, of N, C, H and W.
        channels: 3, or 1 for grey.
        batch: Frames at a time, if it takes no other number.
        size: Height and width, each None where it takes any.
    """

    name: str
    dtype: np.dtype[Any]
    layout: str
    channels: int
    batch: int | None
    size: tuple[int | None, int | None]

    def noise(self, size: Size, seed: int = 0, batch: int | None = None) -> npt.NDArray[Any]:
        """An input of a size, made up."""
        sides = {"C": self.channels, "H": size[0], "W": size[1]}
        shape = [sides[axis] for axis in self.layout if axis != "N"]
        count = (batch or self.batch or 1) if "N" in self.layout else 1
        frames = [noise(shape, self.dtype, seed + index) for index in range(count)]
        return np.stack(frames) if "N" in self.layout else frames[0]

    @property
    def fixed(self) -> Size | None:
        """The size that it takes, if it takes no other."""
        height, width = self.size
        return (height, width) if height and width else None


@dataclass(frozen=True)
class Looks:
    """What was read of a network.

    Attributes:
        input: Its input.
        output: The output that was asked for, or is the only one.
        ends: Where it is cut.
        size: Height and width at which it was looked at.
        channels: Of the kept tensor.
        grid: Rows and columns of the kept tensor.
        values: The kept tensor of the first frame, `float64 [channels, h, w]`.
        dtype: Of the kept tensor.
        resizes: How the other Resizes of the network align grids, where they all do so in one way.
    """

    input: Input
    output: str
    ends: Ends
    size: Size
    channels: int
    grid: Size
    values: npt.NDArray[np.float64]
    dtype: np.dtype[Any]
    resizes: bool | None

    @property
    def stride(self) -> int | None:
        """Input pixels from one pixel of the grid to the next; None: no whole number makes it."""
        return next(iter(steps(self.size, self.full_grid)), None)

    @property
    def full_grid(self) -> Size:
        """The grid after a nearest-neighbour Resize that stays."""
        rows, cols = self.ends.nearest or (1, 1)
        return self.grid[0] * rows, self.grid[1] * cols


def look(model: onnx.ModelProto, path: Path, output: str | None, size: Size | None, keep_resize: bool = False) -> Looks:
    """Look at a network.

    Args:
        model: As `load_model` gives it.
        path: Its file, for messages.
        output: The output that is wanted, if there are several; any tensor's name does.
        size: The height and width at which it shall be run, where it takes any.
        keep_resize: Whether a Resize at its end shall stay in it.

    Raises:
        DataError: What was wanted is not there, or this is no network that labels the pixels of a picture.
    """
    graph = model.graph
    output = _output(graph, path, output)
    names = [name for name in tail(graph, output) if name not in {value.name for value in graph.input}]
    probe = Probe(model, names, str(path))
    given, taken, found = _first_run(probe, _inputs(graph, path, size), size)
    shapes = {name: tuple(array.shape) for name, array in found.items()}
    batch = given.batch or 1
    ends = find_ends(graph, output, shapes, taken, batch, opset(model), given.layout.endswith("C"), keep_resize)
    if ends is None:
        raise DataError(
            f"{path}: output {one_line(output)} has the shape {_shown(shapes[output])} for an input of "
            f"{_shown(taken)}, which is no map of classes; give --output NAME of one: {_listed(graph)}"
        )
    kept = found[ends.tensor]
    values = in_order(kept, ends.roles, taken)[0].astype(np.float64)
    return Looks(
        given,
        output,
        ends,
        taken,
        len(values),
        (values.shape[1], values.shape[2]),
        values,
        kept.dtype,
        _resizes(graph),
    )


def in_order(array: npt.NDArray[Any], roles: str, size: Size) -> npt.NDArray[Any]:
    """An array whose axes have these roles as `[N, K, h, w]`."""
    if "P" in roles:
        at = roles.index("P")
        stride = stride_of_pixels(array.shape[at], size) or 1
        array = array.reshape(*array.shape[:at], *grid_of(size, stride), *array.shape[at + 1 :])
        roles = roles.replace("P", "HW")
    roles = resolved(roles)
    array = array.squeeze(tuple(axis for axis, role in enumerate(roles) if role == "1"))
    roles = roles.replace("1", "")
    array = array.transpose([roles.index(role) for role in "NKHW" if role in roles])
    return np.expand_dims(array, [axis for axis, role in enumerate("NKHW") if role not in roles])


def resolved(roles: str) -> str:
    """Axes of length 1 that are the frames', or the classes', where no other axis is."""
    for role in "NK":
        if role not in roles:
            roles = roles.replace("1", role, 1)
    return roles


def takes(model: onnx.ModelProto, path: Path, looks: Looks) -> int:
    """The least number of which both sides of an input must be multiples.

    Raises:
        DataError: It takes no sizes but the one at which it was looked at.
    """
    probe = Probe(model, [looks.ends.tensor], str(path))
    stride = looks.stride or 1
    for multiple in _MULTIPLES:
        sides = [multiple * -(-side // multiple) for side in _SIDES]
        sides = [side if side // multiple % 2 else side + multiple for side in sides]
        if all(_runs(probe, looks, size, stride) for size in (sides[:2], sides[2:])):
            return multiple
    raise DataError(
        f"{path}: does not give maps of stride {stride} on inputs of any size, though the file says that it takes "
        "them; give --size HxW, the size that it was made for"
    )


def _runs(probe: Probe, looks: Looks, sides: list[int], stride: int) -> bool:
    size = sides[0], sides[1]
    try:
        found = probe.run({looks.input.name: looks.input.noise(size)})[looks.ends.tensor]
        height, width = in_order(found, looks.ends.roles, size).shape[2:]
    except (DataError, ValueError):
        return False
    rows, cols = looks.ends.nearest or (1, 1)
    return (height * rows, width * cols) == grid_of(size, stride)


def alone(model: onnx.ModelProto, path: Path, looks: Looks) -> tuple[onnx.ModelProto, Looks, bool]:
    """A network of a fixed batch for one frame, where its graph takes that as well, and whether it does."""
    given = looks.input
    if not given.batch or given.batch == 1:
        return model, looks, False
    single = onnx.ModelProto.FromString(model.SerializeToString())
    del single.graph.value_info[:]
    for value in single.graph.input:
        if value.name == given.name:
            value.type.tensor_type.shape.dim[given.layout.index("N")].dim_value = 1
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        changed = replace(looks, input=replace(given, batch=1))
        found = _values(Probe(single, [looks.ends.tensor], str(path)), changed, given.noise(looks.size, batch=1))
    except (DataError, ValueError):
        return model, looks, False
    return (single, replace(changed, values=found), True) if _alike(found, looks.values) else (model, looks, False)


def frames_apart(model: onnx.ModelProto, path: Path, looks: Looks) -> Looks:
    """Hold a network to giving a frame the same values whatever frames are beside it.

    Returns:
        What was read, with a batch of 1 where the file says any number and the graph is right for that alone.

    Raises:
        DataError: It does not.
    """
    given, size = looks.input, looks.size
    if "N" not in given.layout or given.batch == 1:
        return looks
    if given.batch is None and any(node.op_type == _ONE_SCALE for node in every_node(model.graph)):
        return replace(looks, input=replace(given, batch=1))
    beside = given.noise(size, batch=given.batch or 2)
    beside[1:] = -beside[1:] if given.dtype.kind == "f" else 255 - beside[1:]
    try:
        together = _values(Probe(model, [looks.ends.tensor], str(path)), looks, beside)
    except (DataError, ValueError):
        if given.batch is None:
            return replace(looks, input=replace(given, batch=1))
        raise
    if not _alike(together, looks.values):
        raise DataError(
            f"{path}: what it gives for a frame depends on the other frames of its batch, as with batch statistics in "
            "training mode; call eval() on it before it is exported"
        )
    return looks


def _values(probe: Probe, looks: Looks, image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    found = probe.run({looks.input.name: image})[looks.ends.tensor]
    return np.asarray(in_order(found, looks.ends.roles, looks.size)[0], np.float64)


def _alike(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> bool:
    with np.errstate(invalid="ignore"):
        return bool(np.allclose(a, b, rtol=_SAME, atol=_SAME * float(np.abs(b).max()), equal_nan=True))


def _output(graph: onnx.GraphProto, path: Path, output: str | None) -> str:
    if output is None:
        if len(graph.output) > 1:
            raise DataError(
                f"{path}: has {len(graph.output)} outputs; say by --output NAME which one: {_listed(graph)}"
            )
        return str(graph.output[0].name)
    if output not in {name for node in graph.node for name in node.output}:
        hint = nearest(output, [value.name for value in graph.output] or tensor_names(graph))
        raise DataError(f"{path}: has no tensor {one_line(output)} for --output; {one_line(hint)}")
    return output


def _inputs(graph: onnx.GraphProto, path: Path, size: Size | None) -> list[Input]:
    """What the input may be, the likeliest first."""
    used = {name for node in every_node(graph) for name in node.input}
    values = [value for value in graph.input if value.name in used]
    if len(values) != 1:
        raise DataError(
            f"{path}: has {len(values)} inputs ({', '.join(one_line(value.name) for value in values)}); "
            "export it with the image as its only one"
        )
    (value,) = values
    tensor = value.type.tensor_type
    sides = [dim.dim_value or None for dim in tensor.shape.dim]
    where = f"{path}: its input {one_line(value.name)} {_shown(sides)}"
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError:
        dtype = np.dtype(object)
    if dtype.kind not in "fiu":
        raise DataError(f"{where} takes no numbers")
    known = {4: ("NCHW", "NHWC"), 3: ("CHW", "HWC")}.get(len(sides), ())
    found = []
    for layout in known:
        by_axis = dict(zip(layout, sides, strict=True))
        declared = by_axis["C"]
        if any(side is not None and side < _LEAST_SIDE for side in (by_axis["H"], by_axis["W"])):
            continue  # channels, taken for rows or columns
        for channels in (3, 1):
            if declared in (channels, None):
                item = Input(value.name, dtype, layout, channels, by_axis.get("N"), (by_axis["H"], by_axis["W"]))
                found.append((declared is None, channels != 3, item))
    if not found:
        raise DataError(f"{where} is no image of 3 channels, or 1; export it with the image as its only input")
    items = [item for _, _, item in sorted(found, key=lambda each: each[:2])]
    fitting = [item for item in items if not size or all(map(_takes_side, item.size, size))]
    if not fitting:
        raise DataError(f"{where} takes no other size; leave out --size")
    return fitting


def _takes_side(side: int | None, wanted: int) -> bool:
    return side in (None, wanted)


def _first_run(probe: Probe, inputs: list[Input], size: Size | None) -> tuple[Input, Size, dict[str, npt.NDArray[Any]]]:
    """The first input that the network runs on, and what it gives."""
    fault: DataError | None = None
    for given in inputs:
        height, width = given.size
        sizes = [given.fixed] if given.fixed else [size] if size else list(_SIZES)
        for tried in sizes:
            if tried is None:
                continue
            taken = (height or tried[0], width or tried[1])
            try:
                return given, taken, probe.run({given.name: given.noise(taken)})
            except DataError as error:
                fault = fault or error
    assert fault is not None
    raise fault


def _resizes(graph: onnx.GraphProto) -> bool | None:
    """Whether Resizes align corners, where all that interpolate agree."""
    found = set()
    for node in every_node(graph):
        says = attributes(node)
        if node.op_type == "Resize" and says.get("mode") in ("linear", "cubic"):
            found.add(_ALIGNMENTS.get(str(says.get("coordinate_transformation_mode", "half_pixel"))))
        elif node.op_type == "Upsample" and says.get("mode") in ("linear", "bilinear"):
            found.add(None)
    return found.pop() if len(found) == 1 else None


def _listed(graph: onnx.GraphProto) -> str:
    return ", ".join(
        f"{one_line(value.name)} {_shown([dim.dim_value or None for dim in value.type.tensor_type.shape.dim])}"
        for value in graph.output
    )


def _shown(sides: Any) -> str:
    return "x".join("?" if side is None else str(side) for side in sides) or "(no shape)"
