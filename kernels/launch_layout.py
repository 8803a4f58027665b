"""What a CUDA launch is told: the structures of ``hide_and_seek.cu``, field for field, as NumPy structured dtypes.

A kernel takes one structure by value. Per-sample values travel inside it (``table``, ``images``), so that a batch
needs no upload, no buffer that must outlive the launch, no allocation and no synchronisation; the driver copies
arguments when the launch is queued. Arguments may hold 32,764 bytes from CUDA 12.1 on, 4,096 before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BLOCK_THREADS = 256
BLOCK_WARPS = BLOCK_THREADS // 32
VECTOR_BYTES = 16
CELLS_BYTES = 64
FILL_CAPACITY = 16
CHANNEL_CAPACITY = 4
PARAMETER_BYTES = 32_764
CLASSIC_PARAMETER_BYTES = 4_096
PATCH_CAPACITIES = (16, 512)

SAMPLE_KEY = np.dtype([("id", "u8"), ("threshold", "u8"), ("epoch", "u4"), ("mirror", "u4")], align=True)
KEYS = np.dtype(
    [(name, "u8") for name in ["ids", "epochs", "thresholds", "mirrors", "stride"]] + [("shared_by_all", SAMPLE_KEY)],
    align=True,
)
IMAGE = np.dtype([("input", "u8"), ("output", "u8"), ("height", "u4"), ("width", "u4")], align=True)


@lru_cache
def policy_dtype(patch_capacity: int) -> np.dtype:
    """``Policy`` with room for ``patch_capacity`` patch sizes."""
    return np.dtype(
        [
            ("seed", "u8"),
            ("apply_threshold", "u8"),
            ("patch_count", "u4"),
            ("random_offset", "u4"),
            ("patch_sizes", "u4", (patch_capacity,)),
        ],
        align=True,
    )


@lru_cache
def hide_arguments(element_bytes: int, fill: int, patch_capacity: int, sample_capacity: int) -> np.dtype:
    """``HideArguments`` of one specialisation."""
    numbers = "planes planes_per_block plane_groups height width channels line_elements tiles tiles_across tile_lines"
    numbers += " tile_elements lane_bits channel_reciprocal hidden_at mask_at pattern_at fill reserved"
    fields: list[tuple] = [("input", "u8"), ("output", "u8"), ("fills", "u8"), ("plane_elements", "u8")]
    fields += [("keys", KEYS), ("policy", policy_dtype(patch_capacity))]
    fields += [(name, "u4") for name in numbers.split()]
    if fill == 1:
        fields.append(("fill_table", f"u{element_bytes}", (FILL_CAPACITY,)))
    if sample_capacity:
        fields.append(("table", SAMPLE_KEY, (sample_capacity,)))
    return np.dtype(fields, align=True)


@lru_cache
def resize_arguments(patch_capacity: int, sample_capacity: int) -> np.dtype:
    """``ResizeArguments`` of one specialisation."""
    numbers = "out_height out_width tiles tiles_across tile_width tile_rows column_taps row_taps"
    numbers += " hidden_at mask_at columns_at rows_at warps_at warp_bytes"
    fields: list[tuple] = [("image", IMAGE), ("input_stride", "u8"), ("output_stride", "u8")]
    fields += [("keys", KEYS), ("policy", policy_dtype(patch_capacity))]
    fields += [(name, "f4", (CHANNEL_CAPACITY,)) for name in ("scale", "shift", "fill")]
    fields += [(name, "u4") for name in numbers.split()]
    if sample_capacity:
        fields += [("images", IMAGE, (sample_capacity,)), ("table", SAMPLE_KEY, (sample_capacity,))]
    return np.dtype(fields, align=True)


@dataclass(frozen=True)
class Specialisation:
    """One compiled form of a kernel: its name and the compile-time definitions, sorted by name."""

    kernel: str
    defines: tuple[tuple[str, int], ...]

    def options(self) -> tuple[str, ...]:
        """Compiler options; the same for NVRTC, nvcc and a host compiler."""
        return tuple(f"-D{name}={value}" for name, value in self.defines)


@dataclass(frozen=True)
class Launch:
    """One launch: ``arguments`` is a one-element structured array, which CuPy passes by value."""

    grid: int
    block: int
    shared_bytes: int
    arguments: np.ndarray
    samples: slice


@dataclass(frozen=True)
class Plan:
    """What to compile and how to launch it; more than one launch only where a batch exceeds the argument space."""

    specialisation: Specialisation
    launches: tuple[Launch, ...]


def specialise(kernel: str, **defines: int) -> Specialisation:
    """``Specialisation`` from keyword definitions."""
    return Specialisation(kernel, tuple(sorted(defines.items())))


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple
