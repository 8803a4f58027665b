"""The launch plan of ``resize_mirror_normalize_hide``: a pure function, as ``launch_hide.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from has_dali.kernels.launch_keys import (
    SampleKeys,
    batches,
    cell_bytes,
    patch_capacity,
    sample_capacity,
    set_keys,
    set_policy,
    smallest_patch,
)
from has_dali.kernels.launch_layout import (
    BLOCK_THREADS,
    BLOCK_WARPS,
    CELLS_BYTES,
    CHANNEL_CAPACITY,
    PARAMETER_BYTES,
    VECTOR_BYTES,
    Launch,
    Plan,
    Specialisation,
    resize_arguments,
    round_up,
    specialise,
)
from has_dali.kernels.policy import HideAndSeek

MAX_IMAGE_SIDE = 65_535
WORD_BITS = 32
CAPACITIES = (0, 64, 512)  # samples of a table
BLOCKS_PER_SM = {0: 4, 1: 4, 2: 3}  # by RESAMPLE: at most 64, 64 and 80 registers
OUTPUTS = {"float32": (0, 4), "float16": (1, 2), "bfloat16": (2, 2)}  # dtype: (OUTPUT, bytes)
TILE_WIDTH, TILE_ROWS = 256, 16
SEGMENTS = {0: 128, 1: 64, 2: 64}  # by RESAMPLE: pixels that a warp finishes at a time
CHUNK_PITCH = 128 + 11
SPAN_BYTES = 20
SHARED_BYTES = 48 * 1024
ROW_TAPS = 64


@dataclass(frozen=True)
class Images:
    """Decoded images on the device, (height, width, channels) uint8 each.

    ``pointers``, ``heights``, ``widths``: (N,) arrays; or single numbers and ``stride`` bytes between images that
    are parts of one batch.
    """

    pointers: int | npt.NDArray[np.uint64]
    heights: int | npt.NDArray[np.integer]
    widths: int | npt.NDArray[np.integer]
    count: int
    channels: int
    stride: int = 0

    def uniform(self) -> bool:
        """Whether the images are one contiguous batch."""
        return isinstance(self.pointers, int)


@dataclass(frozen=True)
class _ResizeGeometry:
    specialisation: Specialisation
    dtype: np.dtype
    fields: tuple[tuple[str, int], ...]
    tiles: int
    shared_bytes: int
    capacity: int


def _taps(source: int, target: int, antialias: bool) -> int:
    """The most source pixels that an output pixel of an axis can need."""
    return min(source, math.ceil(2 * source / target) + 1 if antialias and source > target else 2)


@lru_cache(maxsize=256)
def _resize_geometry(
    target: tuple[int, int],
    source: tuple[int, int],
    count: int,
    channels: int,
    output: int,
    element_bytes: int,
    interleaved: bool,
    aligned: bool,
    resample: int,
    patch: int,
    patch_capacity: int,
    table: bool,
    parameter_bytes: int,
) -> _ResizeGeometry:
    """``target``, ``source``: (height, width) of the largest output and input."""
    height, width = target
    segment = SEGMENTS[resample]
    across = math.ceil(width / TILE_WIDTH)
    tile_width = width if across == 1 else round_up(math.ceil(width / across), segment)
    across = math.ceil(width / tile_width)
    down = math.ceil(height / TILE_ROWS)
    tile_rows = math.ceil(height / down)
    vector = VECTOR_BYTES // element_bytes
    planes, line = (1, segment * channels) if interleaved else (channels, segment)
    warp_bytes = planes * (line + (0 if aligned else vector)) * element_bytes
    warp_bytes += round_up(4 * channels * CHUNK_PITCH, VECTOR_BYTES) if resample == 2 else 0
    hidden_at = CELLS_BYTES
    mask_at = hidden_at + cell_bytes(tile_rows, tile_width, patch)
    warps_at = mask_at + round_up(4 * tile_rows * math.ceil(tile_width / WORD_BITS), VECTOR_BYTES)
    rows_at = warps_at + BLOCK_WARPS * warp_bytes
    columns_at, shared, row_taps, column_taps = rows_at, rows_at, 0, 0
    if resample:
        row_taps = min(_taps(source[0], height, resample == 2), ROW_TAPS)
        columns_at = round_up(rows_at + tile_rows * (SPAN_BYTES + 4 * row_taps), VECTOR_BYTES)
        room = (SHARED_BYTES - columns_at) // tile_width // 4 - SPAN_BYTES // 4
        column_taps = min(_taps(source[1], width, resample == 2), room)
        shared = round_up(columns_at + tile_width * (SPAN_BYTES + 4 * column_taps), VECTOR_BYTES)

    def argument_bytes(capacity: int) -> int:
        return resize_arguments(patch_capacity, capacity).itemsize

    capacity = sample_capacity(CAPACITIES, table, count, argument_bytes, parameter_bytes)
    fields = {
        "out_height": height, "out_width": width, "tiles": across * down, "tiles_across": across,
        "tile_width": tile_width, "tile_rows": tile_rows, "column_taps": column_taps, "row_taps": row_taps,
        "hidden_at": hidden_at, "mask_at": mask_at, "columns_at": columns_at, "rows_at": rows_at,
        "warps_at": warps_at, "warp_bytes": warp_bytes,
    }  # fmt: skip
    return _ResizeGeometry(
        specialise(
            "resize_mirror_normalize_hide",
            KERNEL_RESIZE=1,
            ELEMENT_BYTES=element_bytes,
            OUTPUT=output,
            INTERLEAVED=int(interleaved),
            ACCESS=16 if aligned else 0,
            CHANNELS=channels,
            CHANNEL_CAPACITY=CHANNEL_CAPACITY,
            RESAMPLE=resample,
            SEGMENT_PIXELS=segment,
            PATCH_CAPACITY=patch_capacity,
            SAMPLE_CAPACITY=capacity,
            ARGUMENT_BYTES=argument_bytes(capacity),
            RESIZE_BLOCKS_PER_SM=BLOCKS_PER_SM[resample],
        ),
        resize_arguments(patch_capacity, capacity),
        tuple(fields.items()),
        across * down,
        shared,
        capacity,
    )


def plan_resize(
    *,
    images: Images,
    outputs: int | npt.NDArray[np.uint64],
    size: tuple[int, int] | None,
    scale: npt.NDArray[np.float32],
    shift: npt.NDArray[np.float32],
    fill: npt.NDArray[np.float32],
    policy: HideAndSeek | None,
    keys: SampleKeys,
    dtype: str = "float32",
    interleaved: bool = False,
    antialias: bool = True,
    parameter_bytes: int = PARAMETER_BYTES,
) -> Plan | None:
    """Plan ``resize_mirror_normalize_hide``.

    Args:
        images: where the decoded images are.
        outputs: address of the dense output batch, or (N,) addresses (needed where outputs differ in size).
        size: (height, width) of the outputs, or None for no resampling.
        scale: (channels,) factors, of ``contract.normalization``.
        shift: (channels,) addends.
        fill: (channels,) values of hidden pixels.
        policy: which pixels to hide; None hides none.
        keys: ids, epochs, thresholds and mirrors.
        dtype: of the outputs: float32, float16 or bfloat16.
        interleaved: outputs are HWC instead of CHW.
        antialias: whether the filter grows with the scale when an axis shrinks.
        parameter_bytes: room for arguments.

    Returns:
        The plan, or None where the batch is empty.

    Raises:
        ValueError: a side is 0 or too long, channels or dtype are unsupported.
    """
    output, element = _checked_resize(images, size, dtype)
    if images.count == 0:
        return None
    source = (int(np.max(images.heights)), int(np.max(images.widths)))
    target = source if size is None else size
    widths = np.atleast_1d(images.widths) if size is None else np.array([size[1]])
    heights = np.atleast_1d(images.heights) if size is None else np.array([size[0]])
    if isinstance(outputs, int) and len(np.unique(np.stack(np.broadcast_arrays(heights, widths), 1), axis=0)) > 1:
        raise ValueError("outputs: images of different shapes need an address each when size is None")
    lines = widths.astype(np.int64) * (images.channels if interleaved else 1) * element
    aligned = not (lines % VECTOR_BYTES).any() and not (np.asarray(outputs, np.uint64) % np.uint64(VECTOR_BYTES)).any()
    patch = smallest_patch(policy)
    output_stride = target[0] * target[1] * images.channels
    geometry = _resize_geometry(
        target, source, images.count, images.channels, output, element, interleaved, aligned,
        0 if size is None else 1 + antialias, patch, patch_capacity(policy),
        keys.on_host() or not images.uniform() or not isinstance(outputs, int), parameter_bytes,
    )  # fmt: skip
    arguments = np.zeros(1, geometry.dtype)
    for name, value in geometry.fields:
        arguments[name] = value
    set_policy(arguments, policy if patch else None)
    for name, values in (("scale", scale), ("shift", shift), ("fill", fill)):
        arguments[name][0, : images.channels] = values
    launches = []
    for batch in batches(images.count, geometry.capacity, geometry.tiles):
        own = arguments.copy()
        _set_images(own, images, outputs, batch, output_stride, element)
        set_keys(own, keys, batch)
        grid = (batch.stop - batch.start) * geometry.tiles
        launches.append(Launch(grid, BLOCK_THREADS, geometry.shared_bytes, own, batch))
    return Plan(geometry.specialisation, tuple(launches))


def _set_images(
    arguments: np.ndarray,
    images: Images,
    outputs: int | npt.NDArray[np.uint64],
    batch: slice,
    output_stride: int,
    element_bytes: int,
) -> None:
    """Write where the images of ``batch`` are: a table, or the first one and the strides."""
    steps = np.arange(batch.start, batch.stop, dtype=np.uint64)

    def addresses(value: int | npt.NDArray[np.uint64], stride: int) -> npt.NDArray[np.uint64]:
        return np.uint64(value) + steps * np.uint64(stride) if isinstance(value, int) else value[batch]

    def own(value: int | npt.NDArray[np.integer]) -> int | npt.NDArray[np.integer]:
        return value[batch] if isinstance(value, np.ndarray) else value

    table = "images" in (arguments.dtype.names or ())
    entry = arguments["images"][0, : len(steps)] if table else arguments["image"]
    rows = slice(None) if table else slice(1)
    entry["input"] = addresses(images.pointers, images.stride)[rows]
    entry["output"] = addresses(outputs, output_stride * element_bytes)[rows]
    entry["height"] = own(images.heights)
    entry["width"] = own(images.widths)
    arguments["input_stride"] = images.stride
    arguments["output_stride"] = output_stride


def _checked_resize(images: Images, size: tuple[int, int] | None, dtype: str) -> tuple[int, int]:
    """``(OUTPUT, bytes)`` of the dtype, after the checks that need no data."""
    if dtype not in OUTPUTS:
        raise ValueError(f"dtype={dtype!r}: expected one of {', '.join(OUTPUTS)}")
    if not 1 <= images.channels <= CHANNEL_CAPACITY:
        raise ValueError(f"images: {images.channels} channels, expected 1 to {CHANNEL_CAPACITY}")
    for name, sides in (("height", images.heights), ("width", images.widths)):
        if images.count and not (np.min(sides) >= 1 and np.max(sides) <= MAX_IMAGE_SIDE):
            raise ValueError(f"images: a {name} of {int(np.max(sides))}, expected 1 to {MAX_IMAGE_SIDE} pixels")
    if size is not None and not all(1 <= side <= MAX_IMAGE_SIDE for side in size):
        raise ValueError(f"size={size!r}: expected (height, width), 1 to {MAX_IMAGE_SIDE} pixels each")
    return OUTPUTS[dtype]
