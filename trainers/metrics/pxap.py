"""PxAP of the wsolevaluation benchmark: the area under the precision-recall curve of pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from has_dali.trainers.datasets.masks import IGNORED
from has_dali.trainers.metrics.samples import State
from has_dali.trainers.metrics.wsol import min_max, thresholds


def centre_map(size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """(height, width): a map that needs no network: 1 in the centre, falling with the distance to 0 in the corners.

    Distances are in halves of the sides, so in a picture that is not square lines of equal score are ellipses. PxAP
    sees the order of scores only (but for thresholds far apart), so a Gaussian around the centre would do no better.
    """
    y, x = ((2 * np.arange(side) + 1 - side) / side for side in size)
    distance = np.hypot(y[:, None], x)
    return (1 - distance / distance.max()).astype(np.float32)


class PxAP:
    """Collects how many object and background pixels have a score between two thresholds.

    Args:
        step: distance of the thresholds, from 0 to below 1.
    """

    def __init__(self, step: float = 0.001) -> None:
        self.thresholds = thresholds(step)
        # The last bin holds scores of exactly 1.
        self._edges = np.append(self.thresholds, 1.0)
        self._counts = np.zeros((2, len(self._edges)), np.int64)
        self._ids = np.zeros(0, np.int64)

    def update(self, ids: npt.ArrayLike, maps: npt.ArrayLike, masks: npt.ArrayLike) -> None:
        """Take in a batch.

        Args:
            ids: (n,) sample ids; -1: padding, ignored.
            maps: (n, H, W) maps in any range; each is scaled to 0..1 by its minimum and maximum.
            masks: (n, H, W) uint8: 1 object, 0 background, 255 not counted.

        Raises:
            ValueError: maps and masks differ in shape, or a mask has another value.
        """
        ids, maps, masks = np.asarray(ids, np.int64), np.asarray(maps, np.float32), np.asarray(masks)
        if maps.shape != masks.shape or len(maps) != len(ids):
            raise ValueError(f"masks: expected the maps' shape {maps.shape} for {len(ids)} ids, got {masks.shape}")
        if not np.isin(masks, (0, 1, IGNORED)).all():
            raise ValueError("masks: expected 0 (background), 1 (object) or 255 (not counted)")
        real = ids >= 0
        if not real.any():
            return
        scores, masks = min_max(maps[real]), masks[real]
        for row in (0, 1):
            places = np.searchsorted(self._edges, scores[masks == row].astype(np.float64), "right") - 1
            self._counts[row] += np.bincount(places, minlength=len(self._edges))
        self._ids = np.concatenate([self._ids, ids[real]])

    def state(self) -> State:
        """``id`` (n,) of the images counted, and ``counts`` (2, bins) of background and object pixels."""
        return {"id": self._ids.copy(), "counts": self._counts.copy()}

    def merge(self, state: State) -> None:
        """Take in another rank's ``state()``.

        Raises:
            ValueError: it counts an image that is counted here too.
        """
        if (twice := np.intersect1d(self._ids, state["id"])).size:
            raise ValueError(f"PxAP: image {twice[0]} was counted on two ranks; give each image to one rank only")
        self._ids = np.concatenate([self._ids, state["id"]])
        self._counts += state["counts"]

    def compute(self) -> float:
        """Percentage: the sum over thresholds of precision times the growth of recall, from the highest score down.

        Raises:
            ValueError: no object pixel was taken in.
        """
        negative, positive = self._counts[:, ::-1].cumsum(axis=1)
        if not positive[-1]:
            raise ValueError("PxAP: no object pixel was taken in; call update with masks that have some")
        predicted = positive + negative
        precision = np.divide(positive, predicted, out=np.zeros(len(predicted)), where=predicted > 0)
        return float(100 * (precision * np.diff(positive, prepend=0)).sum() / positive[-1])
