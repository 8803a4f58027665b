"""RGB images to planes, sixteen pixels at a time: the way of the fused CPU operator for most images.

An output row is cut into groups of sixteen columns. A group of which nothing is visible is filled; any other is
computed as a whole, and the fill is chosen in its hidden columns. So the cost depends little on the size of the cells,
and every store is a whole cache line. The order of float operations is the one of ``reference.py``.

Resampling, the blended row is kept as three planes: the taps of sixteen neighbouring columns then lie within 32
floats, from which one instruction picks one tap of each (measured with whole images, 300 x 300 to 224 x 224, nothing
hidden, in the L2 cache: 70 us, against 120 us four columns at a time).
"""

from __future__ import annotations

import numpy as np

from has_dali.kernels.compiling import kernel
from has_dali.kernels.cpu_grid import mark_cells
from has_dali.kernels.simd import address_of, blended, fma_lanes, load16, load16_u8, multiplied, scaled, store16
from has_dali.kernels.simd_memory import float_at, int_at, prefetch_read, put_int, store_fence
from has_dali.kernels.simd_planes import (
    all_marked,
    chosen16,
    load_lanes,
    load_rgb,
    load_rgb_mirrored,
    next_lanes,
    permuted,
    planes_of,
    splat16,
    store_wide,
)
from has_dali.kernels.simd_types import BYTES, CACHE_LINE, PERMUTES, WIDE

# Outputs of at least this many bytes are stored past the caches, since a batch of them does not fit (measured per
# 224 x 224 image of a batch of 64: 24 us, not 39, and 42, not 58, with a reader behind; a batch of 4 would lose).
_STREAMED = 256 * 1024
_WINDOW = 2 * WIDE  # floats of a plane that the columns of one group may read
_AHEAD = 4096  # bytes, of the source where nothing is resampled, asked for early
_EARLY_ROWS = 4  # rows beyond the last tap asked for early
_BRIDGE = 32  # source columns between two visible groups that are blended along rather than starting anew


