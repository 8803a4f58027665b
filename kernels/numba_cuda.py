"""The two operations for numba-cuda, where CuPy is missing: the same contract, simpler code, less speed.

Cells are drawn once per tile into shared memory, as in ``hide_and_seek.cu``; pixels are moved one at a time. Two
limits that the CuPy route does not have: keys and fills are uploaded for each call, and images of a ragged batch
take a launch each, because Numba cannot read a table of addresses. bfloat16 outputs are not offered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import config, cuda, float32, int64, uint8, uint64

from has_dali.kernels import contract
from has_dali.kernels.device_arrays import is_device_array
from has_dali.kernels.policy import HideAndSeek

TILE_ROWS, TILE_COLUMNS = 16, 64
TILE_PIXELS = TILE_ROWS * TILE_COLUMNS
MAX_CHANNELS = 4
BLOCK = 64 if config.ENABLE_CUDASIM else 256
# Entries of the shared record of a tile.
_PATCH, _OFFSET_Y, _OFFSET_X, _ROW, _COLUMN, _ROWS, _COLUMNS, _IMAGE_COLUMNS, _RECORD = range(9)


@lru_cache(maxsize=1)
def unavailable_reason() -> str | None:
    """Why this implementation cannot run here, or None where it can."""
    if cuda.is_available():
        return None
    return "numba-cuda finds no usable CUDA driver or device"


# ---- device code -------------------------------------------------------------------------------------------


@cuda.jit(device=True)
def _philox(seed, identity, epoch, block):  # type: ignore[no-untyped-def]
    """Words of counter (block, epoch, id low, id high), in uint64."""
    low, shift = uint64(0xFFFFFFFF), uint64(32)
    c0, c1, c2, c3 = block & low, epoch & low, identity & low, identity >> shift
    k0, k1 = seed & low, seed >> shift
    for _ in range(10):
        p0, p1 = uint64(0xD2511F53) * c0, uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + uint64(0x9E3779B9)) & low, (k1 + uint64(0xBB67AE85)) & low
    return c0, c1, c2, c3


@cuda.jit(device=True)
def _locate(tile, policy, sizes, identity, epoch, y, x, rows, columns, width):  # type: ignore[no-untyped-def]
    """One thread: draw the grid of an image and find the cells of a tile; patch size 0 leaves the image whole."""
    shift = uint64(32)
    r0, r1, r2, r3 = _philox(policy[0], identity, epoch, uint64(0))
    tile[_PATCH] = 0
    if len(sizes) == 0 or r0 >= policy[1]:
        return
    size = sizes[int64((r1 * uint64(len(sizes))) >> shift)]
    tile[_PATCH] = size
    if size == 0:
        return
    tile[_OFFSET_Y] = int64((r2 * uint64(size)) >> shift) * int64(policy[2])
    tile[_OFFSET_X] = int64((r3 * uint64(size)) >> shift) * int64(policy[2])
    tile[_ROW] = (y + tile[_OFFSET_Y]) // size
    tile[_COLUMN] = (x + tile[_OFFSET_X]) // size
    tile[_ROWS] = (y + rows - 1 + tile[_OFFSET_Y]) // size - tile[_ROW] + 1
    tile[_COLUMNS] = (x + columns - 1 + tile[_OFFSET_X]) // size - tile[_COLUMN] + 1
    tile[_IMAGE_COLUMNS] = (width - 1 + tile[_OFFSET_X]) // size + 1


@cuda.jit(device=True)
def _draw_cells(hidden, tile, seed, identity, epoch, threshold):  # type: ignore[no-untyped-def]
    """All threads: one byte per cell of the tile; a Philox block serves its four cells."""
    columns = tile[_COLUMNS]
    blocks = (columns + 6) // 4
    for slot in range(cuda.threadIdx.x, tile[_ROWS] * blocks, cuda.blockDim.x):
        row = slot // blocks
        first = (tile[_ROW] + row) * tile[_IMAGE_COLUMNS] + tile[_COLUMN]
        block = first // 4 + slot % blocks
        words = _philox(seed, identity, epoch, uint64(block + 1))
        for k in range(4):
            column = block * 4 - first + k
            if 0 <= column < columns:
                word = words[0] if k == 0 else words[1] if k == 1 else words[2] if k == 2 else words[3]
                hidden[row * columns + column] = 1 if word < threshold else 0


@cuda.jit(device=True)
def _is_hidden(hidden, tile, y, x):  # type: ignore[no-untyped-def]
    """Whether a pixel of the tile is hidden."""
    size = tile[_PATCH]
    if size == 0:
        return False
    row = (y + tile[_OFFSET_Y]) // size - tile[_ROW]
    column = (x + tile[_OFFSET_X]) // size - tile[_COLUMN]
    return hidden[row * tile[_COLUMNS] + column] != 0


@cuda.jit(device=True)
def _prepare(hidden, tile, keys, sample, policy, sizes, y, x, rows, columns, width):  # type: ignore[no-untyped-def]
    """All threads: everything that ``_is_hidden`` needs, behind a barrier."""
    if cuda.threadIdx.x == 0:
        _locate(tile, policy, sizes, keys[sample, 0], keys[sample, 1], y, x, rows, columns, width)
    cuda.syncthreads()
    if tile[_PATCH] != 0:
        _draw_cells(hidden, tile, policy[0], keys[sample, 0], keys[sample, 1], keys[sample, 2])
    cuda.syncthreads()


@cuda.jit
def _hide_kernel(source, target, keys, policy, sizes, fills, interleaved, in_place):  # type: ignore[no-untyped-def]
    """Block: one tile of one image, all channels."""
    hidden = cuda.shared.array(TILE_PIXELS, uint8)  # on a line of its own: the simulator tells them apart by line
    tile = cuda.shared.array(_RECORD, int64)
    height, width = (source.shape[1], source.shape[2]) if interleaved else (source.shape[2], source.shape[3])
    channels = source.shape[3] if interleaved else source.shape[1]
    across, down = (width + TILE_COLUMNS - 1) // TILE_COLUMNS, (height + TILE_ROWS - 1) // TILE_ROWS
    sample, index = cuda.blockIdx.x // (across * down), cuda.blockIdx.x % (across * down)
    y, x = index // across * TILE_ROWS, index % across * TILE_COLUMNS
    rows, columns = min(TILE_ROWS, height - y), min(TILE_COLUMNS, width - x)
    _prepare(hidden, tile, keys, sample, policy, sizes, y, x, rows, columns, width)
    for i in range(cuda.threadIdx.x, rows * columns, cuda.blockDim.x):
        v, u = y + i // columns, x + i % columns
        covered = _is_hidden(hidden, tile, v, u)
        for c in range(channels if covered or not in_place else 0):
            if interleaved:
                target[sample, v, u, c] = fills[c] if covered else source[sample, v, u, c]
            else:
                target[sample, c, v, u] = fills[c] if covered else source[sample, c, v, u]


@cuda.jit(device=True)
def _slope(radius, step, centre, low, high):  # type: ignore[no-untyped-def]
    """Sum of the weights of source pixels low .. high, on one side of the centre."""
    if high < low:
        return int64(0)
    return (2 * radius - abs(low * step - centre) - abs(high * step - centre)) * (high - low + 1) // 2


@cuda.jit(device=True)
def _weight_sum(radius, step, centre, low, high):  # type: ignore[no-untyped-def]
    """Sum of the weights of source pixels low .. high (reference.py: max(0, R - |i D - P|))."""
    peak = centre // step
    return _slope(radius, step, centre, low, min(high, peak)) + _slope(radius, step, centre, max(low, peak + 1), high)


@cuda.jit(device=True)
def _taps(source, target, output, antialias):  # type: ignore[no-untyped-def]
    """Centre and radius of an output pixel, and its first and last source pixel before the border is applied."""
    step = int64(2) * target
    centre = (int64(2) * output + 1) * source - target
    radius = max(int64(2) * source, step) if antialias else step
    return centre, radius, (centre - radius) // step + 1, -((-centre - radius) // step) - 1


@cuda.jit(device=True)
def _weight(centre, radius, step, first, last, size, i, total):  # type: ignore[no-untyped-def]
    """Weight of source pixel i, the border's share included."""
    low, high = first if i == 0 else i, last if i == size - 1 else i
    return float32(_weight_sum(radius, step, centre, low, high)) / total


