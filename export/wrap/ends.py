"""Back from a network's output to its raw logits: softmax, upsampling and argmax are done by fusion, in one pass.

Only what is provably the same is cut, but that probabilities are interpolated where the network interpolated logits:
a bilinear Resize whose grid lies as ours can, a Softmax or Sigmoid over the classes, an ArgMax, a threshold, and what
only moves axes. All else stays in the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from errseg_rt.export.engines.nodes import attributes
from errseg_rt.export.wrap.graph import constant, producers

Shape = tuple[int, ...]
_PASSED = {
    "ArgMax", "Cast", "Dropout", "Flatten", "Greater", "GreaterOrEqual", "Identity", "LogSoftmax", "Mul", "Reshape",
    "Resize", "Sigmoid", "Softmax", "Squeeze", "Transpose", "Unsqueeze", "Upsample",
}  # fmt: skip
_MOVES = {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}
_ALIGNMENTS = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}
_REPEATING = {
    ("asymmetric", "floor"),
    *((mode, "round_prefer_floor") for mode in ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn")),
}  # ways of nearest neighbours by whole factors that repeat each pixel
_FLATTENS = 13  # opset before which Softmax takes all axes from its own on for one


@dataclass(frozen=True)
class Ends:
    """Where a network is cut, and what the parts behind that say.

    Attributes:
        tensor: The last tensor that is kept.
        roles: What its axes are, a letter each: N frames, K classes, H rows, W columns, P pixels, 1 nothing.
        activation: `"softmax"` or `"sigmoid"`, if one was cut.
        has_labels: Whether an ArgMax, or a threshold, was cut.
        threshold: The value above which one channel is its class, if that was cut.
        align_corners: How the grid lies on the input by a Resize that was cut; None: none was.
        nearest: Factors on rows and columns of a nearest-neighbour Resize of labels, which does as well before the
            ArgMax; None: there is none.
        cut: Operators that were cut, from the kept tensor on.
    """

    tensor: str
    roles: str
    activation: str | None = None
    has_labels: bool = False
    threshold: float | None = None
    align_corners: bool | None = None
    nearest: tuple[int, int] | None = None
    cut: tuple[str, ...] = ()


def tail(graph: onnx.GraphProto, output: str) -> list[str]:
    """Tensors that a walk back from an output may come to, the output first."""
    made, names = producers(graph), [output]
    while (node := made.get(names[-1])) is not None and node.op_type in _PASSED:
        names.append(_data(graph, node))
    return names


def _data(graph: onnx.GraphProto, node: onnx.NodeProto) -> str:
    """What a node works on."""
    if node.op_type == "Mul" and constant(graph, node.input[0]) is not None:
        return str(node.input[1])
    return str(node.input[0])


def find_ends(
    graph: onnx.GraphProto,
    output: str,
    shapes: Mapping[str, Shape],
    size: tuple[int, int],
    batch: int,
    opset: int,
    by_pixel: bool,
    keep_resize: bool = False,
) -> Ends | None:
    """Walk back from an output.

    Args:
        graph: The network's.
        output: The tensor to begin with.
        shapes: Of the tensors of its `tail`, on an input of `size` and `batch`.
        size: Rows and columns of the input.
        batch: Frames of the input.
        opset: Of the graph.
        by_pixel: Whether the input has its channels last, as the output may, too.
        keep_resize: Whether a Resize shall stay in the network.

    Returns:
        None where the output's axes are not those of a segmentation.
    """
    starts = _roles(shapes[output], size, batch, by_pixel)
    walks = [_Walk(graph, shapes, size, opset, keep_resize).back(Ends(output, roles)) for roles in starts]
    return max(walks, key=lambda ends: len(ends.cut), default=None)  # the first of the longest


def _roles(shape: Shape, size: tuple[int, int], batch: int, by_pixel: bool) -> list[str]:
    """What the axes of an output may be, the likeliest first."""
    known = {4: ["NKHW", "NHWK"], 3: ["NHW", "KHW", "HWK", "NPK", "NKP"], 2: ["HW"]}.get(len(shape), [])
    if by_pixel:
        known = sorted(known, key=lambda roles: not roles.endswith("K"))
    return [roles for roles in known if _fits(dict(zip(roles, shape, strict=True)), size, batch)]


def _fits(sides: Mapping[str, int], size: tuple[int, int], batch: int) -> bool:
    """Whether an output's sides are those of a map of all frames, with as large steps along rows as along columns."""
    if sides.get("N", batch if "N" in sides else 1) != batch or ("N" not in sides and batch != 1):
        return False
    if "P" in sides:
        return stride_of_pixels(sides["P"], size) is not None
    return any(grid_of(size, step) == (sides["H"], sides["W"]) for step in steps(size, (sides["H"], sides["W"]))) or (
        abs(sides["H"] * size[1] - sides["W"] * size[0]) <= max(size) and sides["W"] > 1
    )


