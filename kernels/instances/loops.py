"""The compiled loops of finding instances on the CPU."""

from __future__ import annotations

import math

import numpy as np

from errseg_rt.kernels.compiled import compiled, inner
from errseg_rt.kernels.fuse_labels.loops import load_row
from errseg_rt.kernels.instances import operands

ONE, LEAST_SIDE = np.float64(operands.ONE), np.float32(operands.LEAST_SIDE)
WHOLE = np.int32(operands.ONE)
ZERO, HALF, INFINITY = np.float32(0), np.float32(0.5), np.float32(np.inf)
UNIT = np.float32(1)
NEGLIGIBLE = np.float64(-40)  # a class so far below the best one adds less to a sum of powers than that is rounded by
PIXEL_BITS, MOST_THINGS = 24, 256  # of a key, which is signed: things are counted from -128
SIDE = 8  # grid cells of a bin, each way
FEW = 64  # bins that a hypothesis is noted in at most; one that is wanted in more is looked at by every pixel
SLACK = np.float32(1)  # grid cells, for what is rounded


@compiled
def rank_rows(
    semantic,  # [C, h * w] float32, and the next four, as `fuse_rows` takes them
    detail,
    pixel_step,
    class_step,
    slot,
    thing_of,  # [C] int32
    cols,  # seen
    begin,
    end,
    logits,  # [C, w] float32, scratch
    winner,  # [w] int32, scratch
    peak,  # [w] float32, scratch
    flagged,  # [2, w] int64, scratch
    classes,  # [n, w] int32, scratch: the classes of each pixel by falling logit
    values,  # [n, w] float32, scratch: their logits
    things,  # [n, h * w] int32, rows begin to end are written, and so below; -1: the class there is no thing
    margins,  # [n, h * w] float32, where there is a thing, and so below
    scores,  # [n, h * w] int32, in steps
):
    """Find the n best classes at every pixel of some grid rows: which are things, their margins and scores."""
    width, top = len(winner), len(things)
    for i in range(begin, end):
        load_row(semantic, detail, pixel_step, class_step, slot, i, logits, winner, peak, flagged)
        things[:, i * width : (i + 1) * width] = -1
        found = False
        for j in range(cols):
            classes[0, j], values[0, j] = winner[j], peak[j]
            found |= thing_of[winner[j]] >= 0
        if not found and top == 1:
            continue
        for n in range(1, top):
            next_best(logits, classes[n - 1], values[n - 1], classes[n], values[n], cols)
        for j in range(cols):
            total, second = np.float64(0), ZERO
            for n in range(top):
                label = classes[n, j]
                if label < 0 or thing_of[label] < 0:
                    continue
                if total == 0:
                    total, second = powers(logits, j, winner[j])
                at = i * width + j
                things[n, at] = thing_of[label]
                margins[n, at] = values[n, j] - (second if n == 0 else peak[j])
                power = math.exp(np.float64(values[n, j]) - np.float64(peak[j]))
                scores[n, at] = np.int32(power / total * ONE + 0.5)


@inner
def next_best(logits, last_class, last_value, label, value, cols):
    """Find the class that comes after one that is given, by falling logit, ties by index; -1 for none."""
    for j in range(cols):
        label[j], value[j] = -1, -INFINITY
    for c in range(len(logits)):
        for j in range(cols):
            logit, last = logits[c, j], last_value[j]
            is_better = ((logit < last) | ((logit == last) & (c > last_class[j]))) & (logit > value[j])
            label[j] = c if is_better else label[j]
            value[j] = logit if is_better else value[j]


@inner
def powers(logits, j, winner):
    """Of a pixel's logits the sum of exp(logit - largest), and the largest but for the winner's."""
    total, second, peak = np.float64(1), -INFINITY, np.float64(logits[winner, j])
    for c in range(len(logits)):
        if c != winner:
            second = max(second, logits[c, j])
            below = np.float64(logits[c, j]) - peak
            if below > NEGLIGIBLE:
                total += math.exp(below)
    return total, second


