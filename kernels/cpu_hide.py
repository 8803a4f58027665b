"""Hide on the CPU: one byte-level kernel for every dtype and layout.

A batch is N images of P planes of rows; planar layouts have one plane per channel, interleaved ones a single
plane whose pixels hold all channels. Hidden runs are copied from a row of the fill that stays in the L1 cache, so
the element type never matters. In place only hidden bytes are touched; out of place visible bytes are copied once.
"""

from __future__ import annotations

import numba
import numpy as np

from has_dali.kernels.cpu_grid import draw_grid, max_cells, row_runs
from has_dali.kernels.simd import address_of, copy_1, copy_2, copy_4, copy_8, copy_16, copy_32, copy_bytes

_LARGE = 1024  # from here on the C library's memcpy wins over an inlined loop


@numba.njit(nogil=True, cache=True)
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


@numba.njit(nogil=True, cache=True)
def _copy_rows(target, source, target_strides, source_strides, planes, y0, y1, nbytes):  # type: ignore[no-untyped-def]
    for plane in range(planes):
        for y in range(y0, y1):
            copy_run(
                target + plane * target_strides[1] + y * target_strides[2],
                source + plane * source_strides[1] + y * source_strides[2],
                nbytes,
            )


@numba.njit(nogil=True, cache=True)
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
    copying = target != source
    fill = address_of(fill_rows)
    runs = np.empty(2, np.int64)
    for n in range(begin, end):
        to, origin = target + n * target_strides[0], source + n * source_strides[0]
        epoch = np.uint64(epochs[n])
        size, offset_y, offset_x = draw_grid(seed, apply_threshold, random_offset, patch_sizes, sample_ids[n], epoch)
        if size == 0 or hide_thresholds[n] == 0:
            if copying:
                _copy_rows(to, origin, target_strides, source_strides, planes, 0, height, width * pixel)
            continue
        needed = 2 * max_cells(size, offset_x, width) + 2
        if len(runs) < needed:
            runs = np.empty(needed, np.int64)
        for row in range((height - 1 + offset_y) // size + 1):
            y0, y1 = max(row * size - offset_y, 0), min((row + 1) * size - offset_y, height)
            count = row_runs(runs, True, row, size, offset_x, width, seed, sample_ids[n], epoch, hide_thresholds[n])
            for plane in range(planes):
                fill_row = fill + plane * width * pixel
                for y in range(y0, y1):
                    line = to + plane * target_strides[1] + y * target_strides[2]
                    original = origin + plane * source_strides[1] + y * source_strides[2]
                    seen = 0
                    for run in range(count):
                        x0, x1 = runs[2 * run] * pixel, runs[2 * run + 1] * pixel
                        if copying:
                            copy_run(line + seen, original + seen, x0 - seen)
                        copy_run(line + x0, fill_row + x0, x1 - x0)
                        seen = x1
                    if copying:
                        copy_run(line + seen, original + seen, width * pixel - seen)
