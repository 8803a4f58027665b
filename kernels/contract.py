"""Host-side scalars that every implementation shares: thresholds, seeds, fills, normalisation constants.

Each is computed here once, in double precision, so that all backends start from the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Counter blocks from here on belong to the sample plan (crop and mirror), never to masks.
PLAN_BLOCK = 2**31
IMAGE_LAYOUTS = ("NCHW", "NHWC")
LAYOUTS = (*IMAGE_LAYOUTS, "NCT")
# ImageNet channel statistics on the 0..255 scale.
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)


def threshold(probability: float) -> int:
    """``T(p) = round(p * 2**32)``: an event happens when its 32-bit word is below T (0 never, 2**32 always)."""
    return round(probability * 2**32)


def as_u64(value: int) -> int:
    """A 64-bit integer, signed or not, as its two's complement bits."""
    return value & (2**64 - 1)


def sample_ids_u64(sample_ids: npt.ArrayLike, count: int, name: str = "sample_ids") -> npt.NDArray[np.uint64]:
    """(count,) uint64 two's complement ids, or an error that names the argument."""
    ids = np.asarray(sample_ids)
    if ids.size == 0 and count == 0:
        return np.empty(0, np.uint64)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got dtype {ids.dtype}")
    if ids.shape != (count,):
        raise ValueError(f"{name}: expected shape ({count},), one id per sample, got {ids.shape}")
    return np.ascontiguousarray(ids).astype(np.int64 if ids.dtype.kind == "i" else np.uint64).view(np.uint64)


def epochs_u32(epoch: npt.ArrayLike, count: int) -> npt.NDArray[np.uint32]:
    """(count,) uint32 epochs from one epoch or one per sample, or an error that names the argument."""
    epochs = np.asarray(epoch)
    if epochs.dtype.kind not in "iu":
        raise TypeError(f"epoch: expected an integer >= 0, got {epoch!r}")
    if epochs.shape not in ((), (count,)):
        raise ValueError(f"epoch: expected one integer or shape ({count},), got shape {epochs.shape}")
    if epochs.size and not (int(epochs.min()) >= 0 and int(epochs.max()) < 2**32):
        raise ValueError(f"epoch={epoch!r}: expected an integer from 0 to 2**32 - 1")
    return np.ascontiguousarray(np.broadcast_to(epochs, (count,)).astype(np.uint32))


def thresholds_u64(p_hide: npt.ArrayLike, count: int) -> npt.NDArray[np.uint64]:
    """(count,) thresholds from one probability or one per sample, or an error that names the argument."""
    p = np.asarray(p_hide, np.float64)
    if p.shape not in ((), (count,)):
        raise ValueError(f"p_hide: expected one number or shape ({count},), got shape {p.shape}")
    if p.size and not (np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1):
        raise ValueError(f"p_hide={p_hide!r}: expected probabilities, numbers from 0 to 1")
    return np.ascontiguousarray(np.broadcast_to(np.rint(p * 2**32).astype(np.uint64), (count,)))


def per_channel(name: str, value: float | Sequence[float], channels: int) -> npt.NDArray[np.float64]:
    """(channels,) float64 from one number or one per channel, or an error that names the argument."""
    values = np.asarray(value, np.float64)
    if values.ndim == 0 or values.shape == (1,):
        values = np.broadcast_to(values, (channels,))
    if values.shape != (channels,):
        raise ValueError(f"{name}={value!r}: expected one number or {channels}, one per channel")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}={value!r}: expected finite numbers")
    return np.ascontiguousarray(values)


def normalization(
    mean: float | Sequence[float],
    std: float | Sequence[float],
    fill_value: float | Sequence[float] | None,
    channels: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """``(scale, shift, fill)``, (channels,) float32 each: visible = fma(pixel, scale, shift), hidden = fill.

    ``mean``, ``std`` and ``fill_value`` are in pixel units (0..255); a ``fill_value`` of None is the mean,
    which makes ``fill`` exactly 0.
    """
    mean_c, std_c = per_channel("mean", mean, channels), per_channel("std", std, channels)
    if not (std_c > 0).all():
        raise ValueError(f"std={std!r}: expected numbers above 0")
    fill_c = mean_c if fill_value is None else per_channel("fill_value", fill_value, channels)
    return (
        (1.0 / std_c).astype(np.float32),
        (-mean_c / std_c).astype(np.float32),
        ((fill_c - mean_c) / std_c).astype(np.float32),
    )


def fill_as(dtype: npt.DTypeLike, fill: float | Sequence[float], channels: int) -> npt.NDArray:
    """(channels,) fill in the batch's dtype: rounded and saturated for integers, plain conversion for floats."""
    values = per_channel("fill", fill, channels)
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return values.astype(dtype)
