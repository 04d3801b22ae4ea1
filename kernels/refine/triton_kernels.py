"""The kernels of refinement for GPUs: channels last, products of tiles with float32 sums, nothing gathered beforehand.

The three pixels under a row of a 3x3 kernel follow one another, in the map and in a support's rows, but at the left and
right border of the map. So a convolution reads three stretches of memory for each pixel, and one where it is 1x1.
Channels are padded with zeros to a `STRIDE`, a multiple of 16.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Integers that are no constants of the kernels: one compiled kernel serves every size.
SIZES = ["height", "width"]


@triton.jit(do_not_specialize=SIZES)
def pack(
    maps,  # [channels, h * w], or [h * w, channels]
    slots,  # [3, h * w] int32, here and below
    height,
    width,
    packed,  # [h * w, STRIDE], written where a neighbour is in F1
    CHANNELS: tl.constexpr,
    STRIDE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    SIDE: tl.constexpr,  # of the kernel, 3 or 1, here and below
    PIXELS: tl.constexpr,  # of a tile, here and below
    DEPTH: tl.constexpr,  # channels of a tile
):
    """Bring the channels of pixels together, in tiles that F1's neighbourhood touches."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    in_grid = pixel < height * width
    i, j = pixel // width, pixel % width
    nearest = tl.full((PIXELS,), -1, tl.int32)
    for tap in tl.static_range(SIDE * SIDE):
        y, x = i + tap // SIDE - SIDE // 2, j + tap % SIDE - SIDE // 2
        is_there = in_grid & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        nearest = tl.maximum(nearest, tl.load(slots + y * width + x, mask=is_there, other=-1))
    if tl.max(nearest, axis=0) < 0:
        return
    channel = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    there = in_grid[None, :] & (channel < CHANNELS)[:, None]
    if CHANNELS_LAST:
        at = maps + channel[:, None] + pixel.to(tl.int64)[None, :] * CHANNELS
    else:
        at = maps + channel.to(tl.int64)[:, None] * (height * width) + pixel[None, :]
    values = tl.load(at, mask=there, other=0)
    place = packed + pixel.to(tl.int64)[:, None] * STRIDE + channel[None, :]
    tl.store(place, tl.trans(values), mask=in_grid[:, None] & (channel < STRIDE)[None, :])


@triton.jit(do_not_specialize=["pixels"])
def project(
    planes,  # [channels, pixels]
    pixels,
    weights,  # [channels, STRIDE]
    bias,  # [STRIDE] float32
    projected,  # [pixels, STRIDE], written
    CHANNELS: tl.constexpr,
    STRIDE: tl.constexpr,
    WIDTH: tl.constexpr,  # output channels of a tile, here and below
    PIXELS: tl.constexpr,
    DEPTH: tl.constexpr,  # input channels of a step, here and below
):
    """A 1x1 convolution of all pixels of channel planes."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    column = tl.program_id(1) * WIDTH
    sums = tl.zeros((PIXELS, WIDTH), tl.float32)
    for begin in range(0, CHANNELS, DEPTH):
        k = begin + tl.arange(0, DEPTH)
        there = (k < CHANNELS)[:, None] & (pixel < pixels)[None, :]
        inputs = tl.trans(tl.load(planes + k.to(tl.int64)[:, None] * pixels + pixel[None, :], mask=there, other=0))
        sums = multiply(inputs, weights, k, CHANNELS, column, sums, STRIDE, WIDTH)
    place = projected + pixel.to(tl.int64) * STRIDE
    store_biased(place, pixel < pixels, sums, bias, column, STRIDE, WIDTH, False)


@triton.jit(do_not_specialize=SIZES)
def convolve_low(
    source,  # [h * w, SOURCE_STRIDE], low-level features
    rows,  # [3, h * w] int32, here and below
    counts,  # [3] int32, here and below
    height,
    width,
    weights,  # [SIDE * SIDE * SOURCE_STRIDE, STRIDE]
    bias,  # [STRIDE] float32
    gate,  # [channels]
    x,  # [h * w, STRIDE], rows of F1 are written
    CHANNELS: tl.constexpr,
    SIDE: tl.constexpr,
    SOURCE_STRIDE: tl.constexpr,
    STRIDE: tl.constexpr,
    WIDTH: tl.constexpr,
    REST: tl.constexpr,  # output channels of a tile's second, narrower part; 0 for none; here and below
    PIXELS: tl.constexpr,
    DEPTH: tl.constexpr,
    PERSISTENT: tl.constexpr = False,  # whether a program does tile after tile, here and below
):
    """The gated convolution of the low-level features, on F1."""
    count = tl.load(counts)
    tile = tl.program_id(0)
    if PERSISTENT:
        while tile * PIXELS < count:
            low_tile(
                tile, count, source, rows, height, width, weights, bias, gate, x, CHANNELS, SIDE, SOURCE_STRIDE,
                STRIDE, WIDTH, REST, PIXELS, DEPTH,
            )  # fmt: skip
            tile += tl.num_programs(0)
    else:
        if tile * PIXELS >= count:
            return
        low_tile(
            tile, count, source, rows, height, width, weights, bias, gate, x, CHANNELS, SIDE, SOURCE_STRIDE, STRIDE,
            WIDTH, REST, PIXELS, DEPTH,
        )  # fmt: skip


@triton.jit
def low_tile(
    tile, count, source, rows, height, width, weights, bias, gate, x,
    CHANNELS: tl.constexpr, SIDE: tl.constexpr, SOURCE_STRIDE: tl.constexpr, STRIDE: tl.constexpr, WIDTH: tl.constexpr,
    REST: tl.constexpr, PIXELS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One tile of `convolve_low`."""
    row = tile * PIXELS + tl.arange(0, PIXELS)
    is_there = row < count
    pixel = tl.load(rows + row, mask=is_there, other=0)
    column = tl.program_id(1) * (WIDTH + REST)
    sums, rest = convolve_tile(
        source, source, pixel, is_there, height, width, weights, column, False, SIDE, SOURCE_STRIDE, STRIDE, WIDTH,
        REST, PIXELS, DEPTH,
    )  # fmt: skip
    place = x + row.to(tl.int64) * STRIDE
    store_gated(place, is_there, sums, bias, gate, column, CHANNELS, STRIDE, WIDTH)
    if REST > 0:
        store_gated(place, is_there, rest, bias, gate, column + WIDTH, CHANNELS, STRIDE, REST)


