"""The innermost loop of refinement on the CPU: a tile of pixels by output channels, held in vector registers.

The pixels of a tile may lie anywhere: each brings its own addresses ("corners") in the source, so nothing is gathered
before the multiplication. numba cannot be told to keep a tile in registers; its LLVM can, so the tile is written as
LLVM code with vector types, which becomes AVX-512, AVX2, NEON or whatever the machine has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from errseg_rt.kernels.refine.vector_code import LANES, REGISTERS, VectorCode

# Pixels of a tile by vectors of output channels (1, 2 or 3). One register holds the pixel's value, some the weights.
PIXELS = {vectors: min(14, (REGISTERS - 1 - vectors) // vectors) for vectors in (1, 2, 3)}


def _tile(vectors: int) -> Callable[..., Any]:
    """Make a tile of so many vectors of output channels.

    For each pixel m of the tile and channels n from `column`, all that `vectors` vectors hold, it does

        out[places[first + m] + n] = max(floor, out[places[first + m] + n] + sum over i, j, k of
            source[corners[first + m, i] + j * stride + k] * weights[panel + (i * size + j) * depth + k, n - column])

    Nothing is checked. A pixel may come twice in a tile, but not in two tiles that are computed at the same time.

    Args of what is made:
        source: float32 [:].
        corners: int64 [:, rows], where the pixels under each row of the kernel begin in the source.
        first: First pixel of the tile.
        size: Kernel width, 3 or 1.
        stride: Floats from pixel to pixel in the source.
        depth: Input channels.
        weights: float32 [:], read in order from `panel` on.
        panel: Where the weights of these output channels begin.
        out: float32 [:], added to.
        places: int64 [:], where each pixel begins in `out`.
        column: First output channel.
        floor: float32, 0 for ReLU, -inf for none.
    """
    pixels = PIXELS[vectors]

    @intrinsic
    def tile(
        _typing: Any, source: Any, corners: Any, first: Any, size: Any, stride: Any, depth: Any, weights: Any,
        panel: Any, out: Any, places: Any, column: Any, floor: Any,
    ) -> Any:  # fmt: skip
        index = types.intp
        signature = types.void(
            source, corners, index, index, index, index, weights, index, out, places, index, types.float32
        )

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def array(n: int) -> Any:
                return context.make_array(signature.args[n])(context, builder, arguments[n])

            source, corners, weights, out, places = (array(n) for n in (0, 1, 6, 8, 9))
            first, size, stride, depth, panel, column, floor = (arguments[n] for n in (2, 3, 4, 5, 7, 10, 11))
            rows = cgutils.unpack_tuple(builder, corners.shape)[1]
            code = VectorCode(builder)

            targets = []
            for m in range(pixels):
                place = builder.load(code.at(places.data, first, code.index(m)))
                targets += [code.at(out.data, place, column, code.index(v * LANES)) for v in range(vectors)]

            def kernel_row(i: Any, carried: list[Any]) -> list[Any]:
                begins = []
                for m in range(pixels):
                    at = builder.add(builder.mul(code.plus(first, m), rows), i)
                    begins.append(code.at(source.data, builder.load(code.at(corners.data, at))))

                def neighbour(j: Any, carried: list[Any]) -> list[Any]:
                    inputs = [code.at(begin, builder.mul(j, stride)) for begin in begins]

                    def channel(k: Any, carried: list[Any]) -> list[Any]:
                        weight, *sums = carried
                        factors = [code.load(code.at(weight, code.index(v * LANES))) for v in range(vectors)]
                        for m in range(pixels):
                            value = code.splat(builder.load(code.at(inputs[m], k)))
                            for v in range(vectors):
                                n = m * vectors + v
                                sums[n] = code.fma(value, factors[v], sums[n])
                        return [code.at(weight, code.index(vectors * LANES)), *sums]

                    return code.loop(depth, channel, carried)

                return code.loop(size, neighbour, carried)

            start = [code.at(weights.data, panel), *(code.load(target) for target in targets)]
            _, *sums = code.loop(rows, kernel_row, start)
            floors = code.splat(floor)
            for target, value in zip(targets, sums, strict=True):
                code.store(code.larger(value, floors), target)
            return context.get_dummy_value()

        return signature, generate

    return tile


tile1, tile2, tile3 = _tile(1), _tile(2), _tile(3)
