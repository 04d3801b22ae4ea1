"""The kernels of selection for GPUs: flags, supports numbered in raster order, and the work of every prefix.

Nothing depends on the order in which programs run: counts are written by block, and work is added in integers.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Integers that are no constants of the kernels: one compiled kernel serves every size.
SIZES = ["height", "width"]


@triton.jit(do_not_specialize=[*SIZES, "rows", "cols"])
def flag(
    error_logit,  # [h, w]
    level,
    height,
    width,
    rows,  # seen, like cols
    cols,
    flagged,  # [h, w] bool, written
    PIXELS: tl.constexpr,  # of a tile, here and below
):
    """Flag what exceeds the level, in the part of the grid that is seen."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    in_grid = pixel < height * width
    value = tl.load(error_logit + pixel, mask=in_grid, other=0).to(tl.float32)
    is_seen = (pixel // width < rows) & (pixel % width < cols)
    tl.store(flagged + pixel, (value > level) & is_seen, mask=in_grid)


@triton.jit(do_not_specialize=[*SIZES, "work1", "work2", "work3"])
def add_work(
    rank,  # [h, w] int32, h * w where not flagged
    height,
    width,
    work1,  # multiply-adds of a pixel of F1
    work2,
    work3,
    work,  # [h * w] int64, added to: what each pixel adds when it enters after those of lower rank
    PIXELS: tl.constexpr,
):
    """Add the work of each pixel of the supports to that of the rank with which it enters."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    never = height * width
    entry3 = neighbour(rank, pixel, 0, 0, height, width, never)
    entry2, entry1 = entry3, entry3
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            other = neighbour(rank, pixel, dy, dx, height, width, never)
            entry1 = tl.minimum(entry1, other)
            entry2 = tl.where(is_near(dy, dx), tl.minimum(entry2, other), entry2)
    tl.atomic_add(work + entry1, work1 + tl.zeros_like(entry1).to(tl.int64), mask=entry1 < never)
    tl.atomic_add(work + entry2, work2 + tl.zeros_like(entry2).to(tl.int64), mask=entry2 < never)
    tl.atomic_add(work + entry3, work3 + tl.zeros_like(entry3).to(tl.int64), mask=entry3 < never)


@triton.jit(do_not_specialize=SIZES)
def count(
    flagged,  # [h, w] bool
    height,
    width,
    sums,  # [3, tiles] int32, written: pixels of F1, F2 and F3 in each tile
    PIXELS: tl.constexpr,
):
    """Count the pixels of the supports, tile by tile."""
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    in1, in2, in3 = supports(flagged, tile * PIXELS + tl.arange(0, PIXELS), height, width)
    tl.store(sums + tile, tl.sum(in1, axis=0))
    tl.store(sums + tiles + tile, tl.sum(in2, axis=0))
    tl.store(sums + 2 * tiles + tile, tl.sum(in3, axis=0))


@triton.jit(do_not_specialize=SIZES)
def number(
    flagged,  # [h, w] bool
    height,
    width,
    sums,  # [3, tiles] int32
    rows,  # [3, h * w] int32, written as far as the counts
    slots,  # [3, h * w] int32, written
    counts,  # [3] int32, written
    PIXELS: tl.constexpr,
    TILES: tl.constexpr,  # at least the number of tiles
):
    """Number the pixels of the supports in raster order."""
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    in1, in2, in3 = supports(flagged, pixel, height, width)
    number_layer(0, in1, pixel, height * width, sums, tile, tiles, rows, slots, counts, TILES)
    number_layer(1, in2, pixel, height * width, sums, tile, tiles, rows, slots, counts, TILES)
    number_layer(2, in3, pixel, height * width, sums, tile, tiles, rows, slots, counts, TILES)


@triton.jit
def number_layer(layer, member, pixel, pixels, sums, tile, tiles, rows, slots, counts, TILES: tl.constexpr):
    """Number a tile's pixels of one support, after those of the tiles before."""
    others = tl.arange(0, TILES)
    before = tl.sum(tl.load(sums + layer * tiles + others, mask=others < tile, other=0), axis=0)
    slot = before + tl.cumsum(member, axis=0) - 1
    is_member = member > 0
    base = layer * pixels.to(tl.int64)
    tl.store(slots + base + pixel, tl.where(is_member, slot, -1), mask=pixel < pixels)
    tl.store(rows + base + slot, pixel, mask=is_member)
    tl.store(counts + layer, before + tl.sum(member, axis=0), mask=tile == tiles - 1)


@triton.jit
def supports(flagged, pixel, height, width):
    """Whether pixels belong to F1, F2 and F3, as int32."""
    in3 = neighbour(flagged, pixel, 0, 0, height, width, 0).to(tl.int32)
    in2, in1 = in3, in3
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            other = neighbour(flagged, pixel, dy, dx, height, width, 0).to(tl.int32)
            in1 = tl.maximum(in1, other)
            in2 = tl.where(is_near(dy, dx), tl.maximum(in2, other), in2)
    in_grid = pixel < height * width
    return tl.where(in_grid, in1, 0), tl.where(in_grid, in2, 0), tl.where(in_grid, in3, 0)


@triton.jit
def is_near(dy, dx):
    """Whether a neighbour touches the pixel."""
    return (dy >= -1) & (dy <= 1) & (dx >= -1) & (dx <= 1)


@triton.jit
def neighbour(values, pixel, dy, dx, height, width, outside):
    """Value at a neighbour, `outside` beyond the grid."""
    i, j = pixel // width + dy, pixel % width + dx
    mask = (pixel < height * width) & (i >= 0) & (i < height) & (j >= 0) & (j < width)
    return tl.load(values + i * width + j, mask=mask, other=outside)
