"""Keys of masks for batches without sample ids: from torch's default generator, apart on every rank."""

from __future__ import annotations

import os
from typing import Any

import torch

LARGEST_KEY = 2**62
_STRIDE = 0x2545F4914F6CDD1D  # odd: the keys of a draw are different on all ranks


class RandomKeys:
    """Draws keys from torch's default generator, and moves them by the rank of this process.

    All ranks of a job usually call ``torch.manual_seed`` with one number, so that their weights agree: without the
    rank they would draw the same masks. On rank 0, and in a process alone, keys are the generator's own.
    """

    def __init__(self) -> None:
        self._rank = 0

    def __call__(self, count: int) -> torch.Tensor:
        """(count,) int64 keys from 0 to ``LARGEST_KEY`` - 1."""
        return keys_of_rank(torch.randint(LARGEST_KEY, (count,)), self.rank)

    @property
    def rank(self) -> int:
        """This process's rank, or that of the process which sent this object to a worker."""
        return process_rank() or self._rank

    def __getstate__(self) -> dict[str, Any]:
        """With the rank: a worker that is spawned may know none."""
        return {"_rank": self.rank}


def keys_of_rank(keys: torch.Tensor, rank: int) -> torch.Tensor:
    """Keys from 0 to ``LARGEST_KEY`` - 1, moved by a rank: different on all of them for the same keys."""
    return (keys + rank * _STRIDE % LARGEST_KEY) % LARGEST_KEY


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def process_rank() -> int:
    """The rank in ``torch.distributed``, or in the environment variable RANK, as torchrun sets it; else 0."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    value = os.environ.get("RANK", "")
    return int(value) if value.isdecimal() else 0
