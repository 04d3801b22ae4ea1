"""The compiled loops of fusion on the CPU.

Two neighbouring grid rows are held at a time, row i in place `i & 1`: their logits, winners and, where wanted, class
probabilities. Scratch is the caller's, and no array is assigned or made as a whole: both take seconds to compile.
"""

from __future__ import annotations

import numpy as np

from errseg_rt.kernels.compiled import compiled, inner

ZERO, HALF, ONE, QUARTER = np.float32(0), np.float32(0.5), np.float32(1), np.float32(0.25)
INFINITY = np.float32(np.inf)


@compiled
def fuse_rows(
    semantic,  # [C, h * w] float32
    detail,  # [...] float32; class c of the pixel in slot s is at s * pixel_step + c * class_step
    pixel_step,
    class_step,
    slot,  # [h * w] int32, -1 where the semantic logits count
    row_lower,  # [H]
    row_weight,  # [H]
    col_lower,  # [W]
    col_weight,  # [W]
    col_first,  # [cells + 1], first output column of each cell, and W
    begin,
    end,
    logits,  # [2, C, w] float32, scratch
    winner,  # [2, w] int32, scratch
    ready,  # [2, w] bool, scratch: whether the probabilities of a pixel are made
    probabilities,  # [2, w, C] float32, scratch
    peak,  # [w] float32, scratch
    flagged,  # [2, w] int64, scratch
    wanted,  # [w] uint32, scratch
    boundary,  # [w] uint32, scratch
    powers,  # [C, w] float32, scratch
    candidates,  # [C] uint8, scratch
    values,  # [2, C] float32, scratch
    line,  # [W] uint8, scratch
    labels,  # [H, W], rows begin to end are written
    confidence,  # [H, W], or empty; pixels in cells of one class are left alone
):
    """Label the output rows from `begin` to `end`."""
    width = winner.shape[1]
    height = len(slot) // width
    loaded = -1
    y = begin
    while y < end:
        upper = row_lower[y]
        lower = min(upper + 1, height - 1)
        last = y + 1
        while last < end and row_lower[last] == upper:
            last += 1
        for row in range(max(upper, loaded + 1), lower + 1):
            load_row(
                semantic, detail, pixel_step, class_step, slot, row, logits[row & 1], winner[row & 1], peak, flagged
            )
            for j in range(width):
                ready[row & 1, j] = False
        loaded = lower
        up, down = upper & 1, lower & 1

        # Right in cells whose corners agree; the others are written again below.
        for x in range(len(col_lower)):
            line[x] = winner[up, col_lower[x]]
        for row in range(y, last):
            for x in range(len(col_lower)):
                labels[row, x] = line[x]

        count = find_boundaries(winner, up, down, col_first, boundary)
        for i in (up, down):
            softmax(boundary, count, logits[i], winner[i], ready[i], wanted, peak, powers, probabilities[i])
        for n in range(count):
            left = boundary[n]
            right = min(left + 1, width - 1)
            found = find_candidates(probabilities, winner, up, down, left, right, candidates)
            label_cell(
                probabilities,
                up,
                down,
                left,
                right,
                candidates,
                found,
                values,
                y,
                last,
                row_weight,
                col_first[left],
                col_first[left + 1],
                col_weight,
                labels,
                confidence,
            )
        y = last


@inner
def load_row(semantic, detail, pixel_step, class_step, slot, row, logits, winner, peak, flagged):
    """Read one grid row of the selected logits, and find their largest: the lowest class on ties."""
    classes, width = logits.shape
    start = row * width
    count = 0
    for j in range(width):
        if slot[start + j] >= 0:
            flagged[0, count], flagged[1, count] = j, slot[start + j] * pixel_step
            count += 1
    for j in range(width):
        peak[j] = -INFINITY
        winner[j] = 0
    for c in range(classes):
        source = semantic[c, start : start + width]
        for j in range(width):
            logits[c, j] = source[j]
        for n in range(count):
            logits[c, flagged[0, n]] = detail[flagged[1, n] + c * class_step]
        for j in range(width):
            value, largest = logits[c, j], peak[j]
            winner[j] = c if value > largest else winner[j]
            peak[j] = value if value > largest else largest


@inner
def find_boundaries(winner, up, down, col_first, boundary):
    """List the cells that hold output pixels and whose corners disagree."""
    last = winner.shape[1] - 1
    count = 0
    for left in range(len(col_first) - 1):
        right = min(left + 1, last)
        label = winner[up, left]
        same = (winner[up, right] == label) & (winner[down, left] == label) & (winner[down, right] == label)
        if not same and col_first[left] < col_first[left + 1]:
            boundary[count] = left
            count += 1
    return count


@inner
def softmax(boundary, cells, logits, winner, ready, wanted, total, powers, probabilities):
    """Make the probabilities of one grid row at the corners of the boundary cells, where they are not ready."""
    classes, width = logits.shape
    count = 0
    for n in range(cells):
        for j in range(boundary[n], min(boundary[n] + 2, width)):
            if not ready[j]:
                ready[j] = True
                wanted[count] = j
                count += 1
    for n in range(count):
        j = wanted[n]
        total[n] = ZERO
        largest = logits[winner[j], j]
        for c in range(classes):
            powers[c, n] = logits[c, j] - largest
    for c in range(classes):
        for n in range(count):
            powers[c, n] = exp(powers[c, n])
            total[n] += powers[c, n]
    for n in range(count):
        j, scale = wanted[n], ONE / total[n]
        for c in range(classes):
            probabilities[j, c] = powers[c, n] * scale


