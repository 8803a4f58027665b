"""Hide on the CPU: one byte-level kernel for every dtype and layout.

A batch is N images of P planes of rows; planar layouts have one plane per channel, interleaved ones a single
plane whose pixels hold all channels. Hidden runs are copied from a row of the fill that stays in the L1 cache, so
the element type never matters. In place only hidden bytes are touched; out of place visible bytes are copied once.
"""

from __future__ import annotations

import numpy as np

from has_dali.kernels.compiling import kernel
from has_dali.kernels.cpu_grid import draw_cells, draw_grid, grid_cells, row_runs
from has_dali.kernels.simd import address_of, copy_1, copy_2, copy_4, copy_8, copy_16, copy_32, copy_bytes

_CACHED = 16 * 1024  # bytes of rows that are worked off run by run; they stay in the L1 cache
_LARGE = 1024  # from here on the C library's memcpy wins over an inlined loop


@kernel
def copy_run(target, source, count):  # type: ignore[no-untyped-def]
    """Copy ``count`` bytes between addresses that do not overlap: wide moves, the last one overlapping."""
    if count >= _LARGE:
        copy_bytes(target, source, count)
    elif count >= 32:
        for at in range(0, count - 31, 32):
            copy_32(target + at, source + at)
        copy_32(target + count - 32, source + count - 32)
    elif count >= 16:
        copy_16(target, source)
        copy_16(target + count - 16, source + count - 16)
    elif count >= 8:
        copy_8(target, source)
        copy_8(target + count - 8, source + count - 8)
    elif count >= 4:
        copy_4(target, source)
        copy_4(target + count - 4, source + count - 4)
    elif count >= 2:
        copy_2(target, source)
        copy_2(target + count - 2, source + count - 2)
    elif count == 1:
        copy_1(target, source)


@kernel
def _copy_block(target, target_stride, source, source_stride, lines, count):  # type: ignore[no-untyped-def]
    """Copy ``count`` bytes of each of ``lines`` rows; a source stride of 0 repeats one row.

    The size is told apart once per block, not once per row.
    """
    if count >= _LARGE:
        for y in range(lines):
            copy_bytes(target + y * target_stride, source + y * source_stride, count)
    elif count >= 32:
        for y in range(lines):
            to, origin = target + y * target_stride, source + y * source_stride
            for at in range(0, count - 31, 32):
                copy_32(to + at, origin + at)
            copy_32(to + count - 32, origin + count - 32)
    elif count >= 16:
        for y in range(lines):
            to, origin = target + y * target_stride, source + y * source_stride
            copy_16(to, origin)
            copy_16(to + count - 16, origin + count - 16)
    elif count >= 8:
        for y in range(lines):
            to, origin = target + y * target_stride, source + y * source_stride
            copy_8(to, origin)
            copy_8(to + count - 8, origin + count - 8)
    else:
        for y in range(lines):
            copy_run(target + y * target_stride, source + y * source_stride, count)


@kernel
def _hide_lines(to, to_stride, origin, origin_stride, fill, lines, runs, count, pixel, row_bytes, copying):  # type: ignore[no-untyped-def]
    """One row of cells in one plane: visible runs copied where the source is another array, hidden runs filled."""
    seen = np.int64(0)
    for run in range(count):
        x0, x1 = runs[2 * run] * pixel, runs[2 * run + 1] * pixel
        if copying and x0 > seen:
            _copy_block(to + seen, to_stride, origin + seen, origin_stride, lines, x0 - seen)
        _copy_block(to + x0, to_stride, fill + x0, 0, lines, x1 - x0)
        seen = x1
    if copying and row_bytes > seen:
        _copy_block(to + seen, to_stride, origin + seen, origin_stride, lines, row_bytes - seen)


@kernel
def hide_images(  # type: ignore[no-untyped-def]
    target,
    target_strides,
    source,
    source_strides,
    shape,
    fill_rows,
    patch_sizes,
    seed,
    apply_threshold,
    random_offset,
    sample_ids,
    epochs,
    hide_thresholds,
    begin,
    end,
):
    """Hide images ``begin`` to ``end`` of a batch.

    Args:
        target, source: addresses of the batches; equal addresses mean in place.
        target_strides, source_strides: (3,) int64 bytes per image, plane and row; pixels are contiguous.
        shape: (4,) int64 planes, height, width, bytes per pixel.
        fill_rows: (planes, width * bytes per pixel) uint8, a row of the fill for each plane.
        sample_ids, hide_thresholds: (N,) uint64; epochs: (N,) uint32.
    """
    planes, height, width, pixel = shape[0], shape[1], shape[2], shape[3]
    row_bytes = width * pixel
    copying = target != source
    fill = address_of(fill_rows)
    runs, flags = np.empty(2, np.int64), np.empty(4, np.uint8)
    to_stride, origin_stride = target_strides[2], source_strides[2]
    for n in range(begin, end):
        to, origin = target + n * target_strides[0], source + n * source_strides[0]
        epoch, threshold = np.uint64(epochs[n]), hide_thresholds[n]
        size, offset_y, offset_x = draw_grid(seed, apply_threshold, random_offset, patch_sizes, sample_ids[n], epoch)
        if size == 0 or threshold == 0:
            if not copying:
                continue
            size, offset_y, offset_x, threshold = max(height, width), np.int64(0), np.int64(0), np.uint64(0)
        cells, cell_rows = grid_cells(size, offset_x, width), grid_cells(size, offset_y, height)
        blocks = (cells * cell_rows + 3) // 4
        if len(runs) < 2 * cells + 2:
            runs = np.empty(2 * cells + 2, np.int64)
        if len(flags) < 4 * blocks:
            flags = np.empty(4 * blocks, np.uint8)
        draw_cells(flags, blocks, seed, sample_ids[n], epoch, threshold)
        for row in range(cell_rows):
            y0, y1 = max(row * size - offset_y, 0), min((row + 1) * size - offset_y, height)
            count = row_runs(runs, True, row, size, offset_x, width, flags, blocks)
            step = max(_CACHED // row_bytes, 1)
            for plane in range(planes):
                line = to + plane * target_strides[1]
                original = origin + plane * source_strides[1]
                for y in range(y0, y1, step):
                    _hide_lines(
                        line + y * to_stride, to_stride, original + y * origin_stride, origin_stride,
                        fill + plane * row_bytes, min(step, y1 - y), runs, count, pixel, row_bytes, copying,
                    )  # fmt: skip
