"""Row kernels of the fused CPU operator: blend source rows, blend columns, convert, fill.

Each is called once per output row, with the columns of that row of cells worked out beforehand, so that the cost
per call does not grow with the number of cells. The order of float operations is the one of ``reference.py``.
"""

from __future__ import annotations

import numpy as np

from has_dali.kernels.compiling import kernel
from has_dali.kernels.cpu_hide import copy_run
from has_dali.kernels.simd import (
    address_of,
    blended,
    fma,
    fma_lanes,
    four_times,
    load4,
    load4_u8,
    load16,
    load16_u8,
    load_pixels,
    load_pixels_u8,
    multiplied,
    scaled,
    splat4,
    store16,
    store_pixel,
    store_planar,
    store_planar_rgb,
)
from has_dali.kernels.simd_memory import byte_at, float_at, int_at, put_float
from has_dali.kernels.simd_types import WIDE

LOADED_BYTES = 4


@kernel
def axis_taps(n_in, n_out, antialias, mirror):  # type: ignore[no-untyped-def]
    """First source pixel, tap count and weights of each output pixel: (n_out,), (n_out,), (n_out, most taps).

    Weights behind the last tap are 0. With ``mirror`` entry o describes output pixel n_out - 1 - o.
    """
    if n_out == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.zeros((0, 1), np.float32)
    denominator = 2 * n_out
    radius = max(2 * n_in, denominator) if antialias else denominator
    most = min(-(-2 * radius // denominator), n_in)  # whole numbers inside an open interval
    first = np.empty(n_out, np.int64)
    count = np.empty(n_out, np.int64)
    weights = np.zeros((n_out, most), np.float32)
    whole = np.zeros(most, np.int64)
    position = n_in - n_out
    low = (position - radius) // denominator + 1
    high = low
    for o in range(n_out):
        while low * denominator <= position - radius:
            low += 1
        while (high + 1) * denominator < position + radius:
            high += 1
        begin, end = max(low, 0), min(high, n_in - 1)
        total = np.int64(0)
        for i in range(low, high + 1):
            weight = radius - abs(i * denominator - position)
            total += weight
            whole[min(max(i, begin), end) - begin] += weight  # taps beyond the border repeat the border pixel
        at = n_out - 1 - o if mirror else o
        first[at] = begin
        count[at] = end - begin + 1
        for k in range(end - begin + 1):
            weights[at, k] = np.float32(whole[k]) / np.float32(total)
            whole[k] = 0
        position += 2 * n_in
    return first, count, weights


@kernel
def blend_rows(line, source, length, count, weights, begin, end):  # type: ignore[no-untyped-def]
    """Floats ``begin`` to ``end`` of ``line``: weighted sum of ``count`` rows of ``length`` bytes.

    ``line``, ``source``, ``weights``: addresses of the result, of the first row, and of a weight per row.

    Whole vectors are written where the row is long enough: a few values outside the range, right ones too.
    """
    first = float_at(weights)
    if length < WIDE:
        for i in range(begin, end):
            value = first * byte_at(source + i)
            for k in range(1, count):
                value = fma(float_at(weights + 4 * k), byte_at(source + k * length + i), value)
            put_float(line + 4 * i, value)
        return
    i = min(begin, length - WIDE)
    while i < end:
        if i + 2 * WIDE <= length:
            at = source + i
            low, high = scaled(first, load16_u8(at)), scaled(first, load16_u8(at + WIDE))
            for k in range(1, count):
                at += length
                low = blended(float_at(weights + 4 * k), load16_u8(at), low)
                high = blended(float_at(weights + 4 * k), load16_u8(at + WIDE), high)
            store16(line + 4 * i, low)
            store16(line + 4 * (i + WIDE), high)
            i += 2 * WIDE
        else:
            i = min(i, length - WIDE)
            at = source + i
            low = scaled(first, load16_u8(at))
            for k in range(1, count):
                at += length
                low = blended(float_at(weights + 4 * k), load16_u8(at), low)
            store16(line + 4 * i, low)
            i += WIDE


@kernel
def weight_lanes(weights):  # type: ignore[no-untyped-def]
    """(taps, outputs, 4) float32: each weight of ``axis_taps`` once per lane of its pixel."""
    outputs, taps = weights.shape
    lanes = np.empty((taps, outputs, 4), np.float32)
    for k in range(taps):
        for x in range(outputs):
            lanes[k, x, :] = weights[x, k]
    return lanes


@kernel
def blend_columns(  # type: ignore[no-untyped-def]
    line,
    channels,
    offsets,
    lanes,
    taps,
    tap_bytes,
    groups,
    group_count,
    singles,
    single_count,
    out,
    strides,
    half,
    constants,
):
    """The visible output pixels of one row from the blended source row at address ``line``.

    Args:
        offsets: address of (out width,) int64, byte offset of each output pixel's first tap in the blended row.
        lanes: address of ``weight_lanes``, ``taps`` of them ``tap_bytes`` apart.
        groups: address of the first columns of runs of four pixels; singles: of the columns left over; both int64.
        strides: (bytes per pixel, bytes per plane) of the output; constants: address of scale[4], shift[4].
    """
    step = 4 * channels
    pixel, plane = strides
    scale, shift = load4(constants), load4(constants + 16)
    scales, shifts = four_times(scale), four_times(shift)
    rgb = channels == 3 and not half
    for g in range(group_count):
        x = int_at(groups + 8 * g)
        first = offsets + 8 * x
        a0, a1 = line + int_at(first), line + int_at(first + 8)
        a2, a3 = line + int_at(first + 16), line + int_at(first + 24)
        weight = lanes + 16 * x
        value = multiplied(load16(weight), load_pixels(a0, a1, a2, a3))
        for k in range(1, taps):
            at = k * step
            pixels = load_pixels(a0 + at, a1 + at, a2 + at, a3 + at)
            value = fma_lanes(load16(weight + k * tap_bytes), pixels, value)
        value = fma_lanes(value, scales, shifts)
        if rgb:
            store_planar_rgb(out + x * pixel, plane, value)
        else:
            store_planar(out + x * pixel, plane, channels, half, value)
    for s in range(single_count):
        x = int_at(singles + 8 * s)
        at, weight = line + int_at(offsets + 8 * x), lanes + 16 * x
        single = multiplied(load4(weight), load4(at))
        for k in range(1, taps):
            single = fma_lanes(load4(weight + k * tap_bytes), load4(at + k * step), single)
        store_pixel(out + x * pixel, plane, channels, half, fma_lanes(single, scale, shift))


@kernel
def convert_columns(  # type: ignore[no-untyped-def]
    row, channels, width, mirror, groups, group_count, singles, single_count, out, strides, half, constants, careful
):
    """The visible output pixels of one row where nothing is resampled: bytes at address ``row``, normalised.

    A pixel is loaded as ``LOADED_BYTES``; ``careful`` avoids that, for rows with fewer bytes behind their last pixel.
    """
    pixel, plane = strides
    scale, shift = load4(constants), load4(constants + 16)
    scales, shifts = four_times(scale), four_times(shift)
    step = -channels if mirror else channels
    start = row + (width - 1) * channels if mirror else row
    rgb = channels == 3 and not half
    for g in range(group_count):
        x = int_at(groups + 8 * g)
        at = start + x * step
        if careful:
            for i in range(4):
                _convert_pixel(at + i * step, channels, out + (x + i) * pixel, plane, half, constants)
            continue
        value = fma_lanes(load_pixels_u8(at, at + step, at + 2 * step, at + 3 * step), scales, shifts)
        if rgb:
            store_planar_rgb(out + x * pixel, plane, value)
        else:
            store_planar(out + x * pixel, plane, channels, half, value)
    for s in range(single_count):
        x = int_at(singles + 8 * s)
        if careful:
            _convert_pixel(start + x * step, channels, out + x * pixel, plane, half, constants)
        else:
            single = fma_lanes(load4_u8(start + x * step), scale, shift)
            store_pixel(out + x * pixel, plane, channels, half, single)


@kernel
def _convert_pixel(at, channels, out, plane, half, constants):  # type: ignore[no-untyped-def]
    for c in range(channels):
        value = fma(byte_at(at + c), float_at(constants + 4 * c), float_at(constants + 4 * c + 16))
        store_pixel(out + c * plane, 0, 1, half, splat4(value))


@kernel
def fill_row_bytes(fill_values, out_width, channels, planar, half):  # type: ignore[no-untyped-def]
    """One row of fill per plane (or one interleaved row), in the output's bytes."""
    item = 2 if half else 4
    rows = np.empty(out_width * channels * item, np.uint8)
    address = address_of(rows)
    for x in range(out_width):
        for c in range(channels):
            at = (c * out_width + x) if planar else (x * channels + c)
            store_pixel(address + at * item, 0, 1, half, splat4(fill_values[c]))
    return rows


@kernel
def fill_segments(segments, count, out, fill, planes, plane, row_bytes):  # type: ignore[no-untyped-def]
    """Copy ``count`` byte segments (address of their ends) of the fill row(s) into one output row of every plane."""
    for p in range(planes):
        line, source = out + p * plane, fill + p * row_bytes
        for s in range(count):
            begin, end = int_at(segments + 16 * s), int_at(segments + 16 * s + 8)
            copy_run(line + begin, source + begin, end - begin)
