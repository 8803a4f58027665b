"""Resize, mirror, normalise, change layout and hide in one pass on the CPU, with no work for hidden pixels.

One image at a time. For each row of cells the visible columns are worked out once: which source columns must be
blended, which output columns are computed, which bytes are filled; the row kernels then run over its pixel
rows. A row whose cells are all hidden is only filled. RGB images to planes go sixteen columns at a time
(``cpu_wide``); all others, and what that cannot resample, four columns or one pixel at a time.
"""

from __future__ import annotations

import numpy as np

from has_dali.kernels.compiling import kernel
from has_dali.kernels.cpu_grid import draw_cells, draw_grid, grid_cells, row_runs
from has_dali.kernels.cpu_rows import (
    LOADED_BYTES,
    axis_taps,
    blend_columns,
    blend_rows,
    convert_columns,
    fill_row_bytes,
    fill_segments,
    weight_lanes,
)
from has_dali.kernels.cpu_wide import fits_wide, group_windows, render_wide
from has_dali.kernels.simd import address_of
from has_dali.kernels.simd_memory import int_at, prefetch_read, prefetch_write, put_int
from has_dali.kernels.simd_types import WIDE

# Settings of the operator: int64 words, the last ones the patch sizes. HIDE is the policy's threshold, for callers
# without one per sample.
SEED, APPLY, OFFSET, OUT_HEIGHT, OUT_WIDTH, ANTIALIAS, PLANAR, HALF, HIDE, CONSTANTS = range(10)
# HIDE of an operator whose samples bring their own threshold.
OWN_THRESHOLD = 2**33
CONSTANT_WORDS = 6  # scale, shift and fill: 3 x 4 float32
PATCH_SIZES = CONSTANTS + CONSTANT_WORDS
# Floats behind the blended row that taps of weight 0 and four-lane loads may touch.
_SLACK = 16
# From this many hidden runs on, filling the whole row and writing the visible pixels over it is cheaper than
# filling run by run: the row is in the L1 cache.
_FILL_WHOLE_ROW = 3
# A batch of outputs exceeds the caches: asking for the lines of a row this many rows early keeps stores from
# waiting for memory (measured: 41 to 31 us per 224 x 224 image with half of it hidden).
_PREFETCH_ROWS = 2
_CACHE_LINE = 64
# Source columns (in floats) between two visible runs that are blended along rather than starting anew.
_BRIDGE = 64


@kernel
def _prefetch_target(line, planes, plane, row_bytes):  # type: ignore[no-untyped-def]
    for p in range(planes):
        for at in range(0, row_bytes, _CACHE_LINE):
            prefetch_write(line + p * plane + at)


@kernel
def _prefetch_source(begin, end):  # type: ignore[no-untyped-def]
    for at in range(begin, end, _CACHE_LINE):
        prefetch_read(at)


@kernel
def _fill_plan(segments, runs, count, out_width, pixel):  # type: ignore[no-untyped-def]
    """Byte segments to fill around the visible runs of a row; returns how many."""
    if count == 1 and int_at(runs) == 0 and int_at(runs + 8) == out_width:
        return 0
    if count >= _FILL_WHOLE_ROW:
        put_int(segments, 0)
        put_int(segments + 8, out_width * pixel)
        return 1
    filled = 0
    seen = np.int64(0)
    for run in range(count + 1):
        begin = int_at(runs + 16 * run) if run < count else out_width
        if begin > seen:
            put_int(segments + 16 * filled, seen * pixel)
            put_int(segments + 16 * filled + 8, begin * pixel)
            filled += 1
        if run < count:
            seen = int_at(runs + 16 * run + 8)
    return filled


@kernel
def _column_plan(groups, singles, runs, count, planar):  # type: ignore[no-untyped-def]
    """Split visible runs into groups of four columns and single ones; returns how many of each."""
    group_count = single_count = 0
    for run in range(count):
        x, end = int_at(runs + 16 * run), int_at(runs + 16 * run + 8)
        while planar and x + 4 <= end:
            put_int(groups + 8 * group_count, x)
            group_count += 1
            x += 4
        while x < end:
            put_int(singles + 8 * single_count, x)
            single_count += 1
            x += 1
    return group_count, single_count


@kernel
def _blend_plan(ranges, runs, count, first, taps_of, channels, mirror):  # type: ignore[no-untyped-def]
    """Ranges of the blended row, in floats, that the visible runs read; returns how many."""
    ranged = 0
    for i in range(count):
        run = count - 1 - i if mirror else i  # ascending source columns
        left, right = int_at(runs + 16 * run), int_at(runs + 16 * run + 8) - 1
        if mirror:
            left, right = right, left
        begin = int_at(first + 8 * left) * channels
        end = (int_at(first + 8 * right) + int_at(taps_of + 8 * right)) * channels
        if ranged and begin <= int_at(ranges + 16 * ranged - 8) + _BRIDGE:
            put_int(ranges + 16 * ranged - 8, max(end, int_at(ranges + 16 * ranged - 8)))
        else:
            put_int(ranges + 16 * ranged, begin)
            put_int(ranges + 16 * ranged + 8, end)
            ranged += 1
    return ranged


