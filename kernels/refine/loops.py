"""The compiled loops of refinement on the CPU.

Scratch is the caller's, one for each thread, and no array is assigned or made as a whole: both take seconds to compile.
"""

from __future__ import annotations

import numpy as np

from errseg_rt.kernels.compiled import compiled, inner
from errseg_rt.kernels.refine.prefetch import prefetch
from errseg_rt.kernels.refine.tile import PIXELS, tile1, tile2, tile3
from errseg_rt.kernels.refine.turns import claim, tell
from errseg_rt.kernels.refine.vector_code import LANES

# Pixels that go through a layer together, a multiple of all tiles: what they read and what they make stays in a core's
# second-level cache.
CHUNK = 252
# Rows of the grid whose low-level features are brought together.
BAND = 8
# How many pixels channel planes are read ahead, and how many of a plane's row one fetch is reckoned to bring.
AHEAD, FETCHED = 16, 8
PIXELS1, PIXELS2, PIXELS3 = PIXELS[1], PIXELS[2], PIXELS[3]
MOST_PIXELS = max(PIXELS.values())
# What corners and places have room for: the last tile may reach beyond its chunk.
ROOM = CHUNK + MOST_PIXELS
ZERO, NO_FLOOR = np.float32(0), np.float32(-np.inf)


@compiled
def plan(
    rows1,  # [n1]
    rows2,  # [n2]
    rows3,  # [n3]
    lower_y,  # [h]
    lower_x,  # [w]
    coarse_height,
    coarse_width,
    x,  # [n1 + h + 3, stride], rows of zeros are written
    y,  # [n2 + h + 3, stride], rows of zeros are written
    starts,  # [h + 1], written: where the grid's rows begin in F1
    coarse_rows,  # [h8 * w8], written: the coarse pixels that F1 is interpolated from
    coarse_slots,  # [h8 * w8], all -1, written: their positions among these
):
    """Lay out what the layers share; return how many coarse pixels there are, or -1 where the rows do not ascend."""
    height, width, stride = len(lower_y), len(lower_x), x.shape[1]
    n1, n2, n3 = 0, 0, 0
    sound = True
    for i in range(height):
        starts[i] = n1
        for c in range(stride):
            x[n1 + i + 2, c] = 0
            y[n2 + i + 2, c] = 0
        up = lower_y[i] * coarse_width
        down = min(lower_y[i] + 1, coarse_height - 1) * coarse_width
        begin, end = i * width, (i + 1) * width
        previous = begin - 1
        while n1 < len(rows1) and rows1[n1] < end:
            sound &= rows1[n1] > previous
            previous = max(rows1[n1], begin)
            left = lower_x[previous - begin]
            right = min(left + 1, coarse_width - 1)
            coarse_slots[up + left] = coarse_slots[up + right] = 0
            coarse_slots[down + left] = coarse_slots[down + right] = 0
            n1 += 1
        previous = begin - 1
        while n2 < len(rows2) and rows2[n2] < end:
            sound &= rows2[n2] > previous
            previous = rows2[n2]
            n2 += 1
        previous = begin - 1
        while n3 < len(rows3) and rows3[n3] < end:
            sound &= rows3[n3] > previous
            previous = rows3[n3]
            n3 += 1
    starts[height] = n1
    for c in range(stride):
        x[0, c] = x[1, c] = x[n1 + height + 2, c] = 0
        y[0, c] = y[1, c] = y[n2 + height + 2, c] = 0
    if not sound or n1 < len(rows1) or n2 < len(rows2) or n3 < len(rows3):
        return -1
    count = 0
    for pixel in range(len(coarse_slots)):
        if coarse_slots[pixel] == 0:
            coarse_rows[count] = pixel
            coarse_slots[pixel] = count
            count += 1
    return count


@compiled
def project(
    counter,
    planes,  # [Cc, h8 * w8]
    rows,  # [n], pixels
    weights,
    bias,  # [stride]
    widths,
    projected,  # [n, stride], written
    packed,  # [CHUNK * Cc], scratch from here on
    begins,  # [ROOM]
    corners,  # [ROOM, 1]
    places,  # [ROOM]
):
    """A 1x1 convolution of some pixels of channel planes."""
    channels, size = planes.shape
    stride = len(bias)
    flat_planes, flat = planes.reshape(-1), projected.reshape(-1)
    while True:
        begin = claim(counter) * CHUNK
        if begin >= len(rows):
            return True
        count = min(CHUNK, len(rows) - begin)
        for n in range(count):
            begins[n] = corners[n, 0] = n * channels
            places[n] = (begin + n) * stride
            for c in range(stride):
                flat[places[n] + c] = bias[c]
        pack(flat_planes, size, channels, rows[begin:], begins, count, packed)
        accumulate(packed, corners, count, channels, channels, weights, widths, flat, places, NO_FLOOR)
        tell(counter)


