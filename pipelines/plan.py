"""What part of each image is used: crop boxes and mirror flags, pure functions of (seed, epoch, sample id).

A plan looks at the image's size only (from the file header), so that just the box is decoded. Random words come
from Philox counter blocks that masks never use (see ``has_dali.kernels.contract``); each draw has its own block,
so none depends on how many words another one took.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from has_dali.kernels.compiling import kernel
from has_dali.kernels.contract import PLAN_BLOCK, as_u64, threshold
from has_dali.kernels.philox import philox4x32
from has_dali.kernels.policy import checked_probability, checked_seed

CROP_ATTEMPTS = 10
CROP_BLOCK = PLAN_BLOCK  # attempt k draws from block CROP_BLOCK + k
MIRROR_BLOCK = PLAN_BLOCK + 256


@dataclass(frozen=True)
class TrainPlan:
    """Random resized crop by torchvision's rule, and a random horizontal flip.

    Ten attempts draw an area (uniform in ``scale``, as a share of the image) and an aspect ratio (log-uniform in
    ``ratio``, width / height); the first box that fits is placed uniformly. Where none fits: the largest centred
    box whose ratio lies within ``ratio``.

    Args:
        seed: 64-bit integer, the key of all draws.
        scale: smallest and largest share of the image's area, in (0, 1].
        ratio: smallest and largest aspect ratio, above 0.
        mirror: probability of a flip.

    Raises:
        ValueError: a value is out of range.
    """

    seed: int = 0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    mirror: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_seed(self.seed))
        object.__setattr__(self, "scale", _interval("scale", self.scale, 1.0))
        object.__setattr__(self, "ratio", _interval("ratio", self.ratio, math.inf))
        object.__setattr__(self, "mirror", checked_probability("mirror", self.mirror))

    def __call__(
        self, shapes: npt.NDArray[np.integer], sample_ids: npt.ArrayLike, epochs: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Boxes of a batch.

        Args:
            shapes: (N, >= 2) image sizes, height first.
            sample_ids: (N,) integers.
            epochs: (N,) integers from 0 to 2**32 - 1.

        Returns:
            start (N, 2) and shape (N, 2) of the box in source pixels, height first, and flip flags (N,), 0 or 1;
            all int32.
        """
        count = len(shapes)
        start, shape = np.empty((count, 2), np.int32), np.empty((count, 2), np.int32)
        flips = np.empty(count, np.int32)
        keys = np.asarray(sample_ids).astype(np.uint64), np.asarray(epochs).astype(np.uint64)
        seed, flip_below = np.uint64(as_u64(self.seed)), np.uint64(threshold(self.mirror))
        _plan_train(shapes, *keys, seed, *self.scale, *self.ratio, flip_below, start, shape, flips)
        return start, shape, flips


@dataclass(frozen=True)
class EvalPlan:
    """Resize the short side to ``resize``, cut the centre ``size`` x ``size``: as one box of source pixels.

    As torchvision's ``Resize(resize)`` + ``CenterCrop(size)``: the long side becomes ``int(resize * long /
    short)`` and the crop starts at ``round((side - size) / 2)`` resized pixels (half to even). Carried back to
    the source, the box has fractional edges, given in pixel-edge coordinates (pixel i covers [i, i + 1]).
    Resampling exactly this box in one pass puts every output pixel's centre where the two-step rule puts it.
    Rounding the box to whole pixels instead would shift the samples by up to half a source pixel.
    What is decoded is the box and a rim as wide as the resampling filter's reach.

    Args:
        size: output side in pixels.
        resize: short side after the resize that the box stands for, at least ``size``.

    Raises:
        ValueError: a value is out of range.
    """

    size: int = 224
    resize: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize:
            raise ValueError(f"resize={self.resize}: expected at least size={self.size}, the side of the centre crop")

    def __call__(
        self, shapes: npt.NDArray[np.integer]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Boxes of a batch with image sizes ``shapes`` (N, >= 2), height first.

        Returns:
            start and shape (N, 2) int32 of what to decode, in source pixels; first and last edge (N, 2) float32
            of the region to resample, relative to ``start``.
        """
        sides = np.asarray(shapes)[:, :2].astype(np.int64)
        short = sides.min(axis=1, keepdims=True)
        resized = np.where(sides == short, self.resize, self.resize * sides // short)
        pixel = sides / resized  # source pixels per resized pixel
        first = np.rint((resized - self.size) / 2) * pixel
        last = first + self.size * pixel
        rim = np.ceil(np.maximum(pixel, 1.0)) + 1
        start = np.maximum(np.floor(first - rim), 0).astype(np.int32)
        stop = np.minimum(np.ceil(last + rim), sides).astype(np.int32)
        return start, stop - start, (first - start).astype(np.float32), (last - start).astype(np.float32)


@kernel
def _plan_train(  # type: ignore[no-untyped-def]
    shapes, ids, epochs, seed, scale_low, scale_high, ratio_low, ratio_high, flip_below, start, shape, mirror
):
    log_low, log_high = math.log(ratio_low), math.log(ratio_high)
    unit = 2.0**-32
    for n in range(len(ids)):
        height, width = np.int64(shapes[n, 0]), np.int64(shapes[n, 1])
        flip, _, _, _ = philox4x32(np.uint64(MIRROR_BLOCK), epochs[n], ids[n], seed)
        mirror[n] = flip < flip_below
        found = False
        for attempt in range(CROP_ATTEMPTS):
            w0, w1, w2, w3 = philox4x32(np.uint64(CROP_BLOCK + attempt), epochs[n], ids[n], seed)
            area = height * width * (scale_low + (scale_high - scale_low) * (w0 * unit))
            aspect = math.exp(log_low + (log_high - log_low) * (w1 * unit))
            box_w, box_h = np.int64(np.rint(math.sqrt(area * aspect))), np.int64(np.rint(math.sqrt(area / aspect)))
            if 0 < box_w <= width and 0 < box_h <= height:
                start[n, 0] = (w2 * np.uint64(height - box_h + 1)) >> np.uint64(32)
                start[n, 1] = (w3 * np.uint64(width - box_w + 1)) >> np.uint64(32)
                shape[n, 0], shape[n, 1] = box_h, box_w
                found = True
                break
        if not found:
            box_h, box_w = _central_box(height, width, ratio_low, ratio_high)
            shape[n, 0], shape[n, 1] = box_h, box_w
            start[n, 0], start[n, 1] = (height - box_h) // 2, (width - box_w) // 2


@kernel
def _central_box(height, width, ratio_low, ratio_high):  # type: ignore[no-untyped-def]
    """Largest (height, width) of a box inside the image whose aspect ratio is within the bounds, at least 1 x 1."""
    box_h, box_w = height, width
    if width / height < ratio_low:
        box_h = max(np.int64(np.rint(width / ratio_low)), 1)
    elif width / height > ratio_high:
        box_w = max(np.int64(np.rint(height * ratio_high)), 1)
    return min(box_h, height), min(box_w, width)


def _interval(name: str, value: Sequence[float], high: float) -> tuple[float, float]:
    try:
        low_end, high_end = (float(number) for number in value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}={value!r}: expected two numbers, smallest and largest") from None
    if not (0 < low_end <= high_end <= high and math.isfinite(high_end)):
        bound = f" and at most {high:g}" if math.isfinite(high) else ""
        raise ValueError(f"{name}={value!r}: expected two numbers, smallest and largest, above 0{bound}")
    return low_end, high_end