@kernel
def group_windows(first, count):  # type: ignore[no-untyped-def]
    """``(begin, end)`` of the source columns that each group of sixteen output columns reads: (groups, 2) int64."""
    width = len(first)
    windows = np.empty((-(-width // WIDE), 2), np.int64)
    for group in range(len(windows)):
        x = min(group * WIDE, width - WIDE)
        begin, end = first[x], first[x] + count[x]
        for column in range(x, x + WIDE):
            begin, end = min(begin, first[column]), max(end, first[column] + count[column])
        windows[group, 0], windows[group, 1] = begin, end
    return windows


@kernel
def fits_wide(windows):  # type: ignore[no-untyped-def]
    """Whether this processor handles such groups sixteen columns at a time; always so where nothing is resampled."""
    widest = 0
    for group in range(len(windows)):
        widest = max(widest, windows[group, 1] - windows[group, 0])
    return widest == 0 or (PERMUTES and widest <= _WINDOW)


@kernel
def group_lanes(windows, first):  # type: ignore[no-untyped-def]
    """First tap of each column of each group, counted from the group's window: (groups, 16) int32."""
    lanes = np.empty((len(windows), WIDE), np.int32)
    for group in range(len(windows)):
        x = min(group * WIDE, len(first) - WIDE)
        for lane in range(WIDE):
            lanes[group, lane] = first[x + lane] - windows[group, 0]
    return lanes


@kernel
def split_groups(visible, hidden, marks, width):  # type: ignore[no-untyped-def]
    """Numbers of the groups of which something, and of which nothing, is visible; returns how many of each."""
    visible_count = hidden_count = 0
    for group in range(-(-width // WIDE)):
        gone = all_marked(marks + min(group * WIDE, width - WIDE))
        put_int(visible + 8 * visible_count, group)
        put_int(hidden + 8 * hidden_count, group)
        visible_count += not gone
        hidden_count += gone
    return visible_count, hidden_count


@kernel
def fill_groups(groups, count, width, out, item, plane, half, stream, fill):  # type: ignore[no-untyped-def]
    """Write the fill into whole groups of one output row."""
    f0, f1, f2 = splat16(float_at(fill)), splat16(float_at(fill + 4)), splat16(float_at(fill + 8))
    for i in range(count):
        at = out + min(int_at(groups + 8 * i) * WIDE, width - WIDE) * item
        store_wide(at, half, stream, f0)
        store_wide(at + plane, half, stream, f1)
        store_wide(at + 2 * plane, half, stream, f2)


@kernel
def convert_groups(  # type: ignore[no-untyped-def]
    groups, count, marks, row, width, mirror, out, item, plane, half, stream, constants
):
    """Groups of one output row where nothing is resampled: RGB bytes at address ``row``, normalised."""
    s0, s1, s2 = splat16(float_at(constants + 0)), splat16(float_at(constants + 4)), splat16(float_at(constants + 8))
    b0, b1, b2 = splat16(float_at(constants + 16)), splat16(float_at(constants + 20)), splat16(float_at(constants + 24))
    f0, f1, f2 = splat16(float_at(constants + 32)), splat16(float_at(constants + 36)), splat16(float_at(constants + 40))
    for i in range(count):
        x = min(int_at(groups + 8 * i) * WIDE, width - WIDE)
        at = row + 3 * (width - WIDE - x if mirror else x)
        prefetch_read(at + _AHEAD)
        red, green, blue = load_rgb_mirrored(at) if mirror else load_rgb(at)
        at = out + x * item
        store_wide(at, half, stream, chosen16(marks + x, f0, fma_lanes(red, s0, b0)))
        store_wide(at + plane, half, stream, chosen16(marks + x, f1, fma_lanes(green, s1, b1)))
        store_wide(at + 2 * plane, half, stream, chosen16(marks + x, f2, fma_lanes(blue, s2, b2)))


@kernel
def blend_planes(lines, stride, source, width, count, weights, begin, end):  # type: ignore[no-untyped-def]
    """Columns ``begin`` to ``end`` of a weighted sum of ``count`` rows of RGB bytes, as three planes of floats.

    Whole vectors are written: columns around the range are right too.

    Args:
        lines: address of three planes, ``stride`` bytes apart; source: address of the first row; width: >= 16.
    """
    for start in range(begin & -WIDE, end, WIDE):
        x = min(start, width - WIDE)
        at, weight = source + 3 * x, float_at(weights)
        a, b, c = load16_u8(at), load16_u8(at + WIDE), load16_u8(at + 2 * WIDE)
        a, b, c = scaled(weight, a), scaled(weight, b), scaled(weight, c)
        for k in range(1, count):
            at += 3 * width
            weight = float_at(weights + 4 * k)
            a = blended(weight, load16_u8(at), a)
            b = blended(weight, load16_u8(at + WIDE), b)
            c = blended(weight, load16_u8(at + 2 * WIDE), c)
        prefetch_read(at + _EARLY_ROWS * 3 * width)
        red, green, blue = planes_of(a, b, c)
        target = lines + 4 * x
        store16(target, red)
        store16(target + stride, green)
        store16(target + 2 * stride, blue)


@kernel
def blend_groups(  # type: ignore[no-untyped-def]
    groups, count, marks, lines, stride, windows, lanes, weights, taps, width, out, item, plane, half, stream, constants
):
    """Groups of one output row from the blended row, three planes ``stride`` bytes apart at address ``lines``.

    Args:
        weights: (taps, out width) float32.
        windows, lanes: from ``group_windows`` and ``group_lanes``.
        constants: scale[4], shift[4], fill[4].
    """
    s0, s1, s2 = splat16(float_at(constants)), splat16(float_at(constants + 4)), splat16(float_at(constants + 8))
    b0, b1, b2 = splat16(float_at(constants + 16)), splat16(float_at(constants + 20)), splat16(float_at(constants + 24))
    f0, f1, f2 = splat16(float_at(constants + 32)), splat16(float_at(constants + 36)), splat16(float_at(constants + 40))
    for i in range(count):
        group = int_at(groups + 8 * i)
        x = min(group * WIDE, width - WIDE)
        at = lines + 4 * int_at(windows + 16 * group)
        red_low, red_high = load16(at), load16(at + 4 * WIDE)
        green_low, green_high = load16(at + stride), load16(at + stride + 4 * WIDE)
        blue_low, blue_high = load16(at + 2 * stride), load16(at + 2 * stride + 4 * WIDE)
        lane, weight = load_lanes(lanes + 4 * WIDE * group), load16(weights + 4 * x)
        red = multiplied(weight, permuted(red_low, red_high, lane))
        green = multiplied(weight, permuted(green_low, green_high, lane))
        blue = multiplied(weight, permuted(blue_low, blue_high, lane))
        for k in range(1, taps):
            lane, weight = next_lanes(lane), load16(weights + 4 * (k * width + x))
            red = fma_lanes(weight, permuted(red_low, red_high, lane), red)
            green = fma_lanes(weight, permuted(green_low, green_high, lane), green)
            blue = fma_lanes(weight, permuted(blue_low, blue_high, lane), blue)
        at = out + x * item
        store_wide(at, half, stream, chosen16(marks + x, f0, fma_lanes(red, s0, b0)))
        store_wide(at + plane, half, stream, chosen16(marks + x, f1, fma_lanes(green, s1, b1)))
        store_wide(at + 2 * plane, half, stream, chosen16(marks + x, f2, fma_lanes(blue, s2, b2)))


@kernel
def window_ranges(ranges, windows, groups, count, mirror):  # type: ignore[no-untyped-def]
    """Ranges of source columns that the visible groups read, near ones joined; returns how many."""
    ranged = 0
    for i in range(count):
        group = int_at(groups + 8 * (count - 1 - i if mirror else i))  # ascending source columns
        begin, end = int_at(windows + 16 * group), int_at(windows + 16 * group + 8)
        if ranged and begin <= int_at(ranges + 16 * ranged - 8) + _BRIDGE:
            put_int(ranges + 16 * ranged - 8, max(end, int_at(ranges + 16 * ranged - 8)))
        else:
            put_int(ranges + 16 * ranged, begin)
            put_int(ranges + 16 * ranged + 8, end)
            ranged += 1
    return ranged


@kernel
def render_wide(  # type: ignore[no-untyped-def]
    image, out, out_height, out_width, grid, flags, blocks, y_taps, x_taps, windows, mirror, half, constants
):
    """Write one image of three channels to planes at address ``out``; both images are at least 16 pixels wide."""
    width = image.shape[1]
    size, offset_y, offset_x, cells, cell_rows = grid
    y_first, y_count, y_weights = y_taps
    x_first, _, x_weights = x_taps
    resampling = len(x_first) > 0
    weights, lanes = x_weights.T.copy(), group_lanes(windows, x_first)
    item = 2 if half else 4
    plane, row_bytes = out_height * out_width * item, out_width * item
    # Only whole, aligned cache lines go past the caches.
    stream = 3 * plane >= _STREAMED and not half and out % CACHE_LINE == 0 and row_bytes % CACHE_LINE == 0
    marks = np.empty(cell_rows * out_width + BYTES, np.uint8)
    mark_cells(marks, out_width, cells, cell_rows, size, offset_x, flags, blocks)
    group_count = -(-out_width // WIDE)
    visible, hidden = np.empty(group_count + 1, np.int64), np.empty(group_count + 1, np.int64)
    ranges = np.empty((group_count, 2), np.int64)
    stride = 4 * (width + _WINDOW)
    lines = np.zeros(3 * (width + _WINDOW), np.float32)
    for row in range(cell_rows):
        mark = address_of(marks) + row * out_width
        visible_count, hidden_count = split_groups(address_of(visible), address_of(hidden), mark, out_width)
        if resampling:
            ranged = window_ranges(address_of(ranges), address_of(windows), address_of(visible), visible_count, mirror)
        for y in range(max(row * size - offset_y, 0), min((row + 1) * size - offset_y, out_height)):
            target = out + y * row_bytes
            fill_groups(
                address_of(hidden), hidden_count, out_width, target, item, plane, half, stream,
                address_of(constants) + 32,
            )  # fmt: skip
            if not resampling:
                convert_groups(
                    address_of(visible), visible_count, mark, address_of(image) + y * 3 * width, width, mirror,
                    target, item, plane, half, stream, address_of(constants),
                )  # fmt: skip
                continue
            source = address_of(image) + y_first[y] * 3 * width
            for r in range(ranged):
                blend_planes(
                    address_of(lines), stride, source, width, y_count[y],
                    address_of(y_weights) + 4 * y * y_weights.shape[1], ranges[r, 0], ranges[r, 1],
                )  # fmt: skip
            blend_groups(
                address_of(visible), visible_count, mark, address_of(lines), stride, address_of(windows),
                address_of(lanes), address_of(weights), weights.shape[0], out_width,
                target, item, plane, half, stream, address_of(constants),
            )  # fmt: skip
    if stream:
        store_fence()
