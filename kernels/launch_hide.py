"""The launch plan of ``hide``: a pure function from shapes and addresses to grid, block and arguments."""

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
    CELLS_BYTES,
    FILL_CAPACITY,
    PARAMETER_BYTES,
    VECTOR_BYTES,
    Launch,
    Plan,
    Specialisation,
    hide_arguments,
    round_up,
    specialise,
)
from has_dali.kernels.policy import HideAndSeek

MAX_SIDE = 2**31 - 1
WORD_BITS = 32
# Elements of one tile. Planar tiles serve every channel; an interleaved tile serves one image only, so it is larger.
PLANAR_TILE, INTERLEAVED_TILE = 4096, 8192
BLOCK_ELEMENTS = 16_384  # what a block should at least write, so that building the mask stays cheap
MAX_TILE_LINES = 1024
CAPACITIES = (0, 128, 1024)  # samples of a table
BLOCKS_PER_SM = 6  # at most 40 registers


@dataclass(frozen=True)
class _HideGeometry:
    specialisation: Specialisation
    dtype: np.dtype
    fields: tuple[tuple[str, int], ...]
    blocks_per_sample: int
    shared_bytes: int
    capacity: int


def _tiles(height: int, line: int, channels: int, vector: int, limit: int) -> tuple[int, int, int]:
    """``(lines, elements of a line, tiles across)`` of a tile: whole lines where they fit, else a part of one."""
    if line <= limit:
        lines = min(limit // line, MAX_TILE_LINES, height)
        lines = math.ceil(height / math.ceil(height / lines))  # tiles of equal size
        step = vector // math.gcd(line, vector)  # lines after which the alignment comes round again
        return (round_up(lines, step) if round_up(lines, step) * line <= limit else lines), line, 1
    step = math.lcm(vector, channels)
    part = limit // step * step if step <= limit else limit
    return 1, part, math.ceil(line / part)


@lru_cache(maxsize=256)
def _hide_geometry(
    shape: tuple[int, int, int, int],
    interleaved: bool,
    element_bytes: int,
    skew: int,
    in_place: bool,
    fill: int,
    patch: int,
    patch_capacity: int,
    table: bool,
    parameter_bytes: int,
) -> _HideGeometry:
    samples, channels, height, width = shape
    vector = VECTOR_BYTES // element_bytes
    pixel = channels if interleaved else 1
    line = width * pixel
    lines, elements, across = _tiles(height, line, pixel, vector, INTERLEAVED_TILE if interleaved else PLANAR_TILE)
    plane = height * line
    aligned = plane % vector == 0 and (lines * line if across == 1 else math.gcd(elements, line)) % vector == 0
    access = 1 if skew < 0 or (interleaved and fill == 2) else 16 if aligned and skew == 0 else 0
    planes = 1 if interleaved else channels
    tile = lines * elements
    per_block = min(planes, max(4, math.ceil(BLOCK_ELEMENTS / tile)))
    groups = math.ceil(planes / per_block)
    slots = math.ceil(tile / (1 if access == 1 else vector)) + (access == 0)
    hidden_at = CELLS_BYTES
    mask_at = hidden_at + cell_bytes(lines, min(width, elements // pixel + 2), patch)
    pattern_at = mask_at + round_up(4 * (math.ceil(tile / WORD_BITS) + 2), VECTOR_BYTES)
    pattern_bytes = VECTOR_BYTES * channels if interleaved and fill == 1 else 0
    tiles = math.ceil(height / lines) * across

    def argument_bytes(capacity: int) -> int:
        return hide_arguments(element_bytes, fill, patch_capacity, capacity).itemsize

    capacity = sample_capacity(CAPACITIES, table, samples, argument_bytes, parameter_bytes)
    fields = {
        "plane_elements": plane,
        "planes": planes,
        "planes_per_block": per_block,
        "plane_groups": groups,
        "height": height,
        "width": width,
        "channels": pixel,
        "line_elements": line,
        "tiles": tiles,
        "tiles_across": across,
        "tile_lines": lines,
        "tile_elements": elements,
        "lane_bits": min(max(slots - 1, 0).bit_length(), BLOCK_THREADS.bit_length() - 1),
        "channel_reciprocal": -(-(2**32) // pixel) if pixel > 1 else 0,
        "hidden_at": hidden_at,
        "mask_at": mask_at,
        "pattern_at": pattern_at,
    }
    return _HideGeometry(
        specialise(
            "hide",
            KERNEL_HIDE=1,
            ELEMENT_BYTES=element_bytes,
            INTERLEAVED=int(interleaved),
            IN_PLACE=int(in_place),
            ACCESS=access,
            FILL=fill,
            FILL_CAPACITY=FILL_CAPACITY,
            PATCH_CAPACITY=patch_capacity,
            SAMPLE_CAPACITY=capacity,
            ARGUMENT_BYTES=argument_bytes(capacity),
            HIDE_BLOCKS_PER_SM=BLOCKS_PER_SM,
        ),
        hide_arguments(element_bytes, fill, patch_capacity, capacity),
        tuple(fields.items()),
        tiles * groups,
        pattern_at + pattern_bytes,
        capacity,
    )


def fill_kind(fills: npt.NDArray, channels: int) -> int:
    """How the fill reaches the kernel: 0 one value for all, 1 in the arguments, 2 as an array on the device."""
    if len(fills) == 0 or (fills == fills[0]).all():
        return 0
    return 1 if channels <= FILL_CAPACITY else 2


def plan_hide(
    *,
    input_pointer: int,
    output_pointer: int,
    shape: tuple[int, int, int, int],
    interleaved: bool,
    fills: npt.NDArray[np.unsignedinteger],
    policy: HideAndSeek | None,
    keys: SampleKeys,
    fills_pointer: int = 0,
    parameter_bytes: int = PARAMETER_BYTES,
) -> Plan | None:
    """Plan ``hide`` for one contiguous batch.

    Args:
        input_pointer: address of the batch.
        output_pointer: address of the result; equal to ``input_pointer`` in place.
        shape: (samples, channels, height, width), whatever the order in memory; sequences have height 1.
        interleaved: channels are last in memory (NHWC) instead of planes (NCHW, NCT).
        fills: (channels,) bit patterns, unsigned integers of the element's size.
        policy: which pixels to hide; None hides none.
        keys: ids, epochs and thresholds.
        fills_pointer: address of ``fills`` on the device, needed where ``fill_kind`` is 2.
        parameter_bytes: room for arguments.

    Returns:
        The plan, or None where there is nothing to do (empty batch; in place and nothing to hide).

    Raises:
        ValueError: a side is too long, or there are too many patch sizes.
    """
    samples, channels, height, width = shape
    in_place = input_pointer == output_pointer
    patch = smallest_patch(policy)
    if 0 in shape or (in_place and patch == 0):
        return None
    line = width * (channels if interleaved else 1)
    for name, size in (("height", height), ("width", width), ("width * channels", line)):
        if size > MAX_SIDE:
            raise ValueError(f"{name}={size}: the GPU kernel takes at most {MAX_SIDE}; split the batch")
    element = fills.dtype.itemsize
    difference = (output_pointer - input_pointer) % VECTOR_BYTES
    if input_pointer % element or output_pointer % element:
        raise ValueError(f"batch: its address must be a multiple of its element size, {element} bytes; copy it first")
    kind = fill_kind(fills, channels)
    geometry = _hide_geometry(
        shape, interleaved, element, -1 if difference else output_pointer % VECTOR_BYTES, in_place, kind,
        patch, patch_capacity(policy), keys.on_host(), parameter_bytes,
    )  # fmt: skip
    arguments = np.zeros(1, geometry.dtype)
    for name, value in geometry.fields:
        arguments[name] = value
    set_policy(arguments, policy if patch else None)
    arguments["fills"] = fills_pointer
    if kind == 0:
        arguments["fill"] = int(fills[0]) * {1: 0x01010101, 2: 0x00010001, 4: 1}[element]
    elif kind == 1:
        arguments["fill_table"][0, :channels] = fills
    image_bytes = channels * height * width * element
    launches = []
    for batch in batches(samples, geometry.capacity, geometry.blocks_per_sample):
        own = arguments.copy()
        own["input"] = input_pointer + batch.start * image_bytes
        own["output"] = output_pointer + batch.start * image_bytes
        set_keys(own, keys, batch)
        grid = (batch.stop - batch.start) * geometry.blocks_per_sample
        launches.append(Launch(grid, BLOCK_THREADS, geometry.shared_bytes, own, batch))
    return Plan(geometry.specialisation, tuple(launches))
