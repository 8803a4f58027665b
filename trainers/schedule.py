"""Learning rate and weight decay as pure functions of the epoch: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from has_dali.trainers.settings import OptimSettings


@dataclass(frozen=True)
class Schedule:
    """``schedule(epoch)`` gives (learning rate, weight decay) at a fractional epoch.

    Args:
        optim: the settings.
        epochs: length of the run.

    Raises:
        ValueError: the settings contradict one another.
    """

    optim: OptimSettings
    epochs: int

    def __post_init__(self) -> None:
        if self.optim.schedule == "phases":
            starts = [phase[0] for phase in self.optim.phases if len(phase) == 3]
            if len(starts) != len(self.optim.phases) or not starts or starts != sorted(set(starts)) or starts[0] != 0:
                raise ValueError(
                    f"optim.phases={self.optim.phases}: expected [[0, lr, weight decay], [epoch, lr, weight decay],"
                    " ...] with rising epochs"
                )
            if starts[-1] >= self.epochs:
                row = next(phase for phase in self.optim.phases if phase[0] >= self.epochs)
                raise ValueError(
                    f"optim.phases: {row} never begins in trainer.max_epochs={self.epochs}; scale them to the run,"
                    " or leave those out"
                )
        elif self.optim.phases:
            raise ValueError(f"optim.phases: only optim.schedule=phases has phases, got {self.optim.schedule!r}")
        if not 0 <= self.optim.warmup_epochs < max(self.epochs, 1):
            raise ValueError(
                f"optim.warmup_epochs={self.optim.warmup_epochs}: expected 0 to less than the {self.epochs} epochs"
            )

    def __call__(self, epoch: float) -> tuple[float, float]:
        """Learning rate and weight decay at ``epoch``, which counts from 0 and may be fractional."""
        lr, weight_decay = self._unwarmed(epoch)
        if epoch < self.optim.warmup_epochs:
            lr *= epoch / self.optim.warmup_epochs
        return lr, weight_decay

    def _unwarmed(self, epoch: float) -> tuple[float, float]:
        optim = self.optim
        if optim.schedule == "phases":
            starts = [phase[0] for phase in optim.phases]
            _, lr, weight_decay = optim.phases[bisect_right(starts, epoch) - 1]
            return lr, weight_decay
        if optim.schedule == "constant":
            return optim.lr, optim.weight_decay
        warm = optim.warmup_epochs
        done = min(max((epoch - warm) / (self.epochs - warm), 0.0), 1.0)
        share = 1 - done if optim.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return optim.lr * share, optim.weight_decay