def grid_of(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The map of a stride over an input."""
    return -(-size[0] // stride), -(-size[1] // stride)


def steps(size: tuple[int, int], grid: tuple[int, int]) -> Sequence[int]:
    """Strides that make this grid of an input; the likeliest, a power of two, first."""
    near = max(1, round(size[0] / max(grid[0], 1)))
    fitting = [step for step in range(max(1, near - 2), near + 3) if grid_of(size, step) == grid]
    return sorted(fitting, key=lambda step: (step & (step - 1) != 0, abs(step - size[0] / grid[0])))


def stride_of_pixels(pixels: int, size: tuple[int, int]) -> int | None:
    """The stride of a map that has so many pixels, if there is one."""
    for stride in (1, 2, 4, 8, 16, 32):
        height, width = grid_of(size, stride)
        if height * width == pixels:
            return stride
    return None


class _Walk:
    """One walk back."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        shapes: Mapping[str, Shape],
        size: tuple[int, int],
        opset: int,
        keep_resize: bool,
    ) -> None:
        self.graph, self.shapes, self.size, self.opset, self.keep_resize = graph, shapes, size, opset, keep_resize
        self.made = producers(graph)

    def back(self, ends: Ends) -> Ends:
        """The farthest that can be gone."""
        best, is_pending = ends, False  # what only labels may be put through, before what makes them is found
        while (node := self.made.get(ends.tensor)) is not None and node.op_type in _PASSED:
            before = _data(self.graph, node)
            step = self._step(node, before, ends)
            if step is None or before not in self.shapes:
                break
            if not ends.has_labels and (node.op_type == "Mul" or (node.op_type == "Cast" and not _is_float(node))):
                is_pending = True
            ends = replace(step, tensor=before, cut=(node.op_type, *ends.cut))
            if ends.has_labels or not is_pending:
                best = ends
        return best

    def _step(self, node: onnx.NodeProto, data: str, ends: Ends) -> Ends | None:
        """What is known before a node, if it may be cut."""
        op, says = node.op_type, attributes(node)
        before, after = self.shapes.get(data, ()), self.shapes[node.output[0]]
        if op in ("Identity", "Dropout", "Cast"):
            return ends
        if op == "Mul":  # as of a mask of 0 and 255; of logits it would change what softmax makes of them
            other = next((each for each in node.input if each != data), data)
            factor = constant(self.graph, other)
            scales = factor is not None and factor.size == 1 and bool(factor.reshape(-1)[0] > 0)
            return ends if scales and not ends.has_labels and not ends.activation else None
        if op == "Transpose":
            order = says.get("perm") or list(range(len(after)))[::-1]
            roles = [""] * len(after)
            for role, axis in zip(ends.roles, order, strict=True):
                roles[axis] = role
            return replace(ends, roles="".join(roles))
        if op in _MOVES:
            moved = _moved(ends.roles, after, before, self.size)
            return None if moved is None else replace(ends, roles=moved)
        if op in ("Softmax", "LogSoftmax"):
            axis = int(says.get("axis", 1 if self.opset < _FLATTENS else -1)) % len(before)
            # One over several axes at once has the same logits: what they all share is of no matter to a class.
            over = ends.roles[axis:] if self.opset < _FLATTENS else ends.roles[axis]
            fits = "K" in over and _side(ends.roles, before, "K") > 1 and ends.activation is None
            return replace(ends, activation="softmax") if fits else None
        if op == "Sigmoid":
            return replace(ends, activation="sigmoid") if ends.activation is None else None
        if op == "ArgMax":
            return self._before_argmax(ends, says, len(before))
        if op in ("Greater", "GreaterOrEqual"):
            level = constant(self.graph, node.input[1])
            one = _side(ends.roles, after, "K") == 1 and level is not None and level.size == 1
            if not one or ends.has_labels or ends.activation or level is None:
                return None
            return replace(ends, has_labels=True, threshold=float(level.reshape(-1)[0]))
        return self._before_resize(node, ends, before, after)

    def _before_argmax(self, ends: Ends, says: Mapping[str, Any], rank: int) -> Ends | None:
        if ends.has_labels or ends.activation or ends.align_corners is not None:
            return None
        axis = int(says.get("axis", 0)) % rank
        roles = ends.roles.replace("K", "1")
        if not says.get("keepdims", 1):
            return replace(ends, has_labels=True, roles=roles[:axis] + "K" + roles[axis:])
        if roles[axis] != "1":
            return None
        return replace(ends, has_labels=True, roles=roles[:axis] + "K" + roles[axis + 1 :])

    def _before_resize(self, node: onnx.NodeProto, ends: Ends, before: Shape, after: Shape) -> Ends | None:
        """A Resize of rows and columns alone, each taken for what it does to a grid."""
        if len(before) != len(after) or "H" not in ends.roles or "W" not in ends.roles:
            return None
        says = attributes(node)
        if before == after and says.get("coordinate_transformation_mode") != "tf_crop_and_resize":
            return ends
        if any(a != b for role, a, b in zip(ends.roles, before, after, strict=True) if role not in "HW"):
            return None
        mode, rows, cols = says.get("mode", "nearest"), ends.roles.index("H"), ends.roles.index("W")
        asymmetric = node.op_type == "Upsample" or self.opset < 11
        coordinates = "asymmetric" if asymmetric else says.get("coordinate_transformation_mode", "half_pixel")
        if mode == "nearest":
            factors = after[rows] // before[rows], after[cols] // before[cols]
            exact = tuple(side * factor for side, factor in zip((before[rows], before[cols]), factors, strict=True))
            rounds = "floor" if asymmetric else says.get("nearest_mode", "round_prefer_floor")
            repeats = (coordinates, rounds) in _REPEATING and exact == (after[rows], after[cols])
            fits = (
                ends.nearest is None and not ends.has_labels and ends.align_corners is None and ends.activation is None
            )
            return replace(ends, nearest=factors) if fits and repeats else None
        if self.keep_resize:
            return None
        grows = after[rows] >= before[rows] and after[cols] >= before[cols]
        stretches = says.get("keep_aspect_ratio_policy", "stretch") == "stretch"
        reaches = (after[rows], after[cols]) == self.size or not steps(self.size, (after[rows], after[cols]))
        fits = ends.align_corners is None and ends.nearest is None and reaches and stretches and grows
        fits = fits and mode in ("linear", "bilinear") and coordinates in _ALIGNMENTS
        return replace(ends, align_corners=_ALIGNMENTS[str(coordinates)]) if fits else None


def _is_float(node: onnx.NodeProto) -> bool:
    """Whether a Cast gives floats."""
    return onnx.helper.tensor_dtype_to_np_dtype(int(attributes(node)["to"])).kind not in "iub"


def _side(roles: str, shape: Shape, role: str) -> int:
    return shape[roles.index(role)] if role in roles else 1


def _moved(roles: str, after: Shape, before: Shape, size: tuple[int, int]) -> str | None:
    """What the axes were before axes of length 1 came or went, or rows and columns became one axis of pixels."""
    large = [(role, side) for role, side in zip(roles, after, strict=True) if side > 1]
    names: list[str] = []
    for side in before:
        if side == 1:
            names.append("1")
        elif large and large[0][1] == side:
            names.append(large.pop(0)[0])
        elif large and large[0][0] == "P" and "H" not in names:
            names.append("H")
        elif large and large[0][0] == "P" and names[-1] == "H" and before[len(names) - 1] * side == large[0][1]:
            names.append("W")
            large.pop(0)
        else:
            return None
    return None if large or np.prod(before) != np.prod(after) else "".join(names)
