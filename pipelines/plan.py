"""What part of each image is used: crop boxes and mirror flags, pure functions of (seed, epoch, sample id).

A plan looks at the image's size only (from the file header), so that just the box is decoded. Random words come
from Philox counter blocks that masks never use (see ``has_dali.kernels.contract``); each draw has its own block,
so none depends on how many words another one took.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from has_dali.kernels.compiling import kernel
from has_dali.kernels.contract import PLAN_BLOCK, as_u64, threshold
from has_dali.kernels.philox import philox4x32
from has_dali.kernels.policy import checked_probability, checked_seed

CROP_ATTEMPTS = 10
CROP_BLOCK = PLAN_BLOCK  # attempt k draws from block CROP_BLOCK + k
MIRROR_BLOCK = PLAN_BLOCK + 256
WINDOW_BLOCK = PLAN_BLOCK + 257  # where a window of fixed size lies

Shapes: TypeAlias = "npt.NDArray[np.integer]"
_Words: TypeAlias = "tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], np.uint64, np.uint64]"
Boxes: TypeAlias = "tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]"


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

    def __call__(self, shapes: Shapes, sample_ids: npt.ArrayLike, epochs: npt.ArrayLike) -> Boxes:
        """Boxes of a batch.

        Args:
            shapes: (N, >= 2) image sizes, height first.
            sample_ids: (N,) integers: ids, or keys of a sampler that draws an image several times in an epoch.
            epochs: (N,) integers from 0 to 2**32 - 1.

        Returns:
            start (N, 2) and shape (N, 2) of the box in source pixels, height first, and flip flags (N,), 0 or 1;
            all int32.
        """
        count = len(shapes)
        start, shape = np.empty((count, 2), np.int32), np.empty((count, 2), np.int32)
        flips = np.empty(count, np.int32)
        words = _words(self.seed, self.mirror, sample_ids, epochs)
        _plan_train(shapes, *words, *self.scale, *self.ratio, start, shape, flips)
        return start, shape, flips


@dataclass(frozen=True)
class PadPlan:
    """Zeros on all sides, a window of fixed size anywhere in the result, and a random horizontal flip.

    As torchvision's ``RandomCrop(size, padding)``: the border is black, 0 before normalisation. A box may start at a
    negative pixel and end behind the image: what lies outside is border.

    Args:
        seed: 64-bit integer, the key of all draws.
        size: side of the window in pixels.
        padding: width of the border in pixels.
        mirror: probability of a flip.

    Raises:
        ValueError: a value is out of range, or, when called, an image with its border is smaller than the window.
    """

    seed: int = 0
    size: int = 32
    padding: int = 4
    mirror: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_seed(self.seed))
        object.__setattr__(self, "mirror", checked_probability("mirror", self.mirror))
        if self.size < 1 or self.padding < 0:
            raise ValueError(f"size={self.size}, padding={self.padding}: expected at least 1 and 0 pixels")

    def __call__(self, shapes: Shapes, sample_ids: npt.ArrayLike, epochs: npt.ArrayLike) -> Boxes:
        """Boxes of a batch, see ``TrainPlan``."""
        sides = _sides(shapes)
        places = sides + 2 * self.padding - self.size + 1
        if places.size and places.min() < 1:
            height, width = sides[places.min(axis=1).argmin()]
            raise ValueError(
                f"padding={self.padding}: an image of {height} x {width} with this border on each side is smaller than"
                f" size={self.size}; raise padding, or choose another crop"
            )
        start, flips = _placed(places, _words(self.seed, self.mirror, sample_ids, epochs))
        return start - np.int32(self.padding), np.full_like(start, self.size), flips


@dataclass(frozen=True)
class ShortSidePlan:
    """Resize the short side to ``resize``, cut ``size`` x ``size`` anywhere, flip at random: as one box of the source.

    The box is a square of whole source pixels with side ``round(short * size / resize)`` (half to even, at least 1),
    anywhere in the image. Resampling it to ``size`` x ``size`` is the two-step rule up to that rounding: the scale is
    off by at most half a source pixel in ``side``, and crops start at whole source pixels.

    Args:
        seed: 64-bit integer, the key of all draws.
        size: output side in pixels.
        resize: short side after the resize that the box stands for, at least ``size``.
        mirror: probability of a flip.

    Raises:
        ValueError: a value is out of range.
    """

    seed: int = 0
    size: int = 224
    resize: int = 256
    mirror: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_seed(self.seed))
        object.__setattr__(self, "mirror", checked_probability("mirror", self.mirror))
        _check_resize(self.size, self.resize, "crop")

    def __call__(self, shapes: Shapes, sample_ids: npt.ArrayLike, epochs: npt.ArrayLike) -> Boxes:
        """Boxes of a batch, see ``TrainPlan``."""
        sides = _sides(shapes)
        side = np.maximum(np.rint(sides.min(axis=1, keepdims=True) * self.size / self.resize).astype(np.int64), 1)
        start, flips = _placed(sides - side + 1, _words(self.seed, self.mirror, sample_ids, epochs))
        return start, np.repeat(side, 2, axis=1).astype(np.int32), flips


@dataclass(frozen=True)
class WarpPlan:
    """The whole image, whatever its aspect ratio, never flipped: to be resampled to the output's size."""

    def __call__(self, shapes: Shapes, sample_ids: npt.ArrayLike, epochs: npt.ArrayLike) -> Boxes:
        """Boxes of a batch, see ``TrainPlan``; keys and epochs make no difference."""
        sides = _sides(shapes).astype(np.int32)
        return np.zeros_like(sides), sides, np.zeros(len(sides), np.int32)


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
        _check_resize(self.size, self.resize, "centre crop")

    def __call__(
        self, shapes: Shapes
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Boxes of a batch with image sizes ``shapes`` (N, >= 2), height first.

        Returns:
            start and shape (N, 2) int32 of what to decode, in source pixels; first and last edge (N, 2) float32
            of the region to resample, relative to ``start``.
        """
        sides = _sides(shapes)
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
    shapes, ids, epochs, seed, flip_below, scale_low, scale_high, ratio_low, ratio_high, start, shape, mirror
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


@kernel
def _place_windows(places, ids, epochs, seed, flip_below, start, mirror):  # type: ignore[no-untyped-def]
    """Starts (N, 2) from 0 to ``places`` (N, 2) - 1, and flip flags (N,)."""
    for n in range(len(ids)):
        flip, _, _, _ = philox4x32(np.uint64(MIRROR_BLOCK), epochs[n], ids[n], seed)
        mirror[n] = flip < flip_below
        w0, w1, _, _ = philox4x32(np.uint64(WINDOW_BLOCK), epochs[n], ids[n], seed)
        start[n, 0] = (w0 * np.uint64(places[n, 0])) >> np.uint64(32)
        start[n, 1] = (w1 * np.uint64(places[n, 1])) >> np.uint64(32)


def _placed(places: npt.NDArray[np.int64], words: _Words) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    start, flips = np.empty((len(places), 2), np.int32), np.empty(len(places), np.int32)
    _place_windows(places, *words, start, flips)
    return start, flips


def _words(seed: int, mirror: float, ids: npt.ArrayLike, epochs: npt.ArrayLike) -> _Words:
    """What kernels draw with: ids, epochs, seed and the threshold of a flip, as 64-bit words."""
    keys = np.asarray(ids).astype(np.uint64), np.asarray(epochs).astype(np.uint64)
    return *keys, np.uint64(as_u64(seed)), np.uint64(threshold(mirror))


def _sides(shapes: Shapes) -> npt.NDArray[np.int64]:
    """(N, 2) height and width."""
    return np.asarray(shapes)[:, :2].astype(np.int64)


def _check_resize(size: int, resize: int, crop: str) -> None:
    if not 1 <= size <= resize:
        raise ValueError(f"resize={resize}: expected at least size={size}, the side of the {crop}")


def _interval(name: str, value: Sequence[float], high: float) -> tuple[float, float]:
    try:
        low_end, high_end = (float(number) for number in value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}={value!r}: expected two numbers, smallest and largest") from None
    if not (0 < low_end <= high_end <= high and math.isfinite(high_end)):
        bound = f" and at most {high:g}" if math.isfinite(high) else ""
        raise ValueError(f"{name}={value!r}: expected two numbers, smallest and largest, above 0{bound}")
    return low_end, high_end