@compiled
def mix(
    counter,
    planes,  # [Cl, h * w]
    rows1,  # [n1]
    starts,  # [h + 1]
    weights,
    bias,  # [stride]
    widths,
    lower_y,  # [h]
    weight_y,  # [h]
    lower_x,  # [w]
    weight_x,  # [w]
    coarse_width,
    coarse_slots,  # [h8 * w8]
    projected,  # [n, stride]
    x,  # [n1 + h + 3, stride], written but for the rows of zeros
    packed,  # [(BAND + 2) * (w + 2) * Cl], zeros; scratch from here on
    support,  # [BAND + 2, w + 2] uint8
    pixels,  # [w]
    pixel_places,  # [w]
    corners,  # [ROOM, size], by which the kernel's size is known; here and below
    places,  # [ROOM]
):
    """Make x on F1: the convolution of the low-level features, plus the interpolated projection."""
    channels, size = planes.shape
    stride, height, width, side = len(bias), len(lower_y), len(lower_x), corners.shape[1]
    reach = side // 2
    coarse_height = len(coarse_slots) // coarse_width
    # Row r of a band is row top - 1 + r of the grid, column c is column c - 1; what is outside the map stays zero.
    line = (width + 2) * channels
    flat_planes, flat = planes.reshape(-1), x.reshape(-1)
    while True:
        top = claim(counter) * BAND
        if top >= height:
            return True
        bottom = min(top + BAND, height)
        if starts[top] == starts[bottom]:
            tell(counter)
            continue
        for r in range(BAND + 2):
            for c in range(width + 2):
                support[r, c] = 0
        for i in range(top, bottom):
            for n in range(starts[i], starts[i + 1]):
                support[i - top + 1, rows1[n] - i * width + 1] = 1
        for r in range(bottom - top + 2):
            i = top - 1 + r
            if i < 0 or i >= height:
                for k in range(line):
                    packed[r * line + k] = 0
                continue
            above, below = max(r - 1, 0), min(r + 1, BAND + 1)
            count = 0
            for j in range(width):
                near = support[r, j + 1]
                if reach:
                    near |= support[r, j] | support[r, j + 2]
                    near |= support[above, j] | support[above, j + 1] | support[above, j + 2]
                    near |= support[below, j] | support[below, j + 1] | support[below, j + 2]
                if near:
                    pixels[count] = i * width + j
                    pixel_places[count] = r * line + (j + 1) * channels
                    count += 1
            pack(flat_planes, size, channels, pixels, pixel_places, count, packed)

        i = top
        for begin in range(starts[top], starts[bottom], CHUNK):
            count = min(CHUNK, starts[bottom] - begin)
            for n in range(count):
                while rows1[begin + n] >= (i + 1) * width:
                    i += 1
                j = rows1[begin + n] - i * width
                corner = (i - top + 1 - reach) * line + (j + 1 - reach) * channels
                for r in range(side):
                    corners[n, r] = corner + r * line
                places[n] = (begin + n + i + 3) * stride
                row = x[begin + n + i + 3]
                up = lower_y[i] * coarse_width
                down = min(lower_y[i] + 1, coarse_height - 1) * coarse_width
                left = lower_x[j]
                right = min(left + 1, coarse_width - 1)
                a, b = projected[coarse_slots[up + left]], projected[coarse_slots[up + right]]
                c, d = projected[coarse_slots[down + left]], projected[coarse_slots[down + right]]
                dy, dx = weight_y[i], weight_x[j]
                for k in range(stride):
                    upper = a[k] + dx * (b[k] - a[k])
                    lower = c[k] + dx * (d[k] - c[k])
                    row[k] = upper + dy * (lower - upper) + bias[k]
            accumulate(packed, corners, count, channels, channels, weights, widths, flat, places, NO_FLOOR)
        tell(counter)