@compiled
def list_candidates(things, margins, top, keys):
    """Write a key for each candidate of the top-n masks, so that they sort by thing, margin and index; how many."""
    count = 0
    for n in range(top):
        for pixel in range(things.shape[1]):
            thing = things[n, pixel]
            if thing >= 0:
                # As integers, the bits of positive floats have their order, those of negative ones the opposite order.
                bits = np.int64(np.float32(margins[n, pixel] + ZERO).view(np.int32))
                ascending = bits if bits >= 0 else bits ^ 0x7FFFFFFF
                rank = (np.int64(thing - MOST_THINGS // 2) << 32) + (0x7FFFFFFF - ascending)
                keys[count] = (rank << PIXEL_BITS) | pixel
                count += 1
    return count


@compiled
def group(
    keys,  # [N] int64, of one thing, sorted
    boxes,  # [4, h, w] float32
    things,  # [n, h * w] int32
    thing,
    hops,  # how often a box gives way to that of the pixel at its centre
    agreement,  # whether a candidate's score counts times the IoU of its own box with its hypothesis's one
    share,  # of the sum of areas
    reach,  # how far centres of boxes that overlap so much may lie apart, as a share of a box's side
    seeds,  # [5, most] float32, scratch: corners and area of each hypothesis's box
    first,  # [bins] int32, scratch of -1, left so: the first note of a bin, like the next
    last,
    following,  # [notes] int32, scratch
    noted,  # [notes] int32, scratch
    wide,  # [most] int32, scratch
    owner,  # [N] int32, written: the hypothesis of each candidate, -1 where there were too many
    weights,  # [N] int32, written: how far its score counts, in steps
):
    """Greedy NMS: a candidate belongs to the first hypothesis it overlaps with; one that has none becomes the next.

    Hypotheses are noted in the bins where the centres of such boxes may lie, in their order. How many there are.
    """
    height, width = boxes.shape[1:]
    bin_rows, bin_cols = -(-height // SIDE), -(-width // SIDE)
    count, notes, wides, most = 0, 0, 0, seeds.shape[1]
    for k in range(len(keys)):
        pixel = keys[k] & ((1 << PIXEL_BITS) - 1)
        y, x, tall, broad = box_of(boxes, pixel)
        own = corners_of(y, x, tall, broad)
        box = own
        for _ in range(hops):
            centre = pixel_at(y, x, height, width)
            if centre < 0 or centre == pixel or things[0, centre] != thing:
                break
            next_y, next_x, next_tall, next_broad = box_of(boxes, centre)
            next_box = corners_of(next_y, next_x, next_tall, next_broad)
            if not intersection(box, next_box) > share * (box[4] + next_box[4]):
                break
            pixel, y, x, tall, broad, box = centre, next_y, next_x, next_tall, next_broad, next_box
        top, left, bottom, right, area = box
        found = -1
        note = first[bin_of(y, bin_rows) * bin_cols + bin_of(x, bin_cols)]
        while note >= 0 and found < 0:
            if overlaps(seeds, noted[note], top, left, bottom, right, area, share):
                found = noted[note]
            note = following[note]
        for n in range(wides):
            if 0 <= found < wide[n]:
                break
            if overlaps(seeds, wide[n], top, left, bottom, right, area, share):
                found = wide[n]
                break
        if found < 0 and count < most:
            found = count
            count += 1
            seeds[0, found], seeds[1, found], seeds[2, found] = top, left, bottom
            seeds[3, found], seeds[4, found] = right, area
            up, down = bins_of(y, reach * tall + SLACK, bin_rows)
            before, behind = bins_of(x, reach * broad + SLACK, bin_cols)
            if (down - up) * (behind - before) > FEW:
                wide[wides] = found
                wides += 1
            else:
                for row in range(up, down):
                    for col in range(before, behind):
                        at = row * bin_cols + col
                        if first[at] < 0:
                            first[at] = notes
                        else:
                            following[last[at]] = notes
                        last[at], noted[notes], following[notes] = notes, found, -1
                        notes += 1
        owner[k] = found
        weights[k] = agreement_of(seeds, found, own) if agreement and found >= 0 else WHOLE
    first[:] = -1
    return count


@inner
def box_of(boxes, pixel):
    """Centre and sides of a pixel's box."""
    i, j = pixel // boxes.shape[2], pixel % boxes.shape[2]
    y, x = np.float32(i) + boxes[0, i, j], np.float32(j) + boxes[1, i, j]
    return y, x, max(boxes[2, i, j], LEAST_SIDE), max(boxes[3, i, j], LEAST_SIDE)


@inner
def corners_of(y, x, tall, broad):
    """Top, left, bottom and right of a box, and its area."""
    top, left = y - HALF * tall, x - HALF * broad
    bottom, right = y + HALF * tall, x + HALF * broad
    return top, left, bottom, right, (bottom - top) * (right - left)


@inner
def intersection(box, other):
    """Area that two boxes share, of their corners."""
    tall = min(box[2], other[2]) - max(box[0], other[0])
    broad = min(box[3], other[3]) - max(box[1], other[1])
    return max(tall, ZERO) * max(broad, ZERO)


@inner
def agreement_of(seeds, n, box):
    """IoU of a box with a hypothesis's, in steps."""
    shared = intersection((seeds[0, n], seeds[1, n], seeds[2, n], seeds[3, n]), box)
    if not ((shared > ZERO) & (shared < INFINITY)):
        return np.int32(0)
    share = shared / (seeds[4, n] + box[4])
    return np.int32(share / (UNIT - share) * np.float32(ONE) + HALF)


@inner
def pixel_at(y, x, height, width):
    """The pixel in whose cell a place lies; -1 beyond the grid."""
    y, x = y + HALF, x + HALF
    if not ((y >= ZERO) & (y < np.float32(height)) & (x >= ZERO) & (x < np.float32(width))):
        return -1
    return np.int64(y) * width + np.int64(x)


@inner
def bin_of(place, bins):
    """Bin of a place along one axis; places beyond the grid, and NaN, are in the outermost ones."""
    last = np.float32(SIDE * (bins - 1))
    place = place if place > ZERO else ZERO
    return np.int64(place if place < last else last) // SIDE


@inner
def bins_of(place, distance, bins):
    """The first bin that lies within a distance of a place, and the one after the last."""
    return bin_of(place - distance, bins), bin_of(place + distance, bins) + 1


@inner
def overlaps(seeds, n, top, left, bottom, right, area, share):
    """Whether a box overlaps enough with a hypothesis's."""
    tall = min(seeds[2, n], bottom) - max(seeds[0, n], top)
    broad = min(seeds[3, n], right) - max(seeds[1, n], left)
    return (tall > ZERO) & (broad > ZERO) & (tall * broad > share * (seeds[4, n] + area))


@compiled
def weigh(keys, owner, weights, thing, things, scores, top, before, owners, sizes, totals):
    """Count the pixels of each hypothesis of a mask, and sum their scores.

    Args:
        keys: [N] int64, of one thing.
        owner: [N] int32, its hypotheses, counted from 0.
        weights: [N] int32, how far a score counts, in steps.
        thing: Which one.
        things: [n, h * w] int32.
        scores: [n, h * w] int32.
        top: Of the mask.
        before: Hypotheses of the masks before, which the numbers of these follow in `owners`.
        owners: [n (n + 1) / 2, h * w] int32, written: hypotheses by pixel, in a line for each class of each top-n mask.
        sizes: [m] int64, added to.
        totals: [m] int64, added to.
    """
    for k in range(len(keys)):
        found = owner[k]
        if found >= 0:
            pixel = keys[k] & ((1 << PIXEL_BITS) - 1)
            n = 0
            while things[n, pixel] != thing:
                n += 1
            owners[top * (top - 1) // 2 + n, pixel] = before + found
            sizes[found] += 1
            totals[found] += np.int64(scores[n, pixel]) * weights[k] // WHOLE


@compiled
def accept(order, begins, pixels, owners, sizes, share, most, number_of, shared):
    """Region NMS: number the hypotheses that overlap with no more confident one; how many there are.

    Args:
        order: [m] int64, hypotheses by falling confidence.
        begins: [all + 1] int64, where the pixels of each begin.
        pixels: [...] int64, pixels of the hypotheses.
        owners: As `weigh` writes them.
        sizes: [all] int64, pixels of each.
        share: Of the sum of two sizes.
        most: Of those that are numbered.
        number_of: [all] int32 of 0, written: their numbers, from 1.
        shared: [all] int64 of 0, scratch: pixels that a hypothesis has in common with each.
    """
    count = 0
    for found in order:
        if count == most:
            break
        is_free = True
        for k in range(begins[found], begins[found + 1]):
            for line in range(len(owners)):
                other = owners[line, pixels[k]]
                if other >= 0 and number_of[other] > 0:
                    shared[other] += 1
                    bound = share * np.float32(sizes[found] + sizes[other])
                    is_free &= not np.float32(shared[other]) > bound
        for k in range(begins[found], begins[found + 1]):
            for line in range(len(owners)):
                if owners[line, pixels[k]] >= 0:
                    shared[owners[line, pixels[k]]] = 0
        if is_free:
            count += 1
            number_of[found] = count
    return count


@compiled
def number_pixels(owners, number_of, on_grid):
    """Give each grid pixel the least number of its hypotheses, 0 for none."""
    for pixel in range(len(on_grid)):
        best = 0
        for line in range(len(owners)):
            found = owners[line, pixel]
            number = number_of[found] if found >= 0 else 0
            best = number if number > 0 and (best == 0 or number < best) else best
        on_grid[pixel] = best


@compiled
def paint_rows(
    on_grid,  # [h, w] int32
    classes,  # [most] int32
    labels,  # [H, W] uint8
    row_lower,  # [H] int32
    row_weight,  # [H] int64, share of the next grid row, in parts of
    row_unit,
    col_weight,  # [W] int64, likewise
    col_unit,
    col_first,  # [cells + 1] int64, the first output column of each cell, and W
    begin,
    end,
    mixed,  # [w] int32, scratch: cells whose corners disagree
    line,  # [W] int32, scratch: the instance of the cells whose corners agree
    label_of,  # [W] int32, scratch: its class
    output,  # [H, W] int32, rows begin to end are written
):
    """Give the pixels of the frame's rows from `begin` to `end` their instances."""
    height, width = on_grid.shape
    y = begin
    while y < end:
        upper = row_lower[y]
        lower = min(upper + 1, height - 1)
        last = y + 1
        while last < end and row_lower[last] == upper:
            last += 1
        count = 0
        for left in range(len(col_first) - 1):
            right = min(left + 1, width - 1)
            number = on_grid[upper, left]
            is_same = (on_grid[upper, right] == number) & (on_grid[lower, left] == number)
            if not (is_same & (on_grid[lower, right] == number)):
                mixed[count] = left
                count += 1
                number = 0
            label = classes[number - 1] if number > 0 else 0
            for x in range(col_first[left], col_first[left + 1]):
                line[x], label_of[x] = number, label
        for row in range(y, last):
            for x in range(len(line)):
                output[row, x] = line[x] if np.int32(labels[row, x]) == label_of[x] else 0
            up, down = row_unit - row_weight[row], row_weight[row]
            for n in range(count):
                left = mixed[n]
                right = min(left + 1, width - 1)
                p, q = on_grid[upper, left], on_grid[upper, right]
                r, s = on_grid[lower, left], on_grid[lower, right]
                for x in range(col_first[left], col_first[left + 1]):
                    label = np.int32(labels[row, x])
                    before, behind = col_unit - col_weight[x], col_weight[x]
                    output[row, x] = largest(
                        if_of(p, label, classes),
                        if_of(q, label, classes),
                        if_of(r, label, classes),
                        if_of(s, label, classes),
                        up * before,
                        up * behind,
                        down * before,
                        down * behind,
                    )
        y = last


@inner
def if_of(number, label, classes):
    """An instance's number if it is of a class, else 0."""
    return number if number > 0 and classes[number - 1] == label else 0


@inner
def largest(p, q, r, s, p_share, q_share, r_share, s_share):
    """Of the numbers at four corners the one with the largest share, 0 where all are 0; ties: the lower number."""
    same_q, same_r, same_s = q == p, r == p, s == p
    most = p_share + (q_share if same_q else 0) + (r_share if same_r else 0) + (s_share if same_s else 0)
    best, most = (p, most) if p > 0 and most > 0 else (0, 0)
    if q > 0 and not same_q:
        best, most = better(best, most, q, q_share + (r_share if r == q else 0) + (s_share if s == q else 0))
    if r > 0 and not same_r and r != q:
        best, most = better(best, most, r, r_share + (s_share if s == r else 0))
    if s > 0 and not same_s and s != q and s != r:
        best, most = better(best, most, s, s_share)
    return best


@inner
def better(best, most, number, share):
    """The number with the larger share, and that; ties: the lower number."""
    if share > most or (share == most and 0 < number < best):
        return number, share
    return best, most
