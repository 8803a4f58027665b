"""Object boxes of many images, a different number for each, in three arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int]


class BoxError(ValueError):
    """A box that cannot be.

    Args:
        message: what is wrong.
        image: the image it belongs to.
    """

    def __init__(self, message: str, image: int) -> None:
        super().__init__(message)
        self.image = image


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of each image's own class, in pixels of the image as stored.

    A box is (x0, y0, x1, y1) with both ends inside: a full frame of width W and height H is (0, 0, W - 1, H - 1),
    and a box one pixel wide has x0 == x1. Every image has at least one box.

    Args:
        offsets: (N + 1,) int64; image i has the boxes ``offsets[i]`` to ``offsets[i + 1] - 1``.
        values: (M, 4) int64.
        sizes: (N, 2) int64, height and width of each image.

    Raises:
        ValueError: shapes do not fit together, an image has no box, or a box is turned over or leaves its image.
    """

    offsets: npt.NDArray[np.int64]
    values: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("offsets", "values", "sizes"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.int64))
        count = len(self.offsets) - 1
        if self.values.ndim != 2 or self.values.shape[1] != 4 or self.sizes.shape != (count, 2):
            raise ValueError(
                f"boxes: expected values (M, 4) and sizes ({count}, 2), got {self.values.shape} and {self.sizes.shape}"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise ValueError(f"boxes: expected offsets from 0 to {len(self.values)}, the number of boxes")
        if count and (empty := np.flatnonzero(np.diff(self.offsets) < 1)).size:
            raise ValueError(f"boxes: {empty.size} images have none, the first is image {empty[0]}")
        size = np.repeat(self.sizes, np.diff(self.offsets), axis=0)
        low, high = self.values[:, :2], self.values[:, 2:]
        bad = np.flatnonzero(((low < 0) | (high < low) | (high >= size[:, ::-1])).any(axis=1))
        if bad.size:
            image = int(np.searchsorted(self.offsets, bad[0], "right")) - 1
            height, width = self.sizes[image]
            raise BoxError(
                f"boxes: {bad.size} are not inside their image, the first is {self.values[bad[0]].tolist()} of image"
                f" {image}, {width} wide and {height} high; expected 0 <= x0 <= x1 < width, and y likewise",
                image,
            )

    @classmethod
    def from_lists(cls, boxes: Sequence[Sequence[Box]], sizes: npt.ArrayLike) -> Boxes:
        """From one sequence of boxes per image, and (N, 2) sizes, height first."""
        offsets = np.concatenate([[0], np.cumsum([len(of_image) for of_image in boxes], dtype=np.int64)])
        values = np.array([box for of_image in boxes for box in of_image], np.int64).reshape(-1, 4)
        return cls(offsets, values, np.asarray(sizes, np.int64).reshape(-1, 2))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.offsets) - 1

    def of(self, image: int) -> npt.NDArray[np.int64]:
        """(k, 4): the boxes of one image."""
        return self.values[self.offsets[image] : self.offsets[image + 1]]

    def select(self, ids: npt.ArrayLike) -> Boxes:
        """The boxes of some images, in the order of ``ids`` (n,)."""
        ids = np.asarray(ids, np.int64)
        counts = np.diff(self.offsets)[ids]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(self.offsets[ids] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Boxes(offsets, self.values[rows], self.sizes[ids])

    @property
    def thin(self) -> int:
        """How many boxes are one pixel wide or high: objects that a crop has cut away. They count as any other."""
        return int((self.values[:, :2] == self.values[:, 2:]).any(axis=1).sum())
