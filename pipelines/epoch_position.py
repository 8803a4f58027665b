"""Where a loader is: the epoch, and the batch within it; the same rules for every loader that resumes."""

from __future__ import annotations

from has_dali.pipelines.sampler import MAX_EPOCH, Position, Sampler, at_least


class EpochPosition:
    """The next batch of a loader whose every loop takes the next epoch; a loop left early is not taken up again.

    Args:
        sampler: which batches there are.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._epoch, self._index = 0, 0
        self._handed_out = False  # a loop gave at least one batch of the epoch and did not end by itself
        self._loop = 0

    @property
    def epoch(self) -> int:
        """The epoch under way or left early; after a complete loop, the next one."""
        return self._epoch

    @property
    def next_epoch(self) -> int:
        """The epoch that a new loop takes."""
        return self._epoch + self._handed_out

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one, from its start, or from the position moved to within it."""
        epoch = at_least("epoch", epoch, 0, MAX_EPOCH)
        if self._handed_out or epoch != self._epoch:
            self._epoch, self._index, self._handed_out = epoch, 0, False

    def begin(self) -> int:
        """Begin a loop; the number that it checks itself by."""
        self.set_epoch(self.next_epoch)
        self._loop += 1
        return self._loop

    def check(self, loop: int) -> None:
        """Raise RuntimeError in a loop that a newer one has ended."""
        if loop != self._loop:
            raise RuntimeError("this loop over the loader was ended by a newer one; run one loop at a time")

    def following(self) -> Position | None:
        """The next batch of the epoch; None at its end, after which the next epoch is due."""
        if self._index < len(self._sampler):
            return self._epoch, self._index
        self._epoch, self._index, self._handed_out = self._epoch + 1, 0, False
        return None

    def advance(self) -> None:
        """Count the batch as handed out."""
        self._index += 1
        self._handed_out = True

    def consumed(self) -> tuple[int, int]:
        """Epoch of the next batch, and the samples that all ranks together consumed of it."""
        at_end = self._index >= len(self._sampler)
        return (self._epoch + 1, 0) if at_end else (self._epoch, self._index * self._sampler.global_batch)

    def move_to(self, epoch: int, samples: int) -> None:
        """Make the batch at what ``consumed`` gave the next one.

        Raises:
            ValueError: there is no such batch.
        """
        index, rest = divmod(samples, self._sampler.global_batch)
        if rest or (index and index >= len(self._sampler)):
            raise ValueError(
                f"state: samples={samples} is no batch boundary of this loader ({len(self._sampler)} batches of"
                f" {self._sampler.global_batch} over all ranks); use the same data and global batch size"
            )
        self._epoch, self._index, self._handed_out = epoch, index, False