@cuda.jit(device=True)
def _blend(image, c, oy, ox, out_height, out_width, antialias):  # type: ignore[no-untyped-def]
    """One channel of one output pixel: rows first, then columns."""
    height, width = image.shape[0], image.shape[1]
    cy, ry, top, bottom = _taps(int64(height), int64(out_height), int64(oy), antialias)
    cx, rx, left, right = _taps(int64(width), int64(out_width), int64(ox), antialias)
    step_y, step_x = int64(2) * out_height, int64(2) * out_width
    total_y = float32(_weight_sum(ry, step_y, cy, top, bottom))
    total_x = float32(_weight_sum(rx, step_x, cx, left, right))
    value = float32(0)
    for i in range(max(left, 0), min(right, width - 1) + 1):
        column = float32(0)
        for j in range(max(top, 0), min(bottom, height - 1) + 1):
            weight = _weight(cy, ry, step_y, top, bottom, height, j, total_y)
            column = cuda.fma(weight, float32(image[j, i, c]), column)
        value = cuda.fma(_weight(cx, rx, step_x, left, right, width, i, total_x), column, value)
    return value


@cuda.jit
def _resize_kernel(images, target, keys, policy, sizes, constants, interleaved, resample, antialias):  # type: ignore[no-untyped-def]
    """Block: one tile of one output. ``constants``: (3, channels): scale, shift, fill."""
    hidden = cuda.shared.array(TILE_PIXELS, uint8)  # on a line of its own: the simulator tells them apart by line
    tile = cuda.shared.array(_RECORD, int64)
    height, width = (target.shape[1], target.shape[2]) if interleaved else (target.shape[2], target.shape[3])
    across, down = (width + TILE_COLUMNS - 1) // TILE_COLUMNS, (height + TILE_ROWS - 1) // TILE_ROWS
    sample, index = cuda.blockIdx.x // (across * down), cuda.blockIdx.x % (across * down)
    y, x = index // across * TILE_ROWS, index % across * TILE_COLUMNS
    rows, columns = min(TILE_ROWS, height - y), min(TILE_COLUMNS, width - x)
    _prepare(hidden, tile, keys, sample, policy, sizes, y, x, rows, columns, width)
    for i in range(cuda.threadIdx.x, rows * columns, cuda.blockDim.x):
        v, u = y + i // columns, x + i % columns
        covered = _is_hidden(hidden, tile, v, u)
        o = width - 1 - u if keys[sample, 3] != 0 else u
        for c in range(images.shape[3]):
            value = constants[2, c]
            if not covered:
                if resample:
                    pixel = _blend(images[sample], c, v, o, height, width, antialias)
                else:
                    pixel = float32(images[sample, v, o, c])
                value = cuda.fma(pixel, constants[0, c], constants[1, c])
            if interleaved:
                target[sample, v, u, c] = value
            else:
                target[sample, c, v, u] = value


