"""Hide-and-Seek on the CPU for whole batches: arguments checked and packed, work shared among threads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from has_dali.kernels import contract
from has_dali.kernels.cpu_fused import OWN_THRESHOLD, fused_image
from has_dali.kernels.cpu_hide import hide_images
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import run_chunks

MAX_CHANNELS = 4
ALIGNMENT = 64  # bytes of a cache line: the fused operator stores past the caches where lines of the output are whole


def aligned_empty(shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray:
    """As ``np.empty``, beginning at a whole cache line; large arrays of NumPy begin 16 bytes after one."""
    kind = np.dtype(dtype)
    nbytes = math.prod(shape) * kind.itemsize
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    first = -raw.ctypes.data % ALIGNMENT
    return raw[first : first + nbytes].view(kind).reshape(shape)


def policy_words(policy: HideAndSeek) -> tuple[npt.NDArray[np.int64], np.uint64, np.uint64, bool]:
    """``(patch sizes, seed, apply threshold, random offset)`` as the kernels take them."""
    sizes = np.array(policy.patch_sizes, np.int64)
    seed = np.uint64(contract.as_u64(policy.seed))
    return sizes, seed, np.uint64(contract.threshold(policy.p_apply)), policy.random_offset


def pack_settings(
    policy: HideAndSeek | None,
    size: tuple[int, int] | None,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    fill_value: float | Sequence[float] | None,
    half: bool,
    planar: bool,
    antialias: bool,
    channels: int,
    own_p: bool = False,
) -> npt.NDArray[np.int64]:
    """Settings of the fused operator for ``channels`` channels: int64 words, constants as float32 bits inside.

    ``own_p``: in DALI pipelines each sample's key holds its own hide threshold.
    """
    constants = np.zeros((3, MAX_CHANNELS), np.float32)
    constants[:, :channels] = contract.normalization(mean, std, fill_value, channels)
    sizes: tuple[int, ...] = () if policy is None else policy.patch_sizes
    seed, apply, offset = (0, 0, False) if policy is None else (policy.seed, policy.p_apply, policy.random_offset)
    height, width = size or (0, 0)
    hide = 0 if policy is None else OWN_THRESHOLD if own_p else contract.threshold(policy.p_hide)
    words = np.array(
        [contract.as_u64(seed), contract.threshold(apply), offset, height, width, antialias, planar, half, hide],
        np.uint64,
    )
    packed = np.concatenate([words.view(np.int64), constants.reshape(-1).view(np.int64), np.array(sizes, np.int64)])
    return packed


def hide(
    batch: npt.NDArray,
    policy: HideAndSeek,
    sample_ids: npt.ArrayLike,
    epoch: npt.ArrayLike,
    fill: float | Sequence[float] = 0.0,
    layout: str = "NCHW",
    out: npt.NDArray | None = None,
    p_hide: npt.ArrayLike | None = None,
    threads: int | None = None,
    fill_values: npt.NDArray | None = None,
) -> npt.NDArray:
    """Hide cells of a batch; ``out`` None: a new array, ``out is batch``: in place.

    Args:
        batch: (N, C, H, W), (N, H, W, C) or (N, C, T), any dtype of 1, 2, 4 or 8 bytes, any strides.
        fill: one number or one per channel.
        fill_values: instead of ``fill``, (channels,) of the batch's dtype, taken as they are (for dtypes that NumPy
            lacks and the batch only carries the bits of).
        threads: at most this many; None for the process's share of the cores.
    """
    count, channels = batch.shape[0], batch.shape[layout.index("C")]
    ids = contract.sample_ids_u64(sample_ids, count)
    epochs = contract.epochs_u32(epoch, count)
    thresholds = contract.thresholds_u64(policy.p_hide if p_hide is None else p_hide, count)
    values = contract.fill_as(batch.dtype, fill, channels) if fill_values is None else fill_values
    if values.dtype != batch.dtype or values.shape != (channels,):
        raise ValueError(f"fill_values: expected ({channels},) {batch.dtype}, got {values.shape} {values.dtype}")
    result = np.empty_like(batch) if out is None else out
    if batch.size == 0:
        return result
    target, source = _matching_planes(result, batch, layout)
    if target is None or source is None:
        return _hide_strided(batch, result, policy, ids, epochs, values, layout, thresholds, threads)
    planar = source.shape[4] == 1
    rows = np.repeat(values[:, None], source.shape[3], 1) if planar else np.tile(values, (1, source.shape[3]))
    sizes, seed, apply, offset = policy_words(policy)
    shape = np.array([*source.shape[1:4], source.itemsize * source.shape[4]], np.int64)
    fill_rows = np.ascontiguousarray(rows).view(np.uint8).reshape(source.shape[1], -1)
    target_strides, source_strides = (np.array(planes.strides[:3], np.int64) for planes in (target, source))

    def work(begin: int, end: int) -> None:
        hide_images(
            target.ctypes.data, target_strides, source.ctypes.data, source_strides, shape, fill_rows,
            sizes, seed, apply, offset, ids, epochs, thresholds, begin, end,
        )  # fmt: skip

    run_chunks(work, count, batch.nbytes, threads)
    return result


def _matching_planes(
    result: npt.NDArray, batch: npt.NDArray, layout: str
) -> tuple[npt.NDArray, npt.NDArray] | tuple[None, None]:
    """Both arrays as (N, planes, H, W, channels per pixel) with contiguous pixels, in the same form; or None."""
    for interleaved in (False, True):
        target, source = (as_planes(array, layout, interleaved) for array in (result, batch))
        if target is not None and source is not None:
            return target, source
    return None, None


def as_planes(batch: npt.NDArray, layout: str, interleaved: bool) -> npt.NDArray | None:
    """A (N, planes, H, W, channels per pixel) view whose rows are contiguous, or None.

    Interleaved: one plane whose pixels hold all channels; else one plane per channel.
    """
    if layout == "NCT":
        batch = batch[:, :, None, :]
    nhwc = batch if layout == "NHWC" else batch.transpose(0, 2, 3, 1)
    width, channels = nhwc.shape[2:]
    item = nhwc.itemsize
    x_stride, c_stride = nhwc.strides[2:]
    if not interleaved:
        return nhwc.transpose(0, 3, 1, 2)[..., None] if x_stride == item or width == 1 else None
    if (c_stride == item or channels == 1) and (x_stride == item * channels or width == 1):
        return nhwc[:, None]
    return None


def _hide_strided(
    batch: npt.NDArray,
    result: npt.NDArray,
    policy: HideAndSeek,
    ids: npt.NDArray,
    epochs: npt.NDArray,
    values: npt.NDArray,
    layout: str,
    thresholds: npt.NDArray,
    threads: int | None,
) -> npt.NDArray:
    """Arrays whose rows are not contiguous, or whose memory formats differ: through a contiguous copy."""
    p_hide = thresholds.astype(np.float64) / 2**32  # exact: thresholds have at most 33 bits
    compact = np.array(batch, order="C")
    result[...] = hide(compact, policy, ids, epochs, 0.0, layout, compact, p_hide, threads, values)
    return result


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
    threads: int | None = None,
    out: npt.NDArray | Sequence[npt.NDArray] | None = None,
) -> list[npt.NDArray]:
    """The fused operator on (H, W, C) uint8 images: (C, h, w) or (h, w, C) float32 or float16 each.

    Args:
        out: where to write: one (N, ...) array, or one array per image, C-contiguous and apart from the images; None
            allocates. Fastest where each begins at a whole cache line, as those of ``aligned_empty`` do.

    Returns:
        One array per image; the arrays or the rows of ``out`` where it was given.

    Raises:
        ValueError: an image or an array of ``out`` does not fit.
    """
    count = len(images)
    planar, half = output_layout == "CHW", np.dtype(dtype) == np.float16
    flips = np.broadcast_to(np.zeros((), bool) if mirror is None else np.asarray(mirror, bool), (count,))
    ids = contract.sample_ids_u64(sample_ids, count)
    epochs = contract.epochs_u32(epoch, count)
    p = 0.0 if policy is None else policy.p_hide if p_hide is None else p_hide
    thresholds = contract.thresholds_u64(p, count)
    sources = [np.ascontiguousarray(image) for image in images]
    for n, image in enumerate(sources):
        if image.ndim != 3 or min(image.shape) < 1 or image.shape[2] > MAX_CHANNELS or image.dtype != np.uint8:
            raise ValueError(
                f"images[{n}]: expected uint8 (height, width, 1 to {MAX_CHANNELS} channels) of at least one pixel,"
                f" got {image.dtype} {image.shape}"
            )
    settings = {
        channels: pack_settings(policy, size, mean, std, fill_value, half, planar, antialias, channels)
        for channels in {image.shape[2] for image in sources}
    }
    shapes = []
    for image in sources:
        h, w = size or image.shape[:2]
        shapes.append((image.shape[2], h, w) if planar else (h, w, image.shape[2]))
    outputs = [aligned_empty(shape, dtype) for shape in shapes] if out is None else _fitting(out, shapes, dtype)

    def work(begin: int, end: int) -> None:
        for n in range(begin, end):
            words = settings[sources[n].shape[2]]
            out = outputs[n].ctypes.data
            fused_image(sources[n], out, ids[n], np.uint64(epochs[n]), thresholds[n], bool(flips[n]), words)

    run_chunks(work, count, sum(out.nbytes for out in outputs), threads)
    return outputs


def _fitting(
    out: npt.NDArray | Sequence[npt.NDArray], shapes: Sequence[tuple[int, ...]], dtype: npt.DTypeLike
) -> list[npt.NDArray]:
    """The arrays of ``out``, which must be what would have been allocated."""
    arrays, kind = list(out), np.dtype(dtype)
    if len(arrays) != len(shapes):
        raise ValueError(f"out: expected {len(shapes)} arrays, one per image, got {len(arrays)}")
    for n, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != kind:
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"out[{n}]: expected {kind} {shape}, got {got}")
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise ValueError(f"out[{n}]: expected a C-contiguous array that can be written to")
    return arrays