@inner
def find_candidates(probabilities, winner, up, down, left, right, candidates):
    """List the classes that can win in a cell, ascending.

    The largest probability is nowhere below the mean of those of the corners' winners, so a class that is below this
    mean at all four corners is below the largest everywhere.
    """
    p_mean = mean_of_winners(probabilities, up, left, winner, up, down, left, right)
    q_mean = mean_of_winners(probabilities, up, right, winner, up, down, left, right)
    r_mean = mean_of_winners(probabilities, down, left, winner, up, down, left, right)
    s_mean = mean_of_winners(probabilities, down, right, winner, up, down, left, right)
    found = 0
    for c in range(probabilities.shape[2]):
        candidates[found] = c
        upper = (probabilities[up, left, c] >= p_mean) | (probabilities[up, right, c] >= q_mean)
        lower = (probabilities[down, left, c] >= r_mean) | (probabilities[down, right, c] >= s_mean)
        found += upper | lower
    return found


@inner
def mean_of_winners(probabilities, i, j, winner, up, down, left, right):
    """Mean probability, at one corner, of the winners of all four.

    Summed in pairs, so that rounding cannot lift the mean above its largest term.
    """
    upper = probabilities[i, j, winner[up, left]] + probabilities[i, j, winner[up, right]]
    lower = probabilities[i, j, winner[down, left]] + probabilities[i, j, winner[down, right]]
    return QUARTER * (upper + lower)


@inner
def label_cell(
    probabilities,
    up,
    down,
    left,
    right,
    candidates,
    found,
    values,
    first,
    last,
    row_weight,
    begin,
    end,
    col_weight,
    labels,
    confidence,
):
    """Label the output pixels of a cell: rows from `first` to `last`, columns from `begin` to `end`."""
    for y in range(first, last):
        weight = row_weight[y]
        for n in range(found):
            c = candidates[n]
            p, r = probabilities[up, left, c], probabilities[down, left, c]
            q, s = probabilities[up, right, c], probabilities[down, right, c]
            values[0, n] = p + (r - p) * weight
            values[1, n] = q + (s - q) * weight - values[0, n]
        for x in range(begin, end):
            label, largest = candidates[0], values[0, 0] + values[1, 0] * col_weight[x]
            for n in range(1, found):
                value = values[0, n] + values[1, n] * col_weight[x]
                label = candidates[n] if value > largest else label
                largest = value if value > largest else largest
            labels[y, x] = label
            if len(confidence) > 0:
                confidence[y, x] = largest


@compiled
def certainty_rows(
    semantic,
    detail,
    pixel_step,
    class_step,
    slot,
    begin,
    end,
    logits,  # [C, w] float32, scratch
    winner,  # [w] int32, scratch
    peak,
    flagged,
    certainty,  # [h, w], rows begin to end are written
):
    """Find the largest probability at every pixel of some grid rows; operands as those of `fuse_rows`."""
    classes, width = logits.shape
    for i in range(begin, end):
        load_row(semantic, detail, pixel_step, class_step, slot, i, logits, winner, peak, flagged)
        for j in range(width):
            certainty[i, j] = ZERO
        for c in range(classes):
            for j in range(width):
                certainty[i, j] += exp(logits[c, j] - peak[j])
        for j in range(width):
            certainty[i, j] = ONE / certainty[i, j]


@compiled
def upsample_rows(values, row_lower, row_weight, col_lower, col_weight, begin, end, base, output):
    """Interpolate a map at the output rows from `begin` to `end`; `base` is scratch of one grid row."""
    height, width = values.shape
    for y in range(begin, end):
        upper = row_lower[y]
        lower = min(upper + 1, height - 1)
        for x in range(width):
            base[x] = values[upper, x] + (values[lower, x] - values[upper, x]) * row_weight[y]
        for x in range(len(col_lower)):
            left = base[col_lower[x]]
            output[y, x] = left + (base[min(col_lower[x] + 1, width - 1)] - left) * col_weight[x]


# Cephes expf: exp(x) = 2**n * exp(r), |r| <= log(2) / 2, with log(2) split in two; relative error below 2e-7.
LOWEST, LOG2_E = np.float32(-87), np.float32(1.44269504088896341)
LOG_2_HIGH, LOG_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
P0, P1, P2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
P3, P4, P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)


@inner
def exp(x):
    """Exponential of x <= 0, and 1e-38 below -87; unlike a call of libm this becomes vector instructions."""
    x = x if x > LOWEST else LOWEST
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LOG_2_HIGH - n * LOG_2_LOW
    power = (((((P0 * r + P1) * r + P2) * r + P3) * r + P4) * r + P5) * r * r + r + ONE
    return power * np.int32((np.int32(n) + 127) << 23).view(np.float32)


# A factor of 2**112 takes the exponent's bias from float16's 15 to float32's 127, in subnormal numbers too.
REBIAS = np.float32(2.0**112)
LARGEST_FLOAT16 = np.float32(65504)


@compiled
def widen(bits, begin, end, wide):
    """Turn halves, given as their bits, into float32."""
    for k in range(begin, end):
        value = np.int32(bits[k])
        size = np.int32((value & 0x7FFF) << 13).view(np.float32) * REBIAS
        size = INFINITY if size > LARGEST_FLOAT16 else size
        wide[k] = -size if value & 0x8000 else size