# ---- host code ---------------------------------------------------------------------------------------------


def _device(name: str, value: Any) -> Any:
    """Numba's view of a device array."""
    if config.ENABLE_CUDASIM:
        return value
    if not is_device_array(value):
        raise TypeError(f"{name}: expected an array on a CUDA device, got {type(value).__name__}; copy it there first")
    return cuda.as_cuda_array(value)


def _host(name: str, value: Any, queue: Any) -> Any:
    """Keys on the host; numba-cuda is the fallback, and may wait for a copy, on the stream that wrote them."""
    if not (is_device_array(value) or hasattr(value, "copy_to_host")):
        return value
    if config.ENABLE_CUDASIM:
        return _device(name, value).copy_to_host().reshape(-1)
    array = _device(name, value).copy_to_host(stream=queue)
    queue.synchronize()
    return array.reshape(-1)


def _policy_arrays(policy: HideAndSeek | None) -> tuple[npt.NDArray, npt.NDArray]:
    if policy is None:
        return np.zeros(3, np.uint64), np.zeros(0, np.int64)
    fields = [contract.as_u64(policy.seed), contract.threshold(policy.p_apply), int(policy.random_offset)]
    return np.array(fields, np.uint64), np.array(policy.patch_sizes, np.int64)


def _keys(
    policy: HideAndSeek | None, count: int, sample_ids: Any, epoch: Any, p_hide: Any, thresholds: Any, mirror: Any,
    queue: Any = None,
) -> npt.NDArray[np.uint64]:  # fmt: skip
    """(count, 4): id, epoch, threshold, mirror."""
    keys = np.zeros((count, 4), np.uint64)
    if policy is not None:
        keys[:, 0] = contract.sample_ids_u64(_host("sample_ids", sample_ids, queue), count)
        keys[:, 1] = contract.epochs_u32(_host("epoch", epoch, queue), count)
        limits = contract.thresholds_u64(policy.p_hide if p_hide is None else p_hide, count)
        keys[:, 2] = (
            limits
            if thresholds is None
            else contract.sample_ids_u64(_host("thresholds", thresholds, queue), count, "thresholds")
        )
    if mirror is not None:
        flips = np.asarray(_host("mirror", mirror, queue))
        if flips.shape not in ((), (count,)):
            raise ValueError(f"mirror: expected one flag or shape ({count},), one per sample, got {flips.shape}")
        keys[:, 3] = flips != 0
    return keys


