"""Arrays on a CUDA device, as the launch plan sees them: addresses, shapes and per-sample keys, checked.

Any object with ``__cuda_array_interface__`` is accepted; nothing here imports CuPy or Numba, touches the device's
memory or waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.kernels import contract
from has_dali.kernels.launch import DeviceArray, PerSample, SampleKeys
from has_dali.kernels.policy import HideAndSeek

# The orders in memory that a layout may have; the first is its own.
_MEMORY_ORDERS = {"NCHW": ("NCHW", "NHWC"), "NHWC": ("NHWC", "NCHW"), "NCT": ("NCT",)}
DTYPES = {"uint8": 1, "float16": 2, "bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class Buffer:
    """A dense array on the device. ``strides`` are in bytes; ``shape`` is what its owner says."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes from the first to the last element."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        return _dense(self.shape, self.strides, self.dtype.itemsize)


def is_device_array(value: Any) -> bool:
    """Whether ``value`` offers ``__cuda_array_interface__``."""
    return hasattr(value, "__cuda_array_interface__")


def buffer_of(name: str, value: Any) -> Buffer:
    """``value`` as a ``Buffer``, or an error that names the argument."""
    try:
        interface = value.__cuda_array_interface__
    except AttributeError:
        raise TypeError(
            f"{name}: expected an array on a CUDA device (CuPy, torch, Numba, DALI), got {type(value).__name__};"
            " copy it to the device first"
        ) from None
    dtype = np.dtype(interface["typestr"])
    shape = tuple(int(n) for n in interface["shape"])
    strides = interface.get("strides") or _row_major(shape, dtype.itemsize)
    return Buffer(int(interface["data"][0] or 0), shape, dtype, tuple(int(s) for s in strides))


def _row_major(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    strides, step = [], itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def _dense(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> bool:
    expected = _row_major(shape, itemsize)
    return 0 in shape or all(n == 1 or a == b for n, a, b in zip(shape, strides, expected, strict=True))


def image_batch(name: str, buffer: Buffer, layout: str) -> tuple[tuple[int, int, int, int], bool]:
    """``((samples, channels, height, width), interleaved)`` of a dense batch, in the order it has in memory.

    An NCHW array with channels-last strides counts as interleaved, and the other way round.

    Raises:
        ValueError: wrong rank or layout, or the batch is not dense.
    """
    if layout not in contract.LAYOUTS:
        raise ValueError(f"layout={layout!r}: expected one of {', '.join(contract.LAYOUTS)}")
    if len(buffer.shape) != len(layout):
        raise ValueError(f"{name}: expected {len(layout)} axes for layout {layout}, got shape {buffer.shape}")
    size = dict(zip(layout, buffer.shape, strict=True))
    shape = (size["N"], size["C"], size.get("H", 1), size["W"] if "W" in size else size["T"])
    for order in _MEMORY_ORDERS[layout]:
        axes = [layout.index(axis) for axis in order]
        if _dense([buffer.shape[a] for a in axes], [buffer.strides[a] for a in axes], buffer.dtype.itemsize):
            return shape, order == "NHWC"
    raise ValueError(
        f"{name}: expected a dense batch, got shape {buffer.shape} with strides {buffer.strides} (bytes); copy it first"
    )


def element_name(name: str, buffer: Buffer, dtype: str | None) -> str:
    """The element type: of the array, or ``dtype`` where the array carries bfloat16 as 16-bit integers."""
    found = dtype or {"bfloat16": "bfloat16"}.get(buffer.dtype.name, buffer.dtype.name)
    if found not in DTYPES or DTYPES[found] != buffer.dtype.itemsize:
        raise TypeError(f"{name}: dtype {buffer.dtype} is not supported; expected one of {', '.join(DTYPES)}")
    return found


def fill_bits(dtype: str, fill: float | Sequence[float], channels: int) -> npt.NDArray[np.unsignedinteger]:
    """(channels,) bit patterns of the fill in the element type."""
    if dtype != "bfloat16":
        return contract.fill_as(dtype, fill, channels).view(f"u{DTYPES[dtype]}")
    return bfloat16_bits(contract.fill_as("float32", fill, channels))


def bfloat16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Float32 rounded to bfloat16, to nearest even, as 16-bit integers."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded)


def _per_sample(name: str, value: Any, count: int, on_host: Callable[[Any], PerSample]) -> PerSample:
    """A device array of 64-bit integers by address; anything else through ``on_host``."""
    if not is_device_array(value):
        return on_host(value)
    buffer = buffer_of(name, value)
    if buffer.dtype.kind not in "iu" or buffer.dtype.itemsize != 8:
        raise TypeError(f"{name}: on the device expected int64 or uint64, got {buffer.dtype}")
    if math.prod(buffer.shape) != count:
        raise ValueError(f"{name}: expected {count} values, one per sample, got shape {buffer.shape}")
    if buffer.contiguous:
        return DeviceArray(buffer.pointer)
    step, rest = divmod(buffer.strides[0], buffer.dtype.itemsize)
    if len(buffer.shape) != 1 or rest or step < 1:
        raise ValueError(
            f"{name}: expected evenly spaced values, got strides {buffer.strides} (bytes); copy them first"
        )
    return DeviceArray(buffer.pointer, step)


def sample_keys(
    policy: HideAndSeek | None,
    count: int,
    sample_ids: Any,
    epoch: Any,
    p_hide: Any = None,
    thresholds: Any = None,
    mirror: Any = None,
) -> SampleKeys:
    """The keys of a batch from what users give; each may also be a device array of ``count`` 64-bit integers.

    Args:
        policy: gives the probability unless ``p_hide`` or ``thresholds`` does.
        count: samples in the batch.
        sample_ids: (count,) integers; ignored without a policy.
        epoch: one integer or (count,).
        p_hide: one probability or (count,), on the host.
        thresholds: ``contract.thresholds_u64`` of ``p_hide``; this is the form that may be on the device.
        mirror: (count,) booleans or 0/1; None mirrors nothing.
    """
    flips: PerSample = 0
    if mirror is not None:
        flips = _per_sample("mirror", mirror, count, lambda value: _host_mirror(value, count))
    if policy is None:
        return SampleKeys(0, mirrors=flips)
    if p_hide is not None and thresholds is not None:
        raise ValueError("p_hide and thresholds: give one of them")
    limits: PerSample = contract.threshold(policy.p_hide)
    if p_hide is not None:
        limits = contract.thresholds_u64(p_hide, count)
    if thresholds is not None:
        limits = _per_sample("thresholds", thresholds, count, lambda v: contract.sample_ids_u64(v, count, "thresholds"))
    return SampleKeys(
        _per_sample("sample_ids", sample_ids, count, lambda value: contract.sample_ids_u64(value, count)),
        _per_sample("epoch", epoch, count, lambda value: _host_epoch(value, count)),
        limits,
        flips,
    )


def _host_epoch(value: Any, count: int) -> PerSample:
    epochs = contract.epochs_u32(value, count)
    return epochs if np.ndim(value) else (int(np.asarray(value)))


def _host_mirror(value: Any, count: int) -> PerSample:
    flips = np.asarray(value)
    if flips.shape not in ((), (count,)):
        raise ValueError(f"mirror: expected one flag or shape ({count},), one per sample, got {flips.shape}")
    return np.ascontiguousarray(np.broadcast_to(flips != 0, (count,)).astype(np.uint32))
