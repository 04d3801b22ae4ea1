"""The kernels of selection for GPUs: flags, the run of them that a budget allows, and supports in raster order.

A budget is met without sorting. A flagged pixel's turn is an integer, smaller the earlier it enters: descending logits,
then, in the last bits, ascending indices. The first turn whose work exceeds the budget is found digit by digit, from
the highest on: the work of each value of a digit is summed, among turns that begin with the digits found before.

Nothing depends on the order in which programs run: counts are written by block, and work is added in integers.

Limits are data, int64 [2]: the budget, below zero for none, and the bits of the level that flagged logits exceed. So
one captured graph serves every limit; without a budget, the kernels that are about it end at once.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Integers that are no constants of the kernels: one compiled kernel serves every size.
SIZES = ["height", "width"]
WORK = ["work1", "work2", "work3"]
# The turn of what is not flagged: more than any turn, and than the bound where all fits.
NEVER: tl.constexpr = tl.constexpr(1 << 62)


@triton.jit(do_not_specialize=[*SIZES, "rows", "cols"])
def flag(
    error_logit,  # [h, w]
    limits,  # here and below
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
    tl.store(flagged + pixel, (value > level_of(limits)) & is_seen, mask=in_grid)


@triton.jit(do_not_specialize=[*SIZES, "rows", "cols"])
def enter(
    error_logit,  # [h, w]
    limits,
    height,
    width,
    rows,  # seen, like cols
    cols,
    turns,  # [3, h * w] int64, written: when each pixel enters F1, F2 and F3
    PIXELS: tl.constexpr,
    INDEX_BITS: tl.constexpr,  # of a turn
    REACH1: tl.constexpr,  # of F1 beyond the flagged pixels, 2 at most, here and below
    REACH2: tl.constexpr,  # of F2
):
    """Find when each pixel enters the supports: with the first of the flagged pixels around it."""
    if tl.load(limits) >= 0:
        level = level_of(limits)
        pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
        i, j = pixel // width, pixel % width
        turn3 = turn_of(error_logit, level, i, j, width, rows, cols, INDEX_BITS)
        turn2, turn1 = turn3, turn3
        for dy in range(-REACH1, REACH1 + 1):
            for dx in range(-REACH1, REACH1 + 1):
                other = turn_of(error_logit, level, i + dy, j + dx, width, rows, cols, INDEX_BITS)
                turn1 = tl.minimum(turn1, other)
                turn2 = tl.where(is_near(dy, dx, REACH2), tl.minimum(turn2, other), turn2)
        pixels = (height * width).to(tl.int64)
        in_grid = pixel < pixels
        tl.store(turns + pixel, turn1, mask=in_grid)
        tl.store(turns + pixels + pixel, turn2, mask=in_grid)
        tl.store(turns + 2 * pixels + pixel, turn3, mask=in_grid)


@triton.jit(do_not_specialize=["pixels", *WORK, "digit"])
def weigh(
    turns,  # [3, h * w] int64
    pixels,  # h * w
    work1,  # multiply-adds of a pixel of F1
    work2,
    work3,
    limits,
    digit,  # which one, from the highest
    found,  # [DIGITS, 2] int64, [digit] is written: the digits before, as one number, and what is left of the budget
    work,  # [DIGITS, 2 ** BITS] int64; [digit] is added to
    PIXELS: tl.constexpr,
    BITS: tl.constexpr,  # of a digit, here and below
    DIGITS: tl.constexpr,
    TICKET: tl.constexpr = False,  # whether the program that comes last narrows the digit; then both have a line more
):
    """Add the work of each pixel of the supports to that of the value which its turn has in a digit."""
    budget = tl.load(limits)
    if budget >= 0:
        tile = tl.program_id(0)
        prefix, left = tl.full((), 0, tl.int64), budget
        if digit > 0:
            if TICKET:
                prefix, left = tl.load(found + 2 * digit), tl.load(found + 2 * digit + 1)
            else:
                prefix, left = narrow(digit - 1, found, work, BITS)
        tl.store(found + 2 * digit, prefix, mask=tile == 0)
        tl.store(found + 2 * digit + 1, left, mask=tile == 0)
        pixel = tile * PIXELS + tl.arange(0, PIXELS)
        shift = (DIGITS - 1 - digit) * BITS
        of_digit = work + digit * (1 << BITS)
        weigh_layer(0, turns, pixel, pixels, prefix, shift, of_digit, work1, BITS)
        weigh_layer(1, turns, pixel, pixels, prefix, shift, of_digit, work2, BITS)
        weigh_layer(2, turns, pixel, pixels, prefix, shift, of_digit, work3, BITS)
        if TICKET:
            tl.debug_barrier()  # what all threads of this program added and stored comes before its ticket
            if tl.atomic_add(work + DIGITS * (1 << BITS) + digit, 1) == tl.num_programs(0) - 1:
                prefix, left = narrow(digit, found, work, BITS)
                tl.store(found + 2 * digit + 2, prefix)
                tl.store(found + 2 * digit + 3, left)


@triton.jit
def weigh_layer(layer, turns, pixel, pixels, prefix, shift, work, of_pixel, BITS: tl.constexpr):
    """Add the work of a tile's pixels of one support."""
    turn = tl.load(turns + layer * pixels.to(tl.int64) + pixel, mask=pixel < pixels, other=NEVER)
    value = (turn >> shift) & ((1 << BITS) - 1)
    # A turn of never has bits above all digits, so that it begins with no prefix.
    tl.atomic_add(
        work + value,
        of_pixel.to(tl.int64) + tl.zeros_like(turn),
        mask=(turn >> (shift + BITS)) == prefix,
        sem="relaxed",
    )


