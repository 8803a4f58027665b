"""Loaders as a trainer sees them: with the time that it waited for batches, and with a resolution per epoch."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from has_dali.pipelines.epoch_batches import EpochBatches
from has_dali.pipelines.loader import Batch, ImageLoader
from has_dali.pipelines.loader_state import check_state, state_of


class TimedBatches(EpochBatches):
    """A loader that measures how long its reader waits; length, state and batches are the loader's.

    Args:
        loader: see ``EpochBatches``.
        epoch: see ``EpochBatches``.
    """

    def __init__(self, loader: Any, epoch: Callable[[], int] | None = None) -> None:
        super().__init__(loader, epoch)
        self.waited = 0.0
        """Seconds spent in waiting for batches, but for the very first one."""
        self.first = 0.0
        """Seconds that the first batch took: starting the pipeline and filling it."""
        self.batches = 0
        """Batches handed out."""

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch, from the first request on."""
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            if self.batches:
                self.waited += time.perf_counter() - start
            else:
                self.first = time.perf_counter() - start
            self.batches += 1
            yield batch
            del batch  # its memory is free for the next one while that is not yet asked for


class ProgressiveLoader:
    """A loader whose image size follows a table of epochs: cheap small images first (progressive resolution).

    Args:
        make: makes a loader of a given image size; order and ids must not depend on the size.
        sizes: [[first epoch, side], ...], the first from epoch 0 on.

    Raises:
        ValueError: the table is malformed.
    """

    def __init__(self, make: Callable[[int], ImageLoader], sizes: Sequence[Sequence[int]]) -> None:
        starts = [row[0] for row in sizes if len(row) == 2]
        if len(starts) != len(sizes) or not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"loader.sizes={list(sizes)}: expected [[0, side], [epoch, side], ...] with rising epochs")
        self._make, self._starts, self._sides = make, starts, [row[1] for row in sizes]
        self._side = self._sides[0]
        self._loader = make(self._side)
        self._earlier: list[dict[str, Any]] = []  # reports of the loaders of other sizes before
        # The same in every epoch, whatever its size: a state fits all of them.
        self._settings = {**self._loader.settings, "sizes": [list(row) for row in sizes]}

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch, at its size."""
        loader = self._loader
        loader.set_epoch(loader.next_epoch)  # keeps a position loaded within it
        side = self.side(loader.epoch)
        if side != self._side:
            self._earlier.append(loader.report())
            self._side, self._loader = side, self._make(side)
            self._loader.move_to(*loader.position())
        return iter(self._loader)

    def state_dict(self) -> dict[str, Any]:
        """Position, data and settings, as ``ImageLoader.state_dict``; the settings hold the table of sizes."""
        seed = self._loader.sample_order.seed
        return state_of(seed, *self._loader.position(), self._loader.fingerprint, self._settings)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position.

        Raises:
            ValueError: the state is of other data or settings; names what differs.
        """
        seed = self._loader.sample_order.seed
        self._loader.move_to(*check_state(state, seed, self._loader.fingerprint, self._settings))

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one; a position loaded within it stays."""
        self._loader.set_epoch(epoch)

    def report(self) -> dict[str, Any]:
        """As ``ImageLoader.report``, of the loaders of all sizes together."""
        return joined_reports([*self._earlier, self._loader.report()])

    def side(self, epoch: int) -> int:
        """Image side in an epoch."""
        return self._sides[bisect_right(self._starts, epoch) - 1]


def joined_reports(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Reports of loaders over the same samples as one: counts added up, each broken sample listed once."""
    counts = {name: sum(report[name] for report in reports) for name in ("batches", "samples", "replaced")}
    broken = {file["id"]: file for report in reports for file in report["broken"]}
    return {**counts, "broken": [broken[sample_id] for sample_id in sorted(broken)]}
