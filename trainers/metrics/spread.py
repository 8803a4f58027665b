"""How a class activation map lies over the object: whether hiding made it wider, and where it went."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from has_dali.trainers.datasets.boxes import Boxes
from has_dali.trainers.metrics.samples import SampleTable, State

LEVEL = 0.5


class MapSpread:
    """Shares of the picture and of the object that the strong part of a map covers: above half of its maximum.

    Args:
        truth: true boxes by sample id, in the pixels of the maps that ``measure`` takes.
    """

    def __init__(self, truth: Boxes) -> None:
        self.truth = truth
        self._table = SampleTable()

    def measure(self, sample_id: int, picture: npt.NDArray[np.float32]) -> tuple[float, float, float]:
        """Of one map (height, width) of the true class: its area, its part inside the boxes, the boxes' part under it.

        Each is a share from 0 to 1: of the picture, of the map's strong part, and of the union of the true boxes. A map
        without a positive value has no strong part: 0, 0, 0.
        """
        peak = float(picture.max())
        if not np.isfinite(peak) or peak <= 0:
            return 0.0, 0.0, 0.0
        strong = picture > LEVEL * peak
        inside = np.zeros(picture.shape, bool)
        for x0, y0, x1, y1 in self.truth.of(sample_id).tolist():
            inside[y0 : y1 + 1, x0 : x1 + 1] = True
        both = float((strong & inside).sum())
        return float(strong.mean()), both / float(strong.sum()), both / float(inside.sum())

    def update(self, ids: npt.ArrayLike, shares: npt.ArrayLike) -> None:
        """Take in what ``measure`` gave for a batch: ids (n,), shares (n, 3)."""
        self._table.add(ids, {"shares": np.asarray(shares, np.float64).reshape(-1, 3)})

    def state(self) -> State:
        """``shares`` (n, 3) by ascending ``id``."""
        return self._table.state()

    def merge(self, state: State) -> None:
        """Take in another rank's ``state()``."""
        self._table.merge(state)

    def compute(self) -> dict[str, float]:
        """Means over all images in percent: ``map_area``, ``map_inside_box``, ``box_under_map``."""
        means = 100 * self.state()["shares"].mean(axis=0)
        return dict(zip(("map_area", "map_inside_box", "box_under_map"), means.tolist(), strict=True))