@triton.jit(do_not_specialize=["pixels"])
def cut(
    turns,  # [3, h * w] int64
    pixels,  # h * w
    limits,
    found,  # [DIGITS, 2] int64
    work,  # [DIGITS, 2 ** BITS] int64
    flagged,  # [h, w] bool, written where there is a budget
    left_out,  # int32, added to
    PIXELS: tl.constexpr,
    BITS: tl.constexpr,
    DIGITS: tl.constexpr,
    TICKET: tl.constexpr = False,
):
    """Flag the pixels whose turn is before the first that does not fit, and count the others."""
    if tl.load(limits) >= 0:
        if TICKET:
            bound = tl.load(found + 2 * DIGITS)
        else:
            bound, _ = narrow(DIGITS - 1, found, work, BITS)
        pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
        in_grid = pixel < pixels
        turn = tl.load(turns + 2 * pixels.to(tl.int64) + pixel, mask=in_grid, other=NEVER)
        tl.store(flagged + pixel, turn < bound, mask=in_grid)
        tl.atomic_add(left_out, tl.sum(((turn >= bound) & (turn < NEVER)).to(tl.int32), axis=0), sem="relaxed")


@triton.jit
def level_of(limits):
    """The level that flagged logits exceed."""
    return tl.load(limits + 1).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def narrow(digit, found, work, BITS: tl.constexpr):
    """Find one more digit of the first turn that does not fit, and what is left of the budget for turns that share it.

    Where all fits the digit is one more than any value, and so are the next ones: no turn begins like that.
    """
    prefix, left = tl.load(found + 2 * digit), tl.load(found + 2 * digit + 1)
    values = tl.arange(0, 1 << BITS)
    so_far = tl.cumsum(tl.load(work + digit * (1 << BITS) + values), axis=0)
    fits = so_far <= left
    value = tl.sum(fits.to(tl.int32), axis=0)
    return prefix * (1 << BITS) + value, left - tl.max(tl.where(fits, so_far, 0), axis=0)


@triton.jit
def turn_of(error_logit, level, i, j, width, rows, cols, INDEX_BITS: tl.constexpr):
    """When pixels enter, never where they are not flagged."""
    is_seen = (i >= 0) & (i < rows) & (j >= 0) & (j < cols)
    pixel = i * width + j
    value = tl.load(error_logit + pixel, mask=is_seen, other=float("-inf")).to(tl.float32)
    # Zeros of both signs are one number. As integers, the bits of positive floats have their order, those of negative
    # ones the opposite order.
    bits = tl.where(value == 0, 0.0, value).to(tl.int32, bitcast=True)
    ascending = tl.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).to(tl.int64)
    turn = ((0x7FFFFFFF - ascending) << INDEX_BITS) | pixel
    return tl.where(value > level, turn, NEVER)


@triton.jit(do_not_specialize=SIZES)
def count(
    flagged,  # [h, w] bool
    height,
    width,
    sums,  # [3, tiles] int32, written: pixels of F1, F2 and F3 in each tile
    PIXELS: tl.constexpr,
    REACH1: tl.constexpr,
    REACH2: tl.constexpr,
):
    """Count the pixels of the supports, tile by tile."""
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    in1, in2, in3 = supports(flagged, tile * PIXELS + tl.arange(0, PIXELS), height, width, REACH1, REACH2)
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
    REACH1: tl.constexpr,
    REACH2: tl.constexpr,
):
    """Number the pixels of the supports in raster order."""
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    in1, in2, in3 = supports(flagged, pixel, height, width, REACH1, REACH2)
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
def supports(flagged, pixel, height, width, REACH1: tl.constexpr, REACH2: tl.constexpr):
    """Whether pixels belong to F1, F2 and F3, as int32."""
    in3 = neighbour(flagged, pixel, 0, 0, height, width, 0).to(tl.int32)
    in2, in1 = in3, in3
    for dy in range(-REACH1, REACH1 + 1):
        for dx in range(-REACH1, REACH1 + 1):
            other = neighbour(flagged, pixel, dy, dx, height, width, 0).to(tl.int32)
            in1 = tl.maximum(in1, other)
            in2 = tl.where(is_near(dy, dx, REACH2), tl.maximum(in2, other), in2)
    in_grid = pixel < height * width
    return tl.where(in_grid, in1, 0), tl.where(in_grid, in2, 0), tl.where(in_grid, in3, 0)


@triton.jit
def is_near(dy, dx, reach):
    """Whether a neighbour lies within so many rows and columns of the pixel."""
    return (dy >= -reach) & (dy <= reach) & (dx >= -reach) & (dx <= reach)


@triton.jit
def neighbour(values, pixel, dy, dx, height, width, outside):
    """Value at a neighbour, `outside` beyond the grid."""
    i, j = pixel // width + dy, pixel % width + dx
    mask = (pixel < height * width) & (i >= 0) & (i < height) & (j >= 0) & (j < width)
    return tl.load(values + i * width + j, mask=mask, other=outside)
