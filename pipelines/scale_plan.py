"""A crop of fixed size from an image scaled at random, as training of segmentation networks uses it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from has_dali.kernels.compiling import kernel
from has_dali.kernels.contract import as_u64, threshold
from has_dali.kernels.philox import philox4x32
from has_dali.kernels.policy import checked_probability, checked_seed
from has_dali.pipelines.plan import MIRROR_BLOCK, WINDOW_BLOCK, Boxes, Shapes

SCALE_BLOCK = WINDOW_BLOCK + 1


@dataclass(frozen=True)
class ScalePlan:
    """Scale the image by a random factor, cut ``size`` x ``size`` anywhere, flip at random: as one box of the source.

    The factor s is uniform in ``scales``; the box is a square of ``round(size / s)`` (half to even, at least 1) source
    pixels, to be resampled to ``size`` x ``size``. Where the box is larger than the image along an axis:
    with ``pad`` the image lies anywhere within the box along that axis, and the rest is border; without, the box
    shrinks to the image's short side (the scale rises to where the crop fits).

    Args:
        seed: 64-bit integer, the key of all draws.
        size: output side in pixels.
        scales: smallest and largest factor, above 0.
        mirror: probability of a flip.
        pad: let boxes reach beyond the image.

    Raises:
        ValueError: a value is out of range.
    """

    seed: int = 0
    size: int = 224
    scales: tuple[float, float] = (0.5, 2.0)
    mirror: float = 0.5
    pad: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_seed(self.seed))
        object.__setattr__(self, "mirror", checked_probability("mirror", self.mirror))
        if self.size < 1:
            raise ValueError(f"size={self.size}: expected at least 1 pixel")
        try:
            low, high = (float(value) for value in self.scales)
        except (TypeError, ValueError):
            raise TypeError(f"scales={self.scales!r}: expected two numbers, smallest and largest factor") from None
        if not 0 < low <= high < np.inf:
            raise ValueError(f"scales={self.scales!r}: expected two numbers, smallest and largest factor, above 0")
        object.__setattr__(self, "scales", (low, high))

    def __call__(self, shapes: Shapes, sample_ids: npt.ArrayLike, epochs: npt.ArrayLike) -> Boxes:
        """Boxes of a batch, see ``TrainPlan``; with ``pad`` a box may start before the image and end behind it."""
        sides = np.asarray(shapes)[:, :2].astype(np.int64)
        start, shape = np.empty((len(sides), 2), np.int32), np.empty((len(sides), 2), np.int32)
        flips = np.empty(len(sides), np.int32)
        keys = np.asarray(sample_ids).astype(np.uint64), np.asarray(epochs).astype(np.uint64)
        seed, flip_below = np.uint64(as_u64(self.seed)), np.uint64(threshold(self.mirror))
        _plan_scaled(sides, *keys, seed, flip_below, self.size, *self.scales, self.pad, start, shape, flips)
        return start, shape, flips


@kernel
def _plan_scaled(  # type: ignore[no-untyped-def]
    sides, ids, epochs, seed, flip_below, size, low, high, pad, start, shape, mirror
):
    for n in range(len(ids)):
        flip, _, _, _ = philox4x32(np.uint64(MIRROR_BLOCK), epochs[n], ids[n], seed)
        mirror[n] = flip < flip_below
        drawn, _, _, _ = philox4x32(np.uint64(SCALE_BLOCK), epochs[n], ids[n], seed)
        w0, w1, _, _ = philox4x32(np.uint64(WINDOW_BLOCK), epochs[n], ids[n], seed)
        side = max(np.int64(np.rint(size / (low + (high - low) * (drawn * 2.0**-32)))), np.int64(1))
        if not pad:
            side = min(side, sides[n, 0], sides[n, 1])
        for axis in range(2):
            word = w0 if axis == 0 else w1
            room = sides[n, axis] - side  # negative: the image lies within the box
            place = np.int64((word * np.uint64(abs(room) + 1)) >> np.uint64(32))
            start[n, axis], shape[n, axis] = place + min(room, np.int64(0)), side
