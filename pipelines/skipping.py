"""Broken samples replaced by others, by a rule that depends on nothing but the files, the draw and the epoch.

A draw whose sample cannot be loaded shows the next sample id, counted round, that can be, drawn with that sample's own
key. In training it takes its place; in evaluation, where no image may count for another, its id and label become -1.
What was found once is only a hint: a sample known to break is tried again, alone, whenever it is drawn, since another
crop of it may be whole. So batches do not depend on what was loaded before, and a resumed run repeats them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from has_dali.pipelines.sampler import PADDING, IdArray, Position, Sampler, shown_ids

if TYPE_CHECKING:
    from has_dali.pipelines.broken import BrokenFile  # needs DALI, which images in memory do without

_LOG = logging.getLogger(__name__)
_LISTED = 20

Probe = Callable[[int, int, int], "BrokenFile | None"]


class TooManyBrokenError(RuntimeError):
    """More samples are broken than the error budget allows, or all are; lists them."""


@dataclass(frozen=True)
class Draws:
    """The samples of a batch.

    Args:
        position: of the batch.
        ids: what the reader is told, ``PADDING`` included.
        shown: whose images are shown.
        keys: what crops and masks of these are drawn from.
        replaced: how many stand in for broken ones.
    """

    position: Position
    ids: IdArray
    shown: IdArray
    keys: IdArray
    replaced: int = 0


def drawn(sampler: Sampler, position: Position) -> Draws:
    """What the sampler gives for a batch."""
    epoch, index = position
    ids = sampler.ids(epoch, index)
    shown = shown_ids(ids)
    return Draws(position, ids, shown, sampler.keys_of(shown, index))


class Replacements:
    """Which samples were found broken, and what is shown instead of them.

    Args:
        probe: tells what is wrong with (sample id, key, epoch).
        sampler: whose draws these are.
        count: samples of the data set.
        budget: share of them that may be broken.
    """

    def __init__(self, probe: Probe, sampler: Sampler, count: int, budget: float) -> None:
        self._probe, self._sampler, self._count = probe, sampler, count
        self._budget = budget
        self.broken: dict[int, BrokenFile] = {}

    def add(self, found: Sequence[BrokenFile]) -> None:
        """Take note of broken samples; each is named once in the log.

        Raises:
            TooManyBrokenError: there are more than the budget allows.
        """
        for file in found:
            if file.sample_id not in self.broken:
                self.broken[file.sample_id] = file
                _LOG.warning("skipped sample %d: %s: %s", file.sample_id, file.path, file.reason)
        if len(self.broken) > math.floor(self._budget * self._count + 1e-9):
            raise TooManyBrokenError(self._message(f"more than error_budget={self._budget:g} allows"))

    def resolve(self, draws: Draws) -> Draws:
        """The same batch with broken samples replaced, as far as they are known.

        Raises:
            TooManyBrokenError: there are more than the budget allows, or none is left to show.
        """
        epoch, index = draws.position
        suspects = [n for n, sample_id in enumerate(draws.shown.tolist()) if sample_id in self.broken]
        if not suspects:
            return draws
        ids, shown, keys = draws.ids.copy(), draws.shown.copy(), draws.keys.copy()
        replaced = 0
        for n in suspects:
            if self._fails(int(shown[n]), int(keys[n]), epoch):
                shown[n], keys[n] = self._next(shown, n, epoch, index)
                ids[n] = shown[n] if self._sampler.train else PADDING
                replaced += int(draws.ids[n] != PADDING)
        return Draws(draws.position, ids, shown, keys, replaced)

    def _next(self, shown: IdArray, n: int, epoch: int, index: int) -> tuple[int, int]:
        """Id and key of the first sample behind draw ``n`` of a batch that can be loaded in its place."""
        candidate = shown.copy()
        for step in range(1, self._count):
            candidate[n] = (shown[n] + step) % self._count
            sample_id, key = int(candidate[n]), int(self._sampler.keys_of(candidate, index)[n])
            if not self._fails(sample_id, key, epoch):
                return sample_id, key
        raise TooManyBrokenError(self._message("none is left to show"))

    def _fails(self, sample_id: int, key: int, epoch: int) -> bool:
        file = self._probe(sample_id, key, epoch)
        if file is not None:
            self.add([file])
        return file is not None

    def _message(self, verdict: str) -> str:
        files = sorted(self.broken.values(), key=lambda file: file.sample_id)
        lines = [f"  sample {file.sample_id}: {file.path}: {file.reason}" for file in files[:_LISTED]]
        if len(files) > _LISTED:
            lines.append(f"  and {len(files) - _LISTED} more: report()['broken'] of the loader lists them all")
        head = f"{len(files)} of {self._count} samples cannot be loaded, {verdict}; repair or remove the files:"
        return "\n".join([head, *lines])


def report_of(batches: int, samples: int, replaced: int, replacements: Replacements | None) -> dict[str, Any]:
    """What ``ImageLoader.report`` gives, JSON-able."""
    files = [] if replacements is None else sorted(replacements.broken.values(), key=lambda file: file.sample_id)
    broken = [{"id": file.sample_id, "name": file.path, "reason": file.reason} for file in files]
    return {"batches": batches, "samples": samples, "replaced": replaced, "broken": broken}