@triton.jit(do_not_specialize=[*SIZES, "coarse_height", "coarse_width"])
def interpolate(
    projected,  # [h8 * w8, STRIDE]
    coarse_height,
    coarse_width,
    rows,
    counts,
    height,
    width,
    x,  # [h * w, STRIDE], added to in rows of F1
    STRIDE: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    PIXELS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Add the projection, laid over F1."""
    count = tl.load(counts)
    if tl.program_id(0) * PIXELS >= count:
        return
    row = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    pixel = tl.load(rows + row, mask=row < count, other=0)
    up, down, dy = between(pixel // width, height, coarse_height, ALIGN_CORNERS)
    left, right, dx = between(pixel % width, width, coarse_width, ALIGN_CORNERS)
    there = (row < count)[:, None] & (channel < STRIDE)[None, :]
    corners = projected + channel[None, :]
    upper = at_corner(corners, up * coarse_width + left, there, STRIDE) * (1 - dx)[:, None]
    upper += at_corner(corners, up * coarse_width + right, there, STRIDE) * dx[:, None]
    lower = at_corner(corners, down * coarse_width + left, there, STRIDE) * (1 - dx)[:, None]
    lower += at_corner(corners, down * coarse_width + right, there, STRIDE) * dx[:, None]
    value = upper * (1 - dy)[:, None] + lower * dy[:, None]
    place = x + row.to(tl.int64)[:, None] * STRIDE + channel[None, :]
    value += tl.load(place, mask=there, other=0).to(tl.float32)
    tl.store(place, value.to(x.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=SIZES)
def convolve(
    source,  # [h * w, STRIDE], rows of the support before
    slots,
    rows,
    counts,
    height,
    width,
    weights,  # [SIDE * SIDE * STRIDE, STRIDE]
    bias,  # [STRIDE] float32
    out,  # [h * w, STRIDE], as many rows are written
    LAYER: tl.constexpr,  # 1 from F1 to F2, 2 from F2 to F3
    SIDE: tl.constexpr,
    STRIDE: tl.constexpr,
    WIDTH: tl.constexpr,
    REST: tl.constexpr,
    PIXELS: tl.constexpr,
    DEPTH: tl.constexpr,
    PERSISTENT: tl.constexpr = False,
):
    """A convolution and ReLU, from support to support."""
    count = tl.load(counts + LAYER)
    tile = tl.program_id(0)
    if PERSISTENT:
        while tile * PIXELS < count:
            support_tile(
                tile, count, source, slots, rows, height, width, weights, bias, out, LAYER, SIDE, STRIDE, WIDTH, REST,
                PIXELS, DEPTH,
            )  # fmt: skip
            tile += tl.num_programs(0)
    else:
        if tile * PIXELS >= count:
            return
        support_tile(
            tile, count, source, slots, rows, height, width, weights, bias, out, LAYER, SIDE, STRIDE, WIDTH, REST,
            PIXELS, DEPTH,
        )  # fmt: skip


@triton.jit
def support_tile(
    tile, count, source, slots, rows, height, width, weights, bias, out,
    LAYER: tl.constexpr, SIDE: tl.constexpr, STRIDE: tl.constexpr, WIDTH: tl.constexpr, REST: tl.constexpr,
    PIXELS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One tile of `convolve`."""
    row = tile * PIXELS + tl.arange(0, PIXELS)
    is_there = row < count
    pixels = (height * width).to(tl.int64)
    pixel = tl.load(rows + LAYER * pixels + row, mask=is_there, other=0)
    column = tl.program_id(1) * (WIDTH + REST)
    sums, rest = convolve_tile(
        source, slots + (LAYER - 1) * pixels, pixel, is_there, height, width, weights, column, True, SIDE, STRIDE,
        STRIDE, WIDTH, REST, PIXELS, DEPTH,
    )  # fmt: skip
    place = out + row.to(tl.int64) * STRIDE
    store_biased(place, is_there, sums, bias, column, STRIDE, WIDTH, True)
    if REST > 0:
        store_biased(place, is_there, rest, bias, column + WIDTH, STRIDE, REST, True)


@triton.jit(do_not_specialize=["pixels"])
def classify(
    source,  # [h * w, STRIDE], rows of F3
    rows,
    counts,
    weights,  # [STRIDE, CLASS_STRIDE]
    bias,  # [CLASS_STRIDE] float32
    logits,  # [classes, h * w]
    pixels,  # h * w
    out,  # [h * w, classes], as many rows are written
    CLASSES: tl.constexpr,
    CLASS_STRIDE: tl.constexpr,
    STRIDE: tl.constexpr,
    RESIDUAL: tl.constexpr,
    WIDTH: tl.constexpr,
    PIXELS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """The head: a 1x1 convolution to the classes, and the semantic logits where they are added."""
    count = tl.load(counts + 2)
    if tl.program_id(0) * PIXELS >= count:
        return
    row = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    is_there = row < count
    column = tl.program_id(1) * WIDTH
    sums = tl.zeros((PIXELS, WIDTH), tl.float32)
    for begin in range(0, STRIDE, DEPTH):
        k = begin + tl.arange(0, DEPTH)
        there = is_there[:, None] & (k < STRIDE)[None, :]
        inputs = tl.load(source + row.to(tl.int64)[:, None] * STRIDE + k[None, :], mask=there, other=0)
        sums = multiply(inputs, weights, k, STRIDE, column, sums, CLASS_STRIDE, WIDTH)
    n = column + tl.arange(0, WIDTH)
    sums += tl.load(bias + n, mask=n < CLASS_STRIDE, other=0)[None, :]
    there = is_there[:, None] & (n < CLASSES)[None, :]
    if RESIDUAL:
        pixel = tl.load(rows + 2 * pixels.to(tl.int64) + row, mask=is_there, other=0)
        semantic = tl.load(logits + n.to(tl.int64)[None, :] * pixels + pixel[:, None], mask=there, other=0)
        sums += semantic.to(tl.float32)
    tl.store(out + row.to(tl.int64)[:, None] * CLASSES + n[None, :], sums.to(out.dtype.element_ty), mask=there)


@triton.jit
def convolve_tile(
    source,  # [n, STRIDE]
    slots,  # [h * w] int32
    pixel,  # [PIXELS]
    is_there,  # [PIXELS]
    height,
    width,
    weights,  # [SIDE * SIDE * STRIDE, OUT_STRIDE]
    column,
    HAS_SLOTS: tl.constexpr,  # otherwise a pixel's row is its index
    SIDE: tl.constexpr,
    STRIDE: tl.constexpr,
    OUT_STRIDE: tl.constexpr,
    WIDTH: tl.constexpr,
    REST: tl.constexpr,
    PIXELS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Sums of a convolution at some pixels, for output channels from `column` on."""
    i, j = pixel // width, pixel % width
    above, below = is_there & (i > 0), is_there & (i < height - 1)
    upper, middle, lower = pixel - width, pixel, pixel + width
    if HAS_SLOTS:
        upper = tl.load(slots + upper, mask=above, other=0)
        middle = tl.load(slots + middle, mask=is_there, other=0)
        lower = tl.load(slots + lower, mask=below, other=0)
    has_left, has_right = (j > 0)[:, None], (j < width - 1)[:, None]
    sums = tl.zeros((PIXELS, WIDTH), tl.float32)
    rest = tl.zeros((PIXELS, REST if REST > 0 else 16), tl.float32)
    # Steps of one kernel row; one loop over all rows, so that loads run ahead across them.
    line: tl.constexpr = SIDE * STRIDE
    steps: tl.constexpr = (line + DEPTH - 1) // DEPTH
    for step in range(SIDE * steps):
        kernel_row = step // steps
        k = (step % steps) * DEPTH + tl.arange(0, DEPTH)
        if SIDE == 1:
            slot, there = middle, is_there[:, None] & (k < line)[None, :]
        else:
            slot = tl.where(kernel_row == 0, upper, tl.where(kernel_row == 1, middle, lower))
            in_map = tl.where(kernel_row == 0, above, tl.where(kernel_row == 1, is_there, below))
            there = in_map[:, None] & (has_left | (k >= STRIDE)[None, :]) & (has_right | (k < 2 * STRIDE)[None, :])
            there &= (k < line)[None, :]
        begin = (slot.to(tl.int64) - SIDE // 2) * STRIDE
        inputs = tl.load(source + begin[:, None] + k[None, :], mask=there, other=0)
        kernel = weights + kernel_row * (line * OUT_STRIDE)
        sums = multiply(inputs, kernel, k, line, column, sums, OUT_STRIDE, WIDTH)
        if REST > 0:
            rest = multiply(inputs, kernel, k, line, column + WIDTH, rest, OUT_STRIDE, REST)
    return sums, rest


@triton.jit
def multiply(inputs, weights, k, depth, column, sums, STRIDE: tl.constexpr, WIDTH: tl.constexpr):
    """Add the product of a tile of inputs and the weights of these channels."""
    n = column + tl.arange(0, WIDTH)
    there = (k < depth)[:, None] & (n < STRIDE)[None, :]
    factors = tl.load(weights + k[:, None] * STRIDE + n[None, :], mask=there, other=0)
    return tl.dot(inputs, factors, sums, input_precision="ieee")


@triton.jit
def store_biased(place, is_there, sums, bias, column, STRIDE: tl.constexpr, WIDTH: tl.constexpr, RELU: tl.constexpr):
    """Add the bias, take the ReLU where wanted, and store."""
    n = column + tl.arange(0, WIDTH)
    sums += tl.load(bias + n, mask=n < STRIDE, other=0)[None, :]
    if RELU:
        sums = tl.maximum(sums, 0)
    tl.store(
        place[:, None] + n[None, :], sums.to(place.dtype.element_ty), mask=is_there[:, None] & (n < STRIDE)[None, :]
    )


@triton.jit
def store_gated(
    place, is_there, sums, bias, gate, column, CHANNELS: tl.constexpr, STRIDE: tl.constexpr, WIDTH: tl.constexpr
):
    """Add the bias, weigh by the gate, and store."""
    n = column + tl.arange(0, WIDTH)
    sums += tl.load(bias + n, mask=n < STRIDE, other=0)[None, :]
    sums *= tl.load(gate + n, mask=n < CHANNELS, other=0).to(tl.float32)[None, :]
    tl.store(
        place[:, None] + n[None, :], sums.to(place.dtype.element_ty), mask=is_there[:, None] & (n < STRIDE)[None, :]
    )


@triton.jit
def at_corner(corners, pixel, there, STRIDE: tl.constexpr):
    """Values of coarse pixels, as float32."""
    return tl.load(corners + pixel.to(tl.int64)[:, None] * STRIDE, mask=there, other=0).to(tl.float32)


@triton.jit
def between(position, fine, coarse, ALIGN_CORNERS: tl.constexpr):
    """The two coarse lines around a fine one, and the share of the second: in whole numbers, which round nothing."""
    if ALIGN_CORNERS:
        unit = tl.maximum(fine - 1, 1)
        at = position * (coarse - 1)
    else:
        unit = 2 * fine
        at = tl.minimum(tl.maximum((2 * position + 1) * coarse - fine, 0), (coarse - 1) * unit)
    lower = at // unit
    return lower, tl.minimum(lower + 1, coarse - 1), (at - lower * unit).to(tl.float32) / unit
