"""The kernel of preprocessing for GPUs: a lane for each pixel of the input, all three channels at once."""

from __future__ import annotations

import triton
import triton.language as tl

from errseg_rt.kernels.preprocess import launches

COPY, BILINEAR, AREA = (tl.constexpr(value) for value in (launches.COPY, launches.BILINEAR, launches.AREA))
# Integers that are no constants of the kernel: one compiled kernel serves every size.
SIZES = ["frame_height", "frame_width", "row_stride", "col_stride", "channel_stride"]
SIZES += ["content_height", "content_width", "input_height", "input_width"]


@triton.jit(do_not_specialize=SIZES)
def preprocess_pixels(
    frame,  # [H, W, 3] uint8
    planes,  # [3, Hi, Wi], written
    frame_height,
    frame_width,
    row_stride,  # of the frame, in elements, like the next two
    col_stride,
    channel_stride,
    content_height,
    content_width,
    input_height,
    input_width,
    # A level v of channel k becomes v * scale_k - shift_k; k counts red, green, blue.
    scale0,
    scale1,
    scale2,
    shift0,
    shift1,
    shift2,
    RESIZE: tl.constexpr,
    BGR: tl.constexpr,
    POSITION: tl.constexpr,  # integer type that holds positions
    PIXELS: tl.constexpr,  # of a tile
):
    """Preprocess a tile of the input."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    plane = input_height.to(tl.int64) * input_width
    y, x = pixel // input_width, pixel % input_width
    in_content = (y < content_height) & (x < content_width)
    y_first, y_last = source_pixels(y, frame_height, content_height, RESIZE, POSITION)
    x_first, x_last = source_pixels(x, frame_width, content_width, RESIZE, POSITION)
    red = tl.zeros((PIXELS,), tl.float32)
    green, blue = red, red
    rows, cols = 0, 0
    if RESIZE != COPY:
        rows = tl.max(tl.where(in_content, y_last - y_first, -1), axis=0)
        cols = tl.max(tl.where(in_content, x_last - x_first, -1), axis=0)
    dy = 0
    while dy <= rows:
        i = tl.minimum(y_first + dy, y_last)
        y_weight = tl.where(
            y_first + dy <= y_last, source_weight(y, i, frame_height, content_height, RESIZE, POSITION), 0.0
        )
        dx = 0
        while dx <= cols:
            j = tl.minimum(x_first + dx, x_last)
            x_weight = tl.where(
                x_first + dx <= x_last, source_weight(x, j, frame_width, content_width, RESIZE, POSITION), 0.0
            )
            weight = y_weight * x_weight
            at = frame + i.to(tl.int64) * row_stride + j.to(tl.int64) * col_stride
            red += weight * level(at, 2 if BGR else 0, channel_stride, in_content)
            green += weight * level(at, 1, channel_stride, in_content)
            blue += weight * level(at, 0 if BGR else 2, channel_stride, in_content)
            dx += 1
        dy += 1
    # The padding holds the mean colour, which normalises to zero.
    in_input = pixel < plane
    red, green = tl.where(in_content, red * scale0 - shift0, 0.0), tl.where(in_content, green * scale1 - shift1, 0.0)
    blue = tl.where(in_content, blue * scale2 - shift2, 0.0)
    tl.store(planes + pixel, red.to(planes.dtype.element_ty), mask=in_input)
    tl.store(planes + plane + pixel, green.to(planes.dtype.element_ty), mask=in_input)
    tl.store(planes + 2 * plane + pixel, blue.to(planes.dtype.element_ty), mask=in_input)


@triton.jit
def level(at, channel, channel_stride, mask):
    """Level of one channel of a frame's pixel."""
    return tl.load(at + channel * channel_stride, mask=mask, other=0).to(tl.float32)


@triton.jit
def source_pixels(pixel, frame, content, RESIZE: tl.constexpr, POSITION: tl.constexpr):
    """First and last pixel of the frame, along one axis, that a pixel of the content is made from."""
    first, last = pixel, pixel
    if RESIZE == BILINEAR:
        # Half-pixel centres: at ((2 x + 1) frame / content - 1) / 2.
        position = tl.maximum((2 * pixel + 1).to(POSITION) * frame - content, 0)
        first = tl.minimum((position // (2 * content)).to(tl.int32), frame - 1)
        last = tl.minimum(first + 1, frame - 1)
    if RESIZE == AREA:
        # The pixel covers the frame from x frame / content on.
        first = (pixel.to(POSITION) * frame // content).to(tl.int32)
        last = (((pixel + 1).to(POSITION) * frame - 1) // content).to(tl.int32)
    return first, last


@triton.jit
def source_weight(pixel, source, frame, content, RESIZE: tl.constexpr, POSITION: tl.constexpr):
    """Share of a frame's pixel in a pixel of the content, along one axis."""
    share = tl.full(pixel.shape, 1.0, tl.float32)
    if RESIZE == BILINEAR:
        position = tl.maximum((2 * pixel + 1).to(POSITION) * frame - content, 0)
        position = tl.minimum(position, (2 * content).to(POSITION) * (frame - 1))
        distance = tl.abs(position - (2 * content).to(POSITION) * source)
        share = 1 - distance.to(tl.float32) / (2 * content).to(tl.float32)
    if RESIZE == AREA:
        begin = tl.maximum(pixel.to(POSITION) * frame, source.to(POSITION) * content)
        end = tl.minimum((pixel + 1).to(POSITION) * frame, (source + 1).to(POSITION) * content)
        share = (end - begin).to(tl.float32) / frame.to(tl.float32)
    return share
