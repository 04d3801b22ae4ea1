"""The kernel of fusion for GPUs: a lane for each cell of the grid, and a loop over the classes.

A cell is the square between four neighbouring grid pixels. One loop finds peak, sum of powers and winner at its corners
for the softmax; a second one makes the probabilities of a class there, and interpolates them at up to 4 x 4 output
pixels at once. It is skipped where the corners of all cells of a tile agree.
"""

from __future__ import annotations

import triton
import triton.language as tl

from errseg_rt.kernels.fuse_labels import launches

# Below every logit, and no infinity, of which a difference would be NaN.
LOWEST = tl.constexpr(-3.0e38)
NO_DETAIL, DETAIL_MAP, DETAIL_ROWS = (
    tl.constexpr(value) for value in (launches.NO_DETAIL, launches.DETAIL_MAP, launches.DETAIL_ROWS)
)

# Integers that are no constants of the kernel: one compiled kernel serves every size.
SIZES = ["detail_rows", "height", "width", "out_width"] + [
    f"{axis}_{name}"
    for axis in ("row", "col")
    for name in ("slope", "offset", "first", "last", "unit", "pixels", "first_cell", "cells")
]


@triton.jit(do_not_specialize=SIZES)
def fuse_cells(
    semantic,  # [C, h, w]
    detail,  # [C, h, w] or [n, C]
    flagged,  # [h, w], bool or rows
    error,  # [h, w]
    labels,  # [H, W] uint8, written
    confidence,  # [H, W] float32, written
    error_map,  # [H, W] float32, written
    detail_rows,  # n
    height,
    width,
    out_width,
    # Of either axis: output pixel x lies at clip(slope * x + offset, first, last) / unit.
    row_slope,
    row_offset,
    row_first,
    row_last,
    row_unit,
    row_pixels,
    row_first_cell,
    row_cells,
    col_slope,
    col_offset,
    col_first,
    col_last,
    col_unit,
    col_pixels,
    col_first_cell,
    col_cells,
    CLASSES: tl.constexpr,
    DETAIL: tl.constexpr,
    CONFIDENCE: tl.constexpr,
    ERROR: tl.constexpr,
    POSITION: tl.constexpr,  # integer type that holds positions
    CELLS: tl.constexpr,  # of a tile
    TILE_ROWS: tl.constexpr = 1,  # rows of cells that a tile spans
):
    """Label the output pixels of a tile of cells."""
    if TILE_ROWS == 1:
        cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
        in_grid = cell < row_cells * col_cells
        i, j = row_first_cell + cell // col_cells, col_first_cell + cell % col_cells
    else:
        tile_cols: tl.constexpr = CELLS // TILE_ROWS
        lane, tiles = tl.arange(0, CELLS), tl.cdiv(col_cells, tile_cols)
        row = (tl.program_id(0) // tiles) * TILE_ROWS + lane // tile_cols
        col = (tl.program_id(0) % tiles) * tile_cols + lane % tile_cols
        in_grid = (row < row_cells) & (col < col_cells)
        i, j = row_first_cell + row, col_first_cell + col
    y_begin, y_end = pixels_of_cell(i, row_first_cell, row_cells, row_slope, row_offset, row_unit, row_pixels, POSITION)
    x_begin, x_end = pixels_of_cell(j, col_first_cell, col_cells, col_slope, col_offset, col_unit, col_pixels, POSITION)
    in_use = in_grid & (y_begin < y_end) & (x_begin < x_end)

    plane = height.to(tl.int64) * width
    p = i * width + j
    q = p + tl.where(j + 1 < width, 1, 0)
    down = tl.where(i + 1 < height, width, 0)
    r, s = p + down, q + down
    p_at, p_step = find_logits(semantic, detail, flagged, p, plane, in_use, detail_rows, CLASSES, DETAIL)
    q_at, q_step = find_logits(semantic, detail, flagged, q, plane, in_use, detail_rows, CLASSES, DETAIL)
    r_at, r_step = find_logits(semantic, detail, flagged, r, plane, in_use, detail_rows, CLASSES, DETAIL)
    s_at, s_step = find_logits(semantic, detail, flagged, s, plane, in_use, detail_rows, CLASSES, DETAIL)

    p_state = (tl.full((CELLS,), LOWEST, tl.float32), tl.zeros((CELLS,), tl.float32), tl.zeros((CELLS,), tl.int32))
    q_state, r_state, s_state = p_state, p_state, p_state
    # Unrolled, the loads of six classes are under way at once, with no register more; one by one each waits for memory.
    for c in tl.range(0, CLASSES, loop_unroll_factor=6):
        p_state = see(p_state, c, logit(p_at, c, p_step, in_use))
        q_state = see(q_state, c, logit(q_at, c, q_step, in_use))
        r_state = see(r_state, c, logit(r_at, c, r_step, in_use))
        s_state = see(s_state, c, logit(s_at, c, s_step, in_use))
    winner = p_state[2]
    same = (q_state[2] == winner) & (r_state[2] == winner) & (s_state[2] == winner)
    p_scale, q_scale, r_scale, s_scale = 1 / p_state[1], 1 / q_state[1], 1 / r_state[1], 1 / s_state[1]
    is_boundary = tl.max((in_use & ~same).to(tl.int32), axis=0)
    classes = is_boundary * CLASSES
    # No class wins over a winner of all corners, whose probability at them is the scale.
    best = tl.where(same, 2.0, -1.0)

    tallest = tl.max(tl.where(in_use, y_end - y_begin, 0), axis=0)
    widest = tl.max(tl.where(in_use, x_end - x_begin, 0), axis=0)
    dy = 0
    while dy < tallest:
        y = y_begin + dy
        v0 = weight(y, i, row_slope, row_offset, row_first, row_last, row_unit, POSITION)
        v1 = weight(y + 1, i, row_slope, row_offset, row_first, row_last, row_unit, POSITION)
        v2 = weight(y + 2, i, row_slope, row_offset, row_first, row_last, row_unit, POSITION)
        v3 = weight(y + 3, i, row_slope, row_offset, row_first, row_last, row_unit, POSITION)
        dx = 0
        while dx < widest:
            x = x_begin + dx
            u = (
                weight(x, j, col_slope, col_offset, col_first, col_last, col_unit, POSITION),
                weight(x + 1, j, col_slope, col_offset, col_first, col_last, col_unit, POSITION),
                weight(x + 2, j, col_slope, col_offset, col_first, col_last, col_unit, POSITION),
                weight(x + 3, j, col_slope, col_offset, col_first, col_last, col_unit, POSITION),
            )
            row0 = (best, winner, best, winner, best, winner, best, winner)
            row1, row2, row3 = row0, row0, row0
            c = 0
            while c < classes:
                p_c = logit(p_at, c, p_step, in_use)
                q_c = logit(q_at, c, q_step, in_use)
                r_c = logit(r_at, c, r_step, in_use)
                s_c = logit(s_at, c, s_step, in_use)
                p_c = tl.exp(p_c - p_state[0]) * p_scale
                q_c = tl.exp(q_c - q_state[0]) * q_scale
                r_c = tl.exp(r_c - r_state[0]) * r_scale
                s_c = tl.exp(s_c - s_state[0]) * s_scale
                row0 = keep_larger(row0, c, p_c, q_c, r_c, s_c, v0, u)
                row1 = keep_larger(row1, c, p_c, q_c, r_c, s_c, v1, u)
                row2 = keep_larger(row2, c, p_c, q_c, r_c, s_c, v2, u)
                row3 = keep_larger(row3, c, p_c, q_c, r_c, s_c, v3, u)
                c += 1
            write_labels(labels, row0, y, y_end, x, x_end, in_use, out_width)
            write_labels(labels, row1, y + 1, y_end, x, x_end, in_use, out_width)
            write_labels(labels, row2, y + 2, y_end, x, x_end, in_use, out_width)
            write_labels(labels, row3, y + 3, y_end, x, x_end, in_use, out_width)
            if CONFIDENCE:
                write_confidence(
                    confidence,
                    row0,
                    p_scale,
                    q_scale,
                    r_scale,
                    s_scale,
                    v0,
                    u,
                    same,
                    y,
                    y_end,
                    x,
                    x_end,
                    in_use,
                    out_width,
                )
                write_confidence(
                    confidence,
                    row1,
                    p_scale,
                    q_scale,
                    r_scale,
                    s_scale,
                    v1,
                    u,
                    same,
                    y + 1,
                    y_end,
                    x,
                    x_end,
                    in_use,
                    out_width,
                )
                write_confidence(
                    confidence,
                    row2,
                    p_scale,
                    q_scale,
                    r_scale,
                    s_scale,
                    v2,
                    u,
                    same,
                    y + 2,
                    y_end,
                    x,
                    x_end,
                    in_use,
                    out_width,
                )
                write_confidence(
                    confidence,
                    row3,
                    p_scale,
                    q_scale,
                    r_scale,
                    s_scale,
                    v3,
                    u,
                    same,
                    y + 3,
                    y_end,
                    x,
                    x_end,
                    in_use,
                    out_width,
                )
            if ERROR:
                p_e = tl.load(error + p, mask=in_use, other=0).to(tl.float32)
                q_e = tl.load(error + q, mask=in_use, other=0).to(tl.float32)
                r_e = tl.load(error + r, mask=in_use, other=0).to(tl.float32)
                s_e = tl.load(error + s, mask=in_use, other=0).to(tl.float32)
                write_map(error_map, p_e, q_e, r_e, s_e, v0, u, y, y_end, x, x_end, in_use, out_width)
                write_map(error_map, p_e, q_e, r_e, s_e, v1, u, y + 1, y_end, x, x_end, in_use, out_width)
                write_map(error_map, p_e, q_e, r_e, s_e, v2, u, y + 2, y_end, x, x_end, in_use, out_width)
                write_map(error_map, p_e, q_e, r_e, s_e, v3, u, y + 3, y_end, x, x_end, in_use, out_width)
            dx += 4
        dy += 4


@triton.jit
def pixels_of_cell(cell, first_cell, cells, slope, offset, unit, pixels, POSITION: tl.constexpr):
    """First output pixel of a cell along one axis, and the one past its last."""
    step = tl.maximum(slope, 1)
    begin = tl.maximum(cell.to(POSITION) * unit - offset, 0)
    end = tl.maximum((cell + 1).to(POSITION) * unit - offset, 0)
    begin = tl.minimum((begin + step - 1) // step, pixels).to(tl.int32)
    end = tl.minimum((end + step - 1) // step, pixels).to(tl.int32)
    return tl.where(cell == first_cell, 0, begin), tl.where(cell == first_cell + cells - 1, pixels, end)


@triton.jit
def weight(pixel, cell, slope, offset, first, last, unit, POSITION: tl.constexpr):
    """Share of the other grid line at an output pixel."""
    position = tl.minimum(tl.maximum(pixel.to(POSITION) * slope + offset, first), last)
    return (position - cell.to(POSITION) * unit).to(tl.float32) / unit.to(tl.float32)


@triton.jit
def find_logits(
    semantic, detail, flagged, pixel, plane, in_use, detail_rows, CLASSES: tl.constexpr, DETAIL: tl.constexpr
):
    """Where the selected logits of a grid pixel begin, and how far it is from class to class."""
    at, step = semantic + pixel, plane + tl.zeros_like(pixel)
    if DETAIL == DETAIL_MAP:
        is_detail = tl.load(flagged + pixel, mask=in_use, other=0).to(tl.int1)
        at = tl.where(is_detail, detail + pixel, at)
    if DETAIL == DETAIL_ROWS:
        row = tl.load(flagged + pixel, mask=in_use, other=-1)
        is_detail = (row >= 0) & (row < detail_rows)
        at = tl.where(is_detail, detail + row.to(tl.int64) * CLASSES, at)
        step = tl.where(is_detail, 1, step)
    return at, step


@triton.jit
def logit(at, c, step, in_use):
    """Logit of class c."""
    return tl.load(at + c * step, mask=in_use, other=0).to(tl.float32)


@triton.jit
def see(state, c, value):
    """Take one more logit into the peak, the sum of powers over it, and the first class that has it."""
    peak, total, winner = state
    power = tl.exp(-tl.abs(value - peak))
    is_larger = value > peak
    return (
        tl.maximum(value, peak),
        tl.where(is_larger, total * power + 1, total + power),
        tl.where(is_larger, c, winner),
    )


@triton.jit
def along_row(p, q, r, s, v, u):
    """Interpolate in one output row of a cell."""
    left = p + (r - p) * v
    slope = q + (s - q) * v - left
    return left + slope * u[0], left + slope * u[1], left + slope * u[2], left + slope * u[3]


@triton.jit
def keep_larger(row, c, p, q, r, s, v, u):
    """Let class c win at those of four pixels of a row where it is larger."""
    a = along_row(p, q, r, s, v, u)
    return (
        tl.maximum(a[0], row[0]),
        tl.where(a[0] > row[0], c, row[1]),
        tl.maximum(a[1], row[2]),
        tl.where(a[1] > row[2], c, row[3]),
        tl.maximum(a[2], row[4]),
        tl.where(a[2] > row[4], c, row[5]),
        tl.maximum(a[3], row[6]),
        tl.where(a[3] > row[6], c, row[7]),
    )


@triton.jit
def write_labels(labels, row, y, y_end, x, x_end, in_use, out_width):
    """Write four pixels of a row, as far as the cell holds them."""
    at = y.to(tl.int64) * out_width + x
    for n in tl.static_range(4):
        tl.store(labels + at + n, row[2 * n + 1].to(tl.uint8), mask=in_use & (y < y_end) & (x + n < x_end))


@triton.jit
def write_confidence(confidence, row, p, q, r, s, v, u, same, y, y_end, x, x_end, in_use, out_width):
    """Write the largest probabilities of four pixels, interpolated from the corners' where these agree."""
    a = along_row(p, q, r, s, v, u)
    at = y.to(tl.int64) * out_width + x
    for n in tl.static_range(4):
        value = tl.where(same, a[n], row[2 * n])
        tl.store(confidence + at + n, value, mask=in_use & (y < y_end) & (x + n < x_end))


@triton.jit
def write_map(error_map, p, q, r, s, v, u, y, y_end, x, x_end, in_use, out_width):
    """Write the error at four pixels of a row."""
    a = along_row(p, q, r, s, v, u)
    at = y.to(tl.int64) * out_width + x
    for n in tl.static_range(4):
        tl.store(error_map + at + n, a[n], mask=in_use & (y < y_end) & (x + n < x_end))