def _blocks(count: int, height: int, width: int) -> int:
    return count * math.ceil(height / TILE_ROWS) * math.ceil(width / TILE_COLUMNS)


def _stream(handle: int) -> Any:
    return cuda.external_stream(handle) if handle else cuda.default_stream()


def hide(
    batch: Any,
    policy: HideAndSeek | None,
    sample_ids: Any,
    epoch: Any,
    *,
    fill: float | Sequence[float] = 0.0,
    layout: str = "NCHW",
    out: Any = None,
    p_hide: Any = None,
    thresholds: Any = None,
    dtype: str | None = None,
    stream: int = 0,
) -> Any:
    """Hide pixels of a batch on the current device; arguments as ``gpu.hide``, but no bfloat16.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    if layout not in contract.LAYOUTS:
        raise ValueError(f"layout={layout!r}: expected one of {', '.join(contract.LAYOUTS)}")
    if dtype == "bfloat16":
        raise TypeError("batch: numba-cuda offers no bfloat16; install CuPy, or convert to float16 or float32")
    source = _device("batch", batch)
    if len(source.shape) != len(layout):
        raise ValueError(f"batch: expected {len(layout)} axes for layout {layout}, got shape {source.shape}")
    if source.dtype not in (np.uint8, np.float16, np.float32):
        raise TypeError(f"batch: dtype {source.dtype} is not supported; expected uint8, float16 or float32")
    queue = _stream(stream)
    result = cuda.device_array(source.shape, source.dtype, stream=queue) if out is None else out
    target = source if out is batch else _device("out", result)
    if target.shape != source.shape or target.dtype != source.dtype:
        raise ValueError(f"out: expected {source.dtype} of {source.shape}, got {target.dtype} of {target.shape}")
    count = source.shape[0]
    keys = _keys(policy, count, sample_ids, epoch, p_hide, thresholds, None, queue)
    if 0 in source.shape:
        return result
    if layout == "NCT":
        shape = (*source.shape[:2], 1, source.shape[2])
        source, target = source.reshape(shape), target.reshape(shape)
    interleaved = layout == "NHWC"
    height, width = source.shape[1:3] if interleaved else source.shape[2:]
    fills = contract.fill_as(source.dtype, fill, source.shape[3 if interleaved else 1])
    fields, sizes = _policy_arrays(policy)
    uploads = [cuda.to_device(array, stream=queue) for array in (keys, fields, sizes, fills)]
    _hide_kernel[_blocks(count, height, width), BLOCK, queue](source, target, *uploads, interleaved, out is batch)
    return result


def resize_mirror_normalize_hide(
    images: Any,
    policy: HideAndSeek | None,
    sample_ids: Any,
    epoch: Any,
    *,
    size: tuple[int, int] | None = (224, 224),
    mirror: Any = None,
    mean: float | Sequence[float] = contract.IMAGENET_MEAN,
    std: float | Sequence[float] = contract.IMAGENET_STD,
    fill_value: float | Sequence[float] | None = None,
    dtype: str = "float32",
    output_layout: str = "CHW",
    antialias: bool = True,
    p_hide: Any = None,
    thresholds: Any = None,
    out: Any = None,
    stream: int = 0,
) -> Any:
    """The fused operator on the current device; arguments as ``gpu.resize_mirror_normalize_hide``, but no bfloat16.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype={dtype!r}: numba-cuda offers float32 and float16; install CuPy for bfloat16")
    if output_layout not in ("CHW", "HWC"):
        raise ValueError(f"output_layout={output_layout!r}: expected CHW or HWC")
    uniform = not isinstance(images, (list, tuple))
    sources = [_device("images", images)] if uniform else [_device(f"images[{i}]", v) for i, v in enumerate(images)]
    count = sources[0].shape[0] if uniform else len(sources)
    queue = _stream(stream)
    _check_images(sources, uniform, size)
    keys = _keys(policy, count, sample_ids, epoch, p_hide, thresholds, mirror, queue)
    sources = sources if uniform else [source.reshape((1, *source.shape)) for source in sources]
    shapes = [_output_shape(source.shape, size, output_layout) for source in sources]
    as_list = size is None and not uniform
    result = out
    if out is None and as_list:
        result = [cuda.device_array(shape, dtype, stream=queue) for shape in shapes]
    elif out is None:
        result = cuda.device_array((count, *(shapes[0] if shapes else (0, 0, 0))), dtype, stream=queue)
    else:
        _check_outputs(out, shapes if as_list else [(count, *(shapes[0] if shapes else (0, 0, 0)))], dtype, as_list)
    fields, sizes = _policy_arrays(policy)
    uploads = [cuda.to_device(array, stream=queue) for array in (fields, sizes)]
    for n, (source, shape) in enumerate(zip(sources, shapes, strict=True)):
        here = _device("out", result[n] if as_list else result if uniform else result[n : n + 1])
        target = here.reshape((1, *shape)) if as_list else here
        constants = np.stack(contract.normalization(mean, std, fill_value, source.shape[3]))
        own = cuda.to_device(keys if uniform else keys[n : n + 1], stream=queue)
        height, width = shape[1:] if output_layout == "CHW" else shape[:2]
        if source.shape[0]:
            _resize_kernel[_blocks(source.shape[0], height, width), BLOCK, queue](
                source, target, own, *uploads, cuda.to_device(constants, stream=queue),
                output_layout == "HWC", size is not None, antialias,
            )  # fmt: skip
    return result