@kernel
def fused_image(image, out, sample_id, epoch, hide_threshold, mirror, settings):  # type: ignore[no-untyped-def]
    """Write one image, (H, W, C) uint8 with C from 1 to 4, to address ``out``.

    Args:
        image: (H, W, C) uint8, contiguous.
        out: address of (C, h, w) or (h, w, C) float32 or float16, contiguous.
        sample_id, epoch, hide_threshold: uint64; mirror: bool; settings: int64, see ``cpu.pack_settings``.
    """
    height, width, channels = image.shape
    resampling = settings[OUT_HEIGHT] > 0
    out_height = settings[OUT_HEIGHT] if resampling else np.int64(height)
    out_width = settings[OUT_WIDTH] if resampling else np.int64(width)
    resampling = resampling and (out_height != height or out_width != width)
    planar, antialias = settings[PLANAR] != 0, settings[ANTIALIAS] != 0
    seed = np.uint64(settings[SEED])
    size, offset_y, offset_x = draw_grid(
        seed, np.uint64(settings[APPLY]), settings[OFFSET] != 0, settings[PATCH_SIZES:], sample_id, epoch
    )
    if size == 0 or hide_threshold == 0:  # one cell that no word hides
        size, offset_y, offset_x, hide_threshold = max(out_height, out_width), 0, 0, np.uint64(0)
    cells, cell_rows = grid_cells(size, offset_x, out_width), grid_cells(size, offset_y, out_height)
    blocks = (cells * cell_rows + 3) // 4
    flags = np.empty(4 * blocks, np.uint8)
    draw_cells(flags, blocks, seed, sample_id, epoch, hide_threshold)
    grid = (size, offset_y, offset_x, cells, cell_rows)
    y_taps = axis_taps(np.int64(height), out_height if resampling else 0, antialias, False)
    x_taps = axis_taps(np.int64(width), out_width if resampling else 0, antialias, mirror)
    if planar and channels == 3 and min(width, out_width) >= WIDE:
        windows = group_windows(x_taps[0], x_taps[1])
        if fits_wide(windows):
            render_wide(
                image, out, out_height, out_width, grid, flags, blocks, y_taps, x_taps, windows, mirror,
                settings[HALF] != 0, settings[CONSTANTS:PATCH_SIZES].view(np.float32),
            )  # fmt: skip
            return
    _render(image, out, out_height, out_width, grid, flags, blocks, y_taps, x_taps, mirror, settings)


@kernel
def _render(  # type: ignore[no-untyped-def]
    image, out, out_height, out_width, grid, flags, blocks, y_taps, x_taps, mirror, settings
):
    """Any number of channels, any layout: four columns of several planes at a time, or a pixel at a time."""
    height, width, channels = image.shape
    size, offset_y, offset_x, cells, cell_rows = grid
    y_first, y_count, y_weights = y_taps
    x_first, x_count, x_weights = x_taps
    resampling = len(x_first) > 0
    planar, half = settings[PLANAR] != 0, settings[HALF] != 0
    constants = settings[CONSTANTS:PATCH_SIZES].view(np.float32)
    item = 2 if half else 4
    pixel = item if planar else item * channels
    strides = (pixel, out_height * out_width * item if planar else item)
    planes = channels if planar else 1
    pixels = address_of(image)
    row_bytes, length = out_width * pixel, width * channels
    fill = fill_row_bytes(constants[8:12], out_width, channels, planar, half)
    runs, segments = np.empty(2 * cells + 2, np.int64), np.empty(2 * cells + 4, np.int64)
    ranges = np.empty(2 * cells + 2, np.int64)
    groups, singles = np.empty(out_width, np.int64), np.empty(out_width, np.int64)
    offsets, lanes = x_first * (4 * channels), weight_lanes(x_weights)
    line = np.zeros(length + x_weights.shape[1] * channels + _SLACK, np.float32)
    for row in range(cell_rows):
        y0, y1 = max(row * size - offset_y, 0), min((row + 1) * size - offset_y, out_height)
        count = row_runs(address_of(runs), False, row, size, offset_x, out_width, address_of(flags), blocks)
        fills = _fill_plan(address_of(segments), address_of(runs), count, out_width, pixel)
        group_count, single_count = _column_plan(
            address_of(groups), address_of(singles), address_of(runs), count, planar and channels > 1
        )
        if resampling:
            ranged = _blend_plan(
                address_of(ranges), address_of(runs), count, address_of(x_first), address_of(x_count), channels, mirror
            )
        for y in range(y0, y1):
            target = out + y * row_bytes
            _prefetch_target(target + _PREFETCH_ROWS * row_bytes, planes, strides[1], row_bytes)
            fill_segments(address_of(segments), fills, target, address_of(fill), planes, strides[1], row_bytes)
            if count == 0:
                continue
            later = min(y + _PREFETCH_ROWS, out_height - 1)
            if not resampling:
                _prefetch_source(pixels + later * length, pixels + (later + 1) * length)
                convert_columns(
                    pixels + y * length, channels, width, mirror, address_of(groups), group_count,
                    address_of(singles), single_count, target, strides, half, address_of(constants),
                    (height - 1 - y) * length + channels < LOADED_BYTES,
                )  # fmt: skip
                continue
            _prefetch_source(
                pixels + (y_first[later - 1] + y_count[later - 1]) * length,
                pixels + (y_first[later] + y_count[later]) * length,
            )
            for r in range(ranged):
                blend_rows(
                    address_of(line), pixels + y_first[y] * length, length, y_count[y],
                    address_of(y_weights) + 4 * y * y_weights.shape[1], ranges[2 * r], ranges[2 * r + 1],
                )  # fmt: skip
            blend_columns(
                address_of(line), channels, address_of(offsets), address_of(lanes), lanes.shape[0],
                16 * lanes.shape[1], address_of(groups), group_count, address_of(singles), single_count,
                target, strides, half, address_of(constants),
            )  # fmt: skip
