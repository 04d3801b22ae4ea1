"""The kernels that find instances on GPUs.

A program works on the mask of a thing alone: it lists the candidates, takes the first of them, marks those that this
one suppresses and finds the next first on the way, until none is left. All that is added up is added in integers, so
that nothing depends on the order in which programs run.
"""

from __future__ import annotations

import triton
import triton.language as tl

from errseg_rt.kernels.fuse_labels.triton_kernels import find_logits, logit
from errseg_rt.kernels.instances import operands

ONE, LEAST_SIDE = tl.constexpr(float(operands.ONE)), tl.constexpr(operands.LEAST_SIDE)
# Below every key of a candidate, and of a hypothesis.
NEVER: tl.constexpr = tl.constexpr(-(1 << 63))
LOW = tl.constexpr(0x7FFFFFFF)
ONE_BITS = tl.constexpr(operands.ONE.bit_length() - 1)
# Which of a pixel's classes; the spec allows 8.
CLASS_BITS, CLASS_MASK = tl.constexpr(3), tl.constexpr(7)

SIZES = ["height", "width", "pixels", "most", "masks", "tops"]
AXES = [f"{axis}_{name}" for axis in ("row", "col") for name in ("slope", "offset", "first", "last", "unit", "cell")]


@triton.jit(do_not_specialize=[*SIZES, "detail_rows", "rows", "cols"])
def rank_pixels(
    semantic,  # [C, h, w]
    detail,  # [C, h, w] or [n, C]
    flagged,  # [h, w], bool or rows
    boxes,  # [4 T, h, w] float32
    table,  # [C] float32
    detail_rows,
    height,
    width,
    rows,  # seen, like cols
    cols,
    things,  # [n, h * w] int32, written: the things among the n best classes, -1 for others
    ranks,  # [n, h * w] int32, written: their margins, as integers of the same order
    scores,  # [n, h * w] int32, written: in steps
    corners,  # [5, n, h * w] float32, written: top, left, bottom, right and area of their boxes
    CLASSES: tl.constexpr,
    DETAIL: tl.constexpr,
    TOP: tl.constexpr,
    PIXELS: tl.constexpr,  # of a tile, here and below
):
    """Find the n best classes of each pixel, and what is known of it as one of a thing's."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    plane = height.to(tl.int64) * width
    in_grid = pixel < height * width
    i, j = pixel // width, pixel % width
    is_seen = (i < rows) & (j < cols)
    at, step = find_logits(semantic, detail, flagged, pixel, plane, in_grid, detail_rows, CLASSES, DETAIL)
    peak = tl.full((PIXELS,), float("-inf"), tl.float32)
    second, winner = peak, tl.full((PIXELS,), -1, tl.int32)
    for c in range(CLASSES):
        value = logit(at, c, step, in_grid)
        second = tl.where(value > peak, peak, tl.maximum(value, second))
        winner = tl.where(value > peak, c, winner)
        peak = tl.maximum(value, peak)
    total = tl.zeros((PIXELS,), tl.float64)
    for c in range(CLASSES):
        total += tl.exp(logit(at, c, step, in_grid).to(tl.float64) - peak.to(tl.float64))
    label, own = winner, peak
    for n in tl.static_range(TOP):
        if n > 0:
            label, own = next_best(at, step, in_grid, label, own, CLASSES, PIXELS)
        thing = tl.load(table + label, mask=in_grid & is_seen & (label >= 0), other=-1).to(tl.int32)
        is_thing = thing >= 0
        margin = own - (second if n == 0 else peak)
        share = tl.exp(own.to(tl.float64) - peak.to(tl.float64)) / total
        # Zeros of both signs are one number. As integers, the bits of positive floats have their order, those of
        # negative ones the opposite order.
        bits = tl.where(margin == 0, 0.0, margin).to(tl.int32, bitcast=True)
        of_class = n * plane + pixel
        tl.store(things + of_class, thing, mask=in_grid)
        tl.store(ranks + of_class, tl.where(bits >= 0, bits, bits ^ LOW), mask=in_grid)
        tl.store(scores + of_class, (share * ONE + 0.5).to(tl.int32), mask=in_grid)
        box = boxes + 4 * thing.to(tl.int64) * plane + pixel
        y = i.to(tl.float32) + tl.load(box, mask=is_thing, other=0)
        x = j.to(tl.float32) + tl.load(box + plane, mask=is_thing, other=0)
        tall = 0.5 * tl.maximum(tl.load(box + 2 * plane, mask=is_thing, other=0), LEAST_SIDE)
        broad = 0.5 * tl.maximum(tl.load(box + 3 * plane, mask=is_thing, other=0), LEAST_SIDE)
        top, left, bottom, right = y - tall, x - broad, y + tall, x + broad
        line = TOP * plane
        tl.store(corners + of_class, top, mask=in_grid)
        tl.store(corners + line + of_class, left, mask=in_grid)
        tl.store(corners + 2 * line + of_class, bottom, mask=in_grid)
        tl.store(corners + 3 * line + of_class, right, mask=in_grid)
        tl.store(corners + 4 * line + of_class, (bottom - top) * (right - left), mask=in_grid)


@triton.jit
def next_best(at, step, in_grid, last_label, last, CLASSES: tl.constexpr, PIXELS: tl.constexpr):
    """The class that comes after one that is given, by falling logit, ties by index; -1 for none."""
    own, label = tl.full((PIXELS,), float("-inf"), tl.float32), tl.full((PIXELS,), -1, tl.int32)
    for c in range(CLASSES):
        value = logit(at, c, step, in_grid)
        is_better = ((value < last) | ((value == last) & (c > last_label))) & (value > own)
        label = tl.where(is_better, c, label)
        own = tl.where(is_better, value, own)
    return label, own


@triton.jit(do_not_specialize=SIZES)
def hop_boxes(
    boxes,  # [4 T, h, w] float32
    things,  # [n, h * w] int32
    corners,  # [5, n, h * w] float32, as `rank_pixels` writes them
    height,
    width,
    overlap,  # share of the sum of areas
    hopped,  # the same size, written: those of the pixels that others' boxes lead to
    HOPS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Give pixels the boxes of those at the centres of theirs, where best class and box are like their own."""
    pixel, n = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.program_id(1)
    plane = height.to(tl.int64) * width
    in_grid = pixel < height * width
    thing = tl.load(things + n * plane + pixel, mask=in_grid, other=-1)
    is_thing, line = thing >= 0, tl.num_programs(1) * plane
    of_thing = boxes + 4 * thing.to(tl.int64) * plane
    here, source = pixel, n * plane + pixel
    for _ in tl.static_range(HOPS):
        y = (here // width).to(tl.float32) + tl.load(of_thing + here, mask=is_thing, other=0) + 0.5
        x = (here % width).to(tl.float32) + tl.load(of_thing + plane + here, mask=is_thing, other=0) + 0.5
        is_hop = is_thing & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        centre = tl.where(is_hop, y, 0).to(tl.int32) * width + tl.where(is_hop, x, 0).to(tl.int32)
        is_hop = is_hop & (tl.load(things + centre, mask=is_hop, other=-1) == thing)
        shared = intersection(corners + source, corners + centre, line, is_hop)
        areas = tl.load(corners + 4 * line + source, mask=is_hop, other=0)
        areas += tl.load(corners + 4 * line + centre, mask=is_hop, other=0)
        is_hop = is_hop & (shared > overlap * areas)
        here, source = tl.where(is_hop, centre, here), tl.where(is_hop, centre, source)
    for k in tl.static_range(5):
        value = tl.load(corners + k * line + source, mask=is_thing, other=0)
        tl.store(hopped + k * line + n * plane + pixel, value, mask=in_grid)


@triton.jit
def intersection(box, other, line, is_one):
    """Area that boxes share, of where their corners lie, a line for each."""
    tall = tl.minimum(tl.load(box + 2 * line, mask=is_one, other=0), tl.load(other + 2 * line, mask=is_one, other=0))
    tall -= tl.maximum(tl.load(box, mask=is_one, other=0), tl.load(other, mask=is_one, other=0))
    broad = tl.minimum(tl.load(box + 3 * line, mask=is_one, other=0), tl.load(other + 3 * line, mask=is_one, other=0))
    broad -= tl.maximum(tl.load(box + line, mask=is_one, other=0), tl.load(other + line, mask=is_one, other=0))
    return tl.maximum(tall, 0.0) * tl.maximum(broad, 0.0)


@triton.jit(do_not_specialize=["size"])
def clear(values, size, VALUE: tl.constexpr, PIXELS: tl.constexpr):
    """Fill an array."""
    at = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    tl.store(values + at, tl.full((PIXELS,), VALUE, tl.int32), mask=at < size)


@triton.jit(do_not_specialize=SIZES)
def count_members(
    things,  # [n, h * w] int32
    pixels,  # h * w
    counts,  # [T * n] int32, written: candidates of each mask, that of thing t and n classes at t * n + n - 1
    PIXELS: tl.constexpr,
):
    """Count the candidates of the masks; a program each, for a thing and a number of classes."""
    thing, top = tl.program_id(0), tl.program_id(1) + 1
    count = tl.full((), 0, tl.int32)
    first = 0
    while first < top * pixels:
        at = first + tl.arange(0, PIXELS)
        count += tl.sum((tl.load(things + at, mask=at < top * pixels, other=-1) == thing).to(tl.int32), axis=0)
        first += PIXELS
    tl.store(counts + thing * tl.num_programs(1) + top - 1, count)


@triton.jit(do_not_specialize=SIZES)
def group_members(
    things,  # [n, h * w] int32
    ranks,  # [n, h * w] int32
    corners,  # [5, n, h * w] float32
    counts,  # [T * n] int32
    pixels,
    most,  # hypotheses of a mask
    share,  # of the sum of areas
    members,  # [n (n + 1) / 2 * h * w] int32, written: candidates of each mask, as places in `things`
    turns,  # the same size, int64, written: their keys, the largest first
    owner,  # the same size, written: the hypothesis of each, of the mask's; -1 where there were too many
    begins,  # [T * n] int64, written: where a mask's candidates begin
    found,  # [T * n] int32, written: how many hypotheses it has
    firsts,  # [T * n * most] int32, written as far as `found`: its first pixel, as a place in `things`
    THINGS: tl.constexpr,  # at least T
    PIXELS: tl.constexpr,
):
    """Greedy NMS of the boxes of a mask's candidates."""
    thing, top, tops = tl.program_id(0), tl.program_id(1) + 1, tl.num_programs(1)
    mask = thing * tops + top - 1
    others = tl.arange(0, THINGS)
    line = (top * (top - 1) // 2) * pixels.to(tl.int64)
    begin = line + tl.sum(tl.load(counts + others * tops + top - 1, mask=others < thing, other=0).to(tl.int64), axis=0)
    tl.store(begins + mask, begin)
    members += begin
    turns += begin
    owner += begin

    lane = tl.arange(0, PIXELS)
    size = tl.full((), 0, tl.int32)
    best = tl.full((PIXELS,), NEVER, tl.int64)
    first = 0
    while first < top * pixels:
        at = first + lane
        is_member = tl.load(things + at, mask=at < top * pixels, other=-1) == thing
        place = size + tl.cumsum(is_member.to(tl.int32), axis=0) - 1
        tl.store(members + place, at, mask=is_member)
        tl.store(owner + place, tl.full((PIXELS,), -1, tl.int32), mask=is_member)
        key = key_of(tl.load(ranks + at, mask=is_member, other=0), at, pixels)
        tl.store(turns + place, key, mask=is_member)
        best = tl.maximum(best, tl.where(is_member, key, NEVER))
        size += tl.sum(is_member.to(tl.int32), axis=0)
        first += PIXELS
    tl.debug_barrier()  # a thread reads what others have written

    plane = tops * pixels.to(tl.int64)
    leader = tl.max(best, axis=0)
    count = tl.full((), 0, tl.int32)
    while (leader != NEVER) & (count < most):
        turn = LOW - (leader & 0xFFFFFFFF)
        seed = (turn & CLASS_MASK) * pixels + (turn >> CLASS_BITS)
        seed_top, seed_left = tl.load(corners + seed), tl.load(corners + plane + seed)
        seed_bottom, seed_right = tl.load(corners + 2 * plane + seed), tl.load(corners + 3 * plane + seed)
        seed_area = tl.load(corners + 4 * plane + seed)
        best = tl.full((PIXELS,), NEVER, tl.int64)
        first = 0
        while first < size:
            place = first + lane
            is_left = tl.load(owner + place, mask=place < size, other=0) < 0
            at = tl.load(members + place, mask=is_left, other=0)
            top_edge = tl.load(corners + at, mask=is_left, other=0)
            left_edge = tl.load(corners + plane + at, mask=is_left, other=0)
            bottom_edge = tl.load(corners + 2 * plane + at, mask=is_left, other=0)
            right_edge = tl.load(corners + 3 * plane + at, mask=is_left, other=0)
            area = tl.load(corners + 4 * plane + at, mask=is_left, other=0)
            tall = tl.minimum(seed_bottom, bottom_edge) - tl.maximum(seed_top, top_edge)
            broad = tl.minimum(seed_right, right_edge) - tl.maximum(seed_left, left_edge)
            is_over = (tall > 0) & (broad > 0) & (tall * broad > share * (seed_area + area))
            is_taken = is_left & (is_over | (at == seed))
            tl.store(owner + place, count + tl.zeros_like(at), mask=is_taken)
            best = tl.maximum(best, tl.load(turns + place, mask=is_left & ~is_taken, other=NEVER))
            first += PIXELS
        tl.store(firsts + mask * most + count, seed)
        leader = tl.max(best, axis=0)
        count += 1
        tl.debug_barrier()
    tl.store(found + mask, count)


@triton.jit(do_not_specialize=SIZES)
def weigh_members(
    members,  # as `group_members` writes them, as what follows
    owner,
    counts,  # [T * n] int32
    begins,  # [T * n] int64
    firsts,  # [T * n * most] int32
    scores,  # [n, h * w] int32
    corners,  # [5, n, h * w] float32
    own_corners,  # the same size: before any hop
    pixels,
    most,
    tops,  # n
    owners,  # [n (n + 1) / 2, h * w] int32, written where there is one: the hypothesis, of all
    sizes,  # [T * n * most] int32, added to: how many pixels each hypothesis has
    totals,  # [T * n * most] int64, added to: the sum of their scores
    AGREEMENT: tl.constexpr,  # whether scores count times the IoU of a pixel's own box with that of the first one
    PIXELS: tl.constexpr,
):
    """What a mask's hypotheses consist of: each pixel's, and pixels and scores of each."""
    mask = tl.program_id(1)
    top = mask % tops + 1
    place = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    is_member = place < tl.load(counts + mask)
    begin = tl.load(begins + mask)
    own = tl.load(owner + begin + place, mask=is_member, other=-1)
    at = tl.load(members + begin + place, mask=own >= 0, other=0)
    line = (top * (top - 1) // 2) * pixels.to(tl.int64)
    hypothesis = mask * most + own
    tl.store(owners + line + at, hypothesis, mask=own >= 0)
    score = tl.load(scores + at, mask=own >= 0, other=0).to(tl.int64)
    if AGREEMENT:
        seeds = tl.load(firsts + hypothesis, mask=own >= 0, other=0)
        agreement = agreement_of(corners + seeds, own_corners + at, tops * pixels.to(tl.int64), own >= 0)
        score = (score * agreement) >> ONE_BITS
    tl.atomic_add(sizes + hypothesis, 1, mask=own >= 0, sem="relaxed")
    tl.atomic_add(totals + hypothesis, score, mask=own >= 0, sem="relaxed")


@triton.jit
def agreement_of(box, other, line, is_one):
    """IoU of boxes, in steps, of where their corners and areas lie, a line for each."""
    shared = intersection(box, other, line, is_one)
    is_some = (shared > 0) & (shared < float("inf"))
    both = tl.load(box + 4 * line, mask=is_one, other=0) + tl.load(other + 4 * line, mask=is_one, other=0)
    share = tl.div_rn(tl.where(is_some, shared, 0.0), tl.where(is_some, both, 1.0))
    return (tl.div_rn(share, 1 - share) * ONE + 0.5).to(tl.int32)


@triton.jit
def key_of(rank, at, pixels):
    """The turn of candidates at places in `things`: the larger, the earlier; ties by the pixel's index."""
    turn = ((at % pixels) << CLASS_BITS) | (at // pixels)
    return (rank.to(tl.int64) << 32) + (LOW - turn)


@triton.jit(do_not_specialize=[*SIZES, "least_score", "least_pixels"])
def make_keys(
    found,  # [T * n] int32
    sizes,  # [T * n * most] int32
    totals,  # [T * n * most] int64
    firsts,  # [T * n * most] int32
    corners,  # [5, n, h * w] float32
    masks,  # T * n
    most,
    tops,  # n
    pixels,
    least_score,  # in steps
    least_pixels,
    least_fill,  # of an area
    keys,  # [T * n * most] int64, written: mean score, in steps, then what comes first; -1 where it is dropped
    PIXELS: tl.constexpr,
):
    """Make what hypotheses are sorted by."""
    at = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    in_use = at < masks * most
    is_one = in_use & (at % most < tl.load(found + at // most, mask=in_use, other=0))
    size = tl.load(sizes + at, mask=is_one, other=1)
    mean = tl.load(totals + at, mask=is_one, other=0) // size
    areas = corners + 4 * tops * pixels.to(tl.int64)
    area = tl.load(areas + tl.load(firsts + at, mask=is_one, other=0), mask=is_one, other=0)
    is_full = size.to(tl.float32) >= least_fill * area
    is_kept = is_one & (mean >= least_score) & (size >= least_pixels) & is_full
    tl.store(keys + at, tl.where(is_kept, (mean << 32) + (LOW - at), -1), mask=in_use)


@triton.jit(do_not_specialize=SIZES)
def sort_keys(
    keys,  # [T * n * most] int64
    found,  # [T * n] int32
    masks,
    most,
    order,  # [T * n * most] int32, written as far as the count: hypotheses by falling keys
    valid,  # [1] int32, added to: how many there are
    PIXELS: tl.constexpr,
    OTHERS: tl.constexpr,  # that a tile is compared with at a time
):
    """Sort hypotheses, each by counting those before it."""
    at = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    key = tl.load(keys + at, mask=at < masks * most, other=-1)
    kept = tl.sum((key >= 0).to(tl.int32), axis=0)
    if kept > 0:
        tl.atomic_add(valid, kept, sem="relaxed")
        before = tl.zeros((PIXELS,), tl.int32)
        mask = 0
        while mask < masks:
            count = tl.load(found + mask)
            first = 0
            while first < count:
                n = first + tl.arange(0, OTHERS)
                other = tl.load(keys + mask * most + n, mask=n < count, other=-1)
                before += tl.sum((other[None, :] > key[:, None]).to(tl.int32), axis=1)
                first += OTHERS
            mask += 1
        tl.store(order + before, at, mask=key >= 0)


@triton.jit(do_not_specialize=SIZES)
def number_all(
    order,  # [T * n * most] int32
    valid,  # [1] int32
    keys,  # [T * n * most] int64
    table,  # [C] float32
    most,
    number_of,  # [T * n * most] int32 of 0, written: their numbers, from 1
    classes,  # [most] int32, written as far as the count, and the next
    scores,  # [most] float32
    count,  # [] int32, written
    CLASSES: tl.constexpr,  # at least C
    TABLE: tl.constexpr,  # C
    PIXELS: tl.constexpr,
):
    """Number the first hypotheses, which have no pixel in common."""
    number = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    total = tl.minimum(tl.load(valid), most)
    in_use = number < total
    own = tl.load(order + number, mask=in_use, other=0)
    thing = own // most
    labels = tl.arange(0, CLASSES)
    of_class = tl.load(table + labels, mask=labels < TABLE, other=-1).to(tl.int32)
    label = tl.sum(tl.where(of_class[None, :] == thing[:, None], labels[None, :], 0), axis=1)
    mean = tl.load(keys + own, mask=in_use, other=0) >> 32
    tl.store(number_of + own, number + 1, mask=in_use)
    tl.store(classes + number, label, mask=in_use)
    tl.store(scores + number, mean.to(tl.float32) * (1 / ONE), mask=in_use)
    tl.store(count, total, mask=tl.program_id(0) == 0)


@triton.jit(do_not_specialize=SIZES)
def number_apart(
    order,
    valid,
    keys,
    table,
    most,
    number_of,
    classes,
    scores,
    count,
    members,  # as `group_members` writes them, and the next two
    owner,
    begins,
    counts,  # [T * n] int32
    sizes,  # [T * n * most] int32
    owners,  # [n (n + 1) / 2, h * w] int32
    pixels,
    share,  # of the sum of sizes
    shared,  # [most + 1] int32 of 0, scratch: pixels that a hypothesis has in common with those that have numbers
    sizes_of,  # [most + 1] int32, scratch: pixels of those
    CLASSES: tl.constexpr,
    TABLE: tl.constexpr,
    TOP: tl.constexpr,
    LINES: tl.constexpr,  # n (n + 1) / 2
    THINGS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Region NMS: number the hypotheses that overlap with no more confident one; in one program."""
    lane, labels = tl.arange(0, PIXELS), tl.arange(0, CLASSES)
    of_class = tl.load(table + labels, mask=labels < TABLE, other=-1).to(tl.int32)
    total, numbered = tl.load(valid), tl.full((), 0, tl.int32)
    turn = 0
    while (turn < total) & (numbered < most):
        own = tl.load(order + turn)
        mask, own_size = own // most, tl.load(sizes + own)
        begin, size = tl.load(begins + mask), tl.load(counts + mask)
        first = 0
        while first < size:
            place = first + lane
            is_own = tl.load(owner + begin + place, mask=place < size, other=-1) == own % most
            pixel = tl.load(members + begin + place, mask=is_own, other=0) % pixels
            for line in tl.static_range(LINES):
                other = tl.load(owners + line * pixels.to(tl.int64) + pixel, mask=is_own, other=-1)
                number = tl.load(number_of + other, mask=other >= 0, other=0)
                tl.atomic_add(shared + number, 1, mask=number > 0)
            first += PIXELS
        tl.debug_barrier()
        is_over = tl.zeros((PIXELS,), tl.int32)
        first = 1
        while first <= numbered:
            number = first + lane
            common = tl.load(shared + number, mask=number <= numbered, other=0)
            other_size = tl.load(sizes_of + number, mask=number <= numbered, other=0)
            is_more = common.to(tl.float32) > share * (own_size + other_size).to(tl.float32)
            is_over |= (is_more & (common > 0)).to(tl.int32)
            tl.store(shared + number, tl.zeros_like(common), mask=common > 0)
            first += PIXELS
        is_free = tl.max(is_over, axis=0) == 0
        numbered += is_free.to(tl.int32)
        tl.store(number_of + own, numbered, mask=is_free)
        tl.store(sizes_of + numbered, own_size, mask=is_free)
        label = tl.sum(tl.where(of_class == mask // TOP, labels, 0), axis=0)
        tl.store(classes + numbered - 1, label, mask=is_free)
        tl.store(scores + numbered - 1, (tl.load(keys + own) >> 32).to(tl.float32) * (1 / ONE), mask=is_free)
        tl.debug_barrier()
        turn += 1
    tl.store(count, numbered)


@triton.jit(do_not_specialize=SIZES)
def number_pixels(
    owners,  # [n (n + 1) / 2, h * w] int32
    number_of,  # [T * n * most] int32
    pixels,
    on_grid,  # [h, w] int32, written: the least number of its hypotheses, 0 for none
    LINES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Give each grid pixel to its most confident hypothesis."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    in_grid = pixel < pixels
    best = tl.full((PIXELS,), LOW, tl.int32)
    for line in tl.static_range(LINES):
        own = tl.load(owners + line * pixels.to(tl.int64) + pixel, mask=in_grid, other=-1)
        number = tl.load(number_of + own, mask=own >= 0, other=0)
        best = tl.where(number > 0, tl.minimum(best, number), best)
    tl.store(on_grid + pixel, tl.where(best == LOW, 0, best), mask=in_grid)


@triton.jit(do_not_specialize=[*SIZES, "out_height", "out_width", *AXES])
def paint(
    on_grid,  # [h, w] int32
    classes,  # [most] int32
    labels,  # [H, W] uint8
    height,
    width,
    out_height,
    out_width,
    # Of either axis: output pixel x lies at clip(slope * x + offset, first, last) / unit, in the last cell at most.
    row_slope,
    row_offset,
    row_first,
    row_last,
    row_unit,
    row_cell,
    col_slope,
    col_offset,
    col_first,
    col_last,
    col_unit,
    col_cell,
    output,  # [H, W] int32, written
    POSITION: tl.constexpr,  # integer type that holds positions
    PIXELS: tl.constexpr,
):
    """Give each pixel of the frame the instance of its class that has the largest share of it."""
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    in_frame = pixel < out_height.to(tl.int64) * out_width
    y, x = (pixel // out_width).to(tl.int32), (pixel % out_width).to(tl.int32)
    i, down = place_of(y, row_slope, row_offset, row_first, row_last, row_unit, row_cell, POSITION)
    j, right = place_of(x, col_slope, col_offset, col_first, col_last, col_unit, col_cell, POSITION)
    up, left = row_unit.to(tl.int64) - down, col_unit.to(tl.int64) - right
    label = tl.load(labels + pixel, mask=in_frame, other=0).to(tl.int32)
    below, beside = tl.minimum(i + 1, height - 1), tl.minimum(j + 1, width - 1)
    p = number_at(on_grid + i * width + j, classes, label, in_frame)
    q = number_at(on_grid + i * width + beside, classes, label, in_frame)
    r = number_at(on_grid + below * width + j, classes, label, in_frame)
    s = number_at(on_grid + below * width + beside, classes, label, in_frame)
    shares = (up * left, up * right, down * left, down * right)
    best, largest = tl.zeros((PIXELS,), tl.int32), tl.zeros((PIXELS,), tl.int64)
    best, largest = keep_larger(best, largest, p, p, q, r, s, shares)
    best, largest = keep_larger(best, largest, q, p, q, r, s, shares)
    best, largest = keep_larger(best, largest, r, p, q, r, s, shares)
    best, largest = keep_larger(best, largest, s, p, q, r, s, shares)
    tl.store(output + pixel, best, mask=in_frame)


@triton.jit
def place_of(pixel, slope, offset, first, last, unit, cell, POSITION: tl.constexpr):
    """The grid line before an output pixel, and the share of the next one, in parts of the unit."""
    position = tl.minimum(tl.maximum(pixel.to(POSITION) * slope + offset, first), last)
    line = tl.minimum((position // unit).to(tl.int32), cell)
    return line, position.to(tl.int64) - line.to(tl.int64) * unit


@triton.jit
def number_at(at, classes, label, in_frame):
    """The instance of a grid pixel if it is of a class, else 0."""
    number = tl.load(at, mask=in_frame, other=0)
    of_class = tl.load(classes + number - 1, mask=number > 0, other=-1)
    return tl.where(of_class == label, number, 0)


@triton.jit
def keep_larger(best, largest, number, p, q, r, s, shares):
    """The number with the larger share, and that; ties: the lower number."""
    share = tl.where(p == number, shares[0], 0) + tl.where(q == number, shares[1], 0)
    share += tl.where(r == number, shares[2], 0) + tl.where(s == number, shares[3], 0)
    is_better = (number > 0) & ((share > largest) | ((share == largest) & (number < best)))
    return tl.where(is_better, number, best), tl.where(is_better, share, largest)