@compiled
def convolve(
    counter,
    source,  # [n_source + h + 3, stride]
    n_source,
    slots,  # [h * w], of the source
    rows,  # [n]
    height,
    width,
    channels,
    weights,
    bias,  # [stride]
    widths,
    out,  # [n + h + 3, stride], written but for the rows of zeros
    corners,  # [ROOM, size], scratch from here on
    places,  # [ROOM]
):
    """A convolution and ReLU; return whether the source has all pixels that it needs."""
    stride = len(bias)
    flat_source, flat = source.reshape(-1), out.reshape(-1)
    while True:
        begin = claim(counter) * CHUNK
        if begin >= len(rows):
            return True
        count = min(CHUNK, len(rows) - begin)
        if not find_corners(slots, n_source, rows, begin, count, height, width, stride, corners):
            return False
        for n in range(count):
            places[n] = (begin + n + rows[begin + n] // width + 3) * stride
            for c in range(stride):
                flat[places[n] + c] = bias[c]
        accumulate(flat_source, corners, count, stride, channels, weights, widths, flat, places, ZERO)
        tell(counter)


@compiled
def finish(
    counter,
    source,  # [n_source + h + 3, stride]
    n_source,
    slots,  # [h * w], of the source
    rows,  # [n]
    height,
    width,
    channels,
    weights,
    bias,  # [stride]
    widths,
    head,
    head_bias,  # [K]
    head_widths,
    residual,
    logits,  # [K, h * w]
    out,  # [n, K], written
    z,  # [CHUNK * stride], scratch from here on
    sums,  # [CHUNK * K padded to whole vectors], zeros
    corners,  # [ROOM, size]
    places,  # [ROOM]
    head_corners,  # [ROOM, 1]
):
    """A convolution, ReLU and the head; return whether the source has all pixels that it needs."""
    stride, classes = len(bias), len(head_bias)
    head_stride = len(sums) // CHUNK
    flat_source = source.reshape(-1)
    while True:
        begin = claim(counter) * CHUNK
        if begin >= len(rows):
            return True
        count = min(CHUNK, len(rows) - begin)
        if not find_corners(slots, n_source, rows, begin, count, height, width, stride, corners):
            return False
        for n in range(count):
            places[n] = head_corners[n, 0] = n * stride
            for c in range(stride):
                z[n * stride + c] = bias[c]
        accumulate(flat_source, corners, count, stride, channels, weights, widths, z, places, ZERO)
        for n in range(count):
            places[n] = n * head_stride
            for c in range(classes):
                sums[n * head_stride + c] = head_bias[c]
                if residual:
                    sums[n * head_stride + c] += logits[c, rows[begin + n]]
        accumulate(z, head_corners, count, stride, channels, head, head_widths, sums, places, NO_FLOOR)
        for n in range(count):
            for c in range(classes):
                out[begin + n, c] = sums[n * head_stride + c]
        tell(counter)


@inner
def find_corners(
    slots,  # [h * w]
    n_source,
    rows,  # [n]
    begin,
    count,
    height,
    width,
    stride,
    corners,  # [at least count, size], written
):
    """Find where the rows of each pixel's neighbourhood begin; return whether all its pixels are there."""
    side = corners.shape[1]
    reach = side // 2
    i = rows[begin] // width
    for n in range(count):
        pixel = rows[begin + n]
        while pixel >= (i + 1) * width:
            i += 1
        j = pixel - i * width
        for r in range(side):
            k = i - reach + r
            if k < 0 or k >= height:
                corners[n, r] = 0  # the first three rows are zero
                continue
            slot = slots[k * width + j]
            if slot < 0 or slot >= n_source:
                return False
            is_there = j < reach or slots[k * width + j - reach] == slot - reach
            is_there &= j >= width - reach or slots[k * width + j + reach] == slot + reach
            if not is_there:
                return False
            corners[n, r] = (slot + k + 3 - reach) * stride
    return True


@inner
def pack(
    planes,  # [channels * size]
    size,
    channels,
    pixels,  # [n]
    places,  # [n]
    count,
    out,  # [:], written
):
    """Bring the channels of pixels together: `out[places[n] + c] = planes[c * size + pixels[n]]`."""
    # As many streams as channels are more than a processor follows by itself.
    fetched = np.int64(-FETCHED)
    for n in range(count):
        ahead = np.int64(pixels[min(n + AHEAD, count - 1)])
        if ahead >= fetched + FETCHED:
            fetched = ahead
            at = np.uint64(ahead)
            for _ in range(channels):
                prefetch(planes, at)
                at += np.uint64(size)
        # Unsigned: numba does not test for wrap-around, and the loop becomes vector code.
        at, to = np.uint64(pixels[n]), np.uint64(places[n])
        for c in range(channels):
            out[to + np.uint64(c)] = planes[at]
            at += np.uint64(size)


@inner
def accumulate(
    source,  # [:]
    corners,  # [ROOM, size]
    count,
    stride,
    depth,
    weights,
    widths,
    out,  # [:], added to
    places,  # [ROOM]
    floor,
):
    """Add the convolution of `count` pixels, and take what is below the floor up to it."""
    size = corners.shape[1]
    # The last tile computes the last pixel again where it has no other.
    for n in range(count, count + MOST_PIXELS):
        for r in range(size):
            corners[n, r] = corners[count - 1, r]
        places[n] = places[count - 1]
    column, panel = 0, 0
    for v in range(len(widths)):
        vectors = widths[v]
        if vectors == 3:
            for first in range(0, count, PIXELS3):
                tile3(source, corners, first, size, stride, depth, weights, panel, out, places, column, floor)
        elif vectors == 2:
            for first in range(0, count, PIXELS2):
                tile2(source, corners, first, size, stride, depth, weights, panel, out, places, column, floor)
        else:
            for first in range(0, count, PIXELS1):
                tile1(source, corners, first, size, stride, depth, weights, panel, out, places, column, floor)
        column += vectors * LANES
        panel += vectors * LANES * depth * size * size