def _check_images(sources: Sequence[Any], uniform: bool, size: Sequence[int] | None) -> None:
    """Dtypes, axes, channels and sides, before anything is launched: the kernel has no bounds of its own."""
    shapes = [tuple(source.shape) for source in sources]
    for n, (source, shape) in enumerate(zip(sources, shapes, strict=True)):
        name, axes = ("images", 4) if uniform else (f"images[{n}]", 3)
        if source.dtype != np.uint8 or len(shape) != axes:
            raise TypeError(f"{name}: expected uint8 with {axes} axes, got {source.dtype} with shape {shape}")
        height, width, channels = shape[-3:]
        if not 1 <= channels <= MAX_CHANNELS or min(height, width) < 1:
            raise ValueError(f"{name}: expected 1 to {MAX_CHANNELS} channels and at least a pixel, got {shape}")
        if channels != shapes[0][-1]:
            raise ValueError(f"{name}: {channels} channels, but images[0] has {shapes[0][-1]}")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size={size!r}: expected (height, width) of at least one pixel")


def _check_outputs(out: Any, shapes: Sequence[Sequence[int]], dtype: str, as_list: bool) -> None:
    arrays = out if as_list else [out]
    if len(arrays) != len(shapes):
        raise ValueError(f"out: expected {len(shapes)} arrays, one per image, got {len(arrays)}")
    for array, shape in zip(arrays, shapes, strict=True):
        target = _device("out", array)
        if tuple(target.shape) != tuple(shape) or target.dtype != np.dtype(dtype):
            raise ValueError(
                f"out: expected {dtype} of shape {tuple(shape)}, got {target.dtype} of {tuple(target.shape)}"
            )


def _output_shape(source: Sequence[int], size: tuple[int, int] | None, layout: str) -> tuple[int, ...]:
    height, width = size or source[1:3]
    return (source[3], height, width) if layout == "CHW" else (height, width, source[3])
