"""The contract in plain NumPy: slow, obviously right, and the oracle of every other implementation.

Mask (version 1). Philox4x32-10 with key = (seed low, seed high) and counter = (block, epoch, id low, id high):
block 0 decides whether an image is hidden, its patch size and its grid offset; cell c takes word ``c & 3`` of
block ``1 + (c >> 2)``.

Fused operator. Linear interpolation with half-pixel centres on integer positions: output o of an axis with
``n_in`` source and ``n_out`` output pixels is centred at P / D source pixels, P = (2 o + 1) n_in - n_out and
D = 2 n_out. Source pixel i has the whole-number weight max(0, R - |i D - P|), with R = D, or, antialiased and
shrinking, R = 2 n_in; weights beyond the border are added to the border pixel, and all are divided by their sum.
Rows are blended first, then columns, then ``fma(value, scale, shift)``; every step is one float32 operation
in a fixed order, so all implementations can agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from has_dali.kernels import contract
from has_dali.kernels.policy import HideAndSeek

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox4x32(counter: npt.ArrayLike, key: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """Philox4x32-10 (Salmon et al., SC 2011) of (..., 4) 32-bit counters: (..., 4) uint32 words."""
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, np.uint64) & _LOW, -1, 0)
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def words(seed: int, epoch: int, sample_id: int, blocks: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """The 32-bit words of one sample: (len(blocks), 4) uint32."""
    seed_bits, id_bits = contract.as_u64(int(seed)), contract.as_u64(int(sample_id))
    block = np.atleast_1d(np.asarray(blocks, np.uint64))
    counter = np.empty((len(block), 4), np.uint64)
    counter[:, 0] = block
    counter[:, 1] = int(epoch)
    counter[:, 2] = id_bits & 0xFFFFFFFF
    counter[:, 3] = id_bits >> 32
    return philox4x32(counter, (seed_bits & 0xFFFFFFFF, seed_bits >> 32))


def image_mask(
    policy: HideAndSeek, sample_id: int, epoch: int, height: int, width: int, hide_threshold: int
) -> npt.NDArray[np.bool_]:
    """Mask of one image: (height, width) bool, True = hidden."""
    visible = np.zeros((height, width), np.bool_)
    r0, r1, r2, r3 = (int(word) for word in words(policy.seed, epoch, sample_id, 0)[0])
    if not r0 < contract.threshold(policy.p_apply):
        return visible
    size = policy.patch_sizes[(r1 * len(policy.patch_sizes)) >> 32]
    if size == 0:
        return visible
    offset_y, offset_x = ((r2 * size) >> 32, (r3 * size) >> 32) if policy.random_offset else (0, 0)
    row = (np.arange(height) + offset_y) // size
    column = (np.arange(width) + offset_x) // size
    columns = int(column[-1]) + 1 if width else 0
    cell = row[:, None] * columns + column[None, :]
    cells = int(cell[-1, -1]) + 1 if cell.size else 0
    cell_words = words(policy.seed, epoch, sample_id, 1 + np.arange((cells + 3) // 4)).reshape(-1)
    return cell_words[cell].astype(np.uint64) < np.uint64(hide_threshold)


def mask(
    policy: HideAndSeek,
    sample_ids: npt.ArrayLike,
    epoch: npt.ArrayLike,
    height: int,
    width: int,
    p_hide: npt.ArrayLike | None = None,
) -> npt.NDArray[np.bool_]:
    """Masks of a batch: (N, height, width) bool, True = hidden. ``p_hide``: one per sample, instead of the policy's."""
    count = np.asarray(sample_ids).size
    ids = contract.sample_ids_u64(sample_ids, count)
    epochs = contract.epochs_u32(epoch, count)
    thresholds = contract.thresholds_u64(policy.p_hide if p_hide is None else p_hide, count)
    masks = np.zeros((count, height, width), np.bool_)
    for n in range(count):
        masks[n] = image_mask(policy, int(ids[n]), int(epochs[n]), height, width, int(thresholds[n]))
    return masks


def hide(
    batch: npt.NDArray,
    policy: HideAndSeek,
    sample_ids: npt.ArrayLike,
    epoch: npt.ArrayLike,
    fill: float | Sequence[float] = 0.0,
    layout: str = "NCHW",
    p_hide: npt.ArrayLike | None = None,
) -> npt.NDArray:
    """A copy of ``batch`` with hidden pixels set to ``fill`` (one number or one per channel)."""
    channel_axis = layout.index("C")
    height = batch.shape[layout.index("H")] if "H" in layout else 1
    width = batch.shape[layout.index("W" if "W" in layout else "T")]
    hidden = mask(policy, sample_ids, epoch, height, width, p_hide)
    if "H" not in layout:
        hidden = hidden[:, 0, :]
    fill_shape = [1] * batch.ndim
    fill_shape[channel_axis] = -1
    values = contract.fill_as(batch.dtype, fill, batch.shape[channel_axis]).reshape(fill_shape)
    return np.where(np.expand_dims(hidden, channel_axis), values, batch)


