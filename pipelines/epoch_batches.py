"""A loader whose epochs another counts: a trainer that resumes, or that makes its loaders anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from has_dali.pipelines.image_batches import Batch


class EpochBatches:
    """A loader whose every loop takes the epoch that a function gives; length, state and batches are the loader's.

    A trainer knows better than its loader which epoch is due: pytorch-lightning hands a loader its state back in the
    middle of an epoch, but not where a run resumes from a checkpoint of an epoch's end.

    Args:
        loader: what ``image_loader`` or ``paired_loader`` gives, or anything with its length, iterator and state.
        epoch: gives the epoch under way, when a loop takes its first batch; None: the loader counts.

    Example:
        >>> train = EpochBatches(loader, lambda: trainer.current_epoch)  # doctest: +SKIP
        >>> trainer.fit(model, train, ckpt_path="last.ckpt")  # doctest: +SKIP
    """

    def __init__(self, loader: Any, epoch: Callable[[], int] | None = None) -> None:
        self.loader, self._epoch = loader, epoch

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch, from the first request on; a position loaded within that epoch stays."""
        # Not before the first request: a trainer makes the iterator before it has loaded its checkpoint.
        if self._epoch is not None:
            self.loader.set_epoch(self._epoch())
        yield from self.loader

    def state_dict(self) -> dict[str, Any]:
        """Position of the loader."""
        state: dict[str, Any] = self.loader.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a position."""
        self.loader.load_state_dict(state)

    def report(self) -> dict[str, Any]:
        """What the loader handed out and what it could not load, see ``ImageLoader.report``."""
        report: dict[str, Any] = self.loader.report()
        return report