def fma(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Fused multiply-add of float32 arrays, rounded once.

    The product of two float32 is exact in float64. The sum is rounded to odd there, so that the final rounding
    to float32 sees every discarded bit.
    """
    product = np.asarray(a, np.float32).astype(np.float64) * np.asarray(b, np.float32).astype(np.float64)
    addend = np.asarray(c, np.float32).astype(np.float64)
    total = np.asarray(product + addend)
    virtual = total - product
    error = (product - (total - virtual)) + (addend - virtual)
    odd = (total.view(np.int64) & 1).astype(np.bool_)
    away = np.where(error > 0, np.inf, -np.inf)
    return np.where((error != 0) & ~odd, np.nextafter(total, away), total).astype(np.float32)


def resize_taps(n_in: int, n_out: int, antialias: bool) -> list[tuple[int, npt.NDArray[np.float32]]]:
    """For each output pixel of an axis: the first source pixel and the float32 weights of it and its followers."""
    denominator = 2 * n_out
    radius = max(2 * n_in, denominator) if antialias else denominator
    taps = []
    for o in range(n_out):
        position = (2 * o + 1) * n_in - n_out
        raw: dict[int, int] = {}
        first, last = (position - radius) // denominator + 1, -((-position - radius) // denominator) - 1
        for i in range(first, last + 1):
            inside = min(max(i, 0), n_in - 1)
            raw[inside] = raw.get(inside, 0) + radius - abs(i * denominator - position)
        total = np.float32(sum(raw.values()))
        weights = np.array([np.float32(weight) / total for weight in raw.values()], np.float32)
        taps.append((min(raw), weights))
    return taps


def resize(image: npt.NDArray[np.uint8], size: tuple[int, int], antialias: bool) -> npt.NDArray[np.float32]:
    """(H, W, C) uint8 to (size[0], size[1], C) float32, rows first, then columns, not rounded in between."""
    source = image.astype(np.float32)
    rows = np.empty((size[0], *source.shape[1:]), np.float32)
    for y, (first, weights) in enumerate(resize_taps(image.shape[0], size[0], antialias)):
        rows[y] = weights[0] * source[first]
        for k in range(1, len(weights)):
            rows[y] = fma(weights[k], source[first + k], rows[y])
    out = np.empty((*size, image.shape[2]), np.float32)
    for x, (first, weights) in enumerate(resize_taps(image.shape[1], size[1], antialias)):
        out[:, x] = weights[0] * rows[:, first]
        for k in range(1, len(weights)):
            out[:, x] = fma(weights[k], rows[:, first + k], out[:, x])
    return out


def resize_mirror_normalize_hide(
    images: Sequence[npt.NDArray[np.uint8]],
    policy: HideAndSeek | None,
    sample_ids: npt.ArrayLike,
    epoch: npt.ArrayLike,
    size: tuple[int, int] | None = (224, 224),
    mirror: npt.ArrayLike | None = None,
    mean: float | Sequence[float] = contract.IMAGENET_MEAN,
    std: float | Sequence[float] = contract.IMAGENET_STD,
    fill_value: float | Sequence[float] | None = None,
    dtype: npt.DTypeLike = np.float32,
    output_layout: str = "CHW",
    antialias: bool = True,
    p_hide: npt.ArrayLike | None = None,
) -> list[npt.NDArray]:
    """The fused operator on (H, W, C) uint8 images, one output per image; ``size=None``: no resampling."""
    count = len(images)
    flips = np.broadcast_to(np.zeros((), bool) if mirror is None else np.asarray(mirror, bool), (count,))
    ids = contract.sample_ids_u64(sample_ids, count)
    epochs = contract.epochs_u32(epoch, count)
    thresholds = None if policy is None else contract.thresholds_u64(policy.p_hide if p_hide is None else p_hide, count)
    outputs = []
    for n, image in enumerate(images):
        scale, shift, fill = contract.normalization(mean, std, fill_value, image.shape[2])
        pixels = image.astype(np.float32) if size is None else resize(image, size, antialias)
        if flips[n]:
            pixels = pixels[:, ::-1]
        values = fma(pixels, scale, shift)
        if policy is not None and thresholds is not None:
            hidden = image_mask(
                policy, int(ids[n]), int(epochs[n]), pixels.shape[0], pixels.shape[1], int(thresholds[n])
            )
            values[hidden] = fill
        values = values.astype(dtype)
        outputs.append(np.ascontiguousarray(values.transpose(2, 0, 1)) if output_layout == "CHW" else values)
    return outputs
