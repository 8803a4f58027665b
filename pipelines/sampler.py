"""Which samples make up which batch: pure functions of (seed, epoch, batch index), with no state.

The order of an epoch is that of 64-bit Philox words drawn per sample id, or is itself drawn word by word, so it needs
no generator and is the same for every world size. Global batch g is the run ``[g * B, (g + 1) * B)`` of that order,
with B = batch_size * world_size; rank r takes the r-th slice of it.
"""

from __future__ import annotations

import functools
import operator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from has_dali.kernels.compiling import kernel
from has_dali.kernels.contract import PLAN_BLOCK, as_u64
from has_dali.kernels.philox import philox4x32
from has_dali.kernels.policy import checked_seed

# Counter blocks of the orders; crops and mirror (plan.py) take lower ones.
SHUFFLE_BLOCK = PLAN_BLOCK + 512
BALANCED_BLOCK = PLAN_BLOCK + 513
MAX_EPOCH = 2**32 - 1  # an epoch is one 32-bit word of the counter
MAX_DRAWS = 2**31  # of an epoch, and ids of the samples drawn: both fit one key, which stays positive

PADDING = -1  # the id, and the label, of what fills up a batch of evaluation; metrics ignore it

Position: TypeAlias = tuple[int, int]  # epoch, index of the batch within the epoch
IdArray: TypeAlias = "npt.NDArray[np.int64]"


class Sampler:
    """Sample ids of every batch of every epoch, for one rank.

    Training shuffles anew in each epoch and drops what does not fill a global batch; as the order changes, so
    does what is dropped. Evaluation goes through the samples in order, each exactly once over all ranks: the
    remainder is dealt out evenly, so the last batch may be short. All ranks have equally many steps, and batches of
    one size in each: a rank that lacks a sample of the last batch gets the id -1 (``PADDING``) for it. A process
    alone never does.

    Args:
        count: samples in the data set.
        batch_size: samples in a batch of this rank.
        train: shuffle and drop the remainder; else sequential and complete.
        seed: 64-bit integer, the key of the shuffle.
        rank: this process, from 0.
        world_size: number of processes.

    Raises:
        ValueError: a number is out of range, or there are too few samples for one global training batch.
        TypeError: a number is not an integer.
    """

    def __init__(
        self, count: int, batch_size: int, *, train: bool, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.count = at_least("count", count, 1)
        self.batch_size = at_least("batch_size", batch_size, 1)
        self.world_size = at_least("world_size", world_size, 1)
        self.rank = at_least("rank", rank, 0)
        if self.rank >= self.world_size:
            raise ValueError(f"rank={rank}: expected 0 to world_size - 1 = {self.world_size - 1}")
        self.seed = checked_seed(seed)
        self.train = train
        self.global_batch = self.batch_size * self.world_size
        if train and self.count < self.global_batch:
            raise ValueError(
                f"batch_size={batch_size}: a global batch of {self.global_batch} samples does not fit into"
                f" {self.count} training samples; lower batch_size or world_size"
            )
        self._full, self._rest = divmod(self.count, self.global_batch)
        self._order = functools.lru_cache(maxsize=2)(self._compute_order)  # prefetching spans two epochs

    def __len__(self) -> int:
        """Batches per epoch, on every rank."""
        return self._full + (not self.train and self._rest > 0)

    @property
    def samples_per_epoch(self) -> int:
        """Samples that all ranks together take in one epoch."""
        return self._full * self.global_batch if self.train else self.count

    def order(self, epoch: int) -> IdArray:
        """(count,) int64: every sample id once, in the order of ``epoch``; read-only."""
        return self._order(epoch)

    def ids(self, epoch: int, index: int) -> IdArray:
        """Ids of this rank's batch ``index`` in ``epoch``: (batch_size,) int64, shorter at the end of evaluation.

        There the last one may be ``PADDING``.
        """
        span = self._span(index)
        ids = self.order(epoch)[span]
        lacking = self._size(index) - len(ids)
        return np.append(ids, np.full(lacking, PADDING, np.int64)) if lacking else ids

    def keys(self, epoch: int, index: int) -> IdArray:
        """What crops and masks of the same batch are drawn from, (batch_size,) int64: different within an epoch."""
        return self.keys_of(self.ids(epoch, index), index)

    def keys_of(self, ids: IdArray, index: int) -> IdArray:
        """What the samples ``ids`` would be drawn from in the places of batch ``index``."""
        return ids

    def following(self, position: Position) -> Position | None:
        """The batch to be computed after ``position``, or None.

        Training goes from one epoch straight into the next. Evaluation stops at the end of its epoch, since nobody may
        ask for the next one for long.
        """
        epoch, index = position
        if index + 1 < len(self):
            return epoch, index + 1
        return (epoch + 1, 0) if self.train and epoch < MAX_EPOCH else None

    def _span(self, index: int) -> slice:
        """Where this rank's batch lies in the order."""
        if not 0 <= index < len(self):
            raise IndexError(f"index={index}: expected 0 to {len(self) - 1}, the batches of an epoch")
        start = index * self.global_batch
        if index < self._full:
            start += self.rank * self.batch_size
            stop = start + self.batch_size
        else:
            share, extra = divmod(self._rest, self.world_size)
            start += self.rank * share + min(self.rank, extra)
            stop = start + share + (self.rank < extra)
        return slice(start, stop)

    def _size(self, index: int) -> int:
        """Samples of batch ``index`` on every rank, padding included."""
        return self.batch_size if index < self._full else -(-self._rest // self.world_size)

    def _compute_order(self, epoch: int) -> IdArray:
        if self.train:
            keys = np.empty(self.count, np.uint64)
            _shuffle_keys(keys, np.uint64(epoch), np.uint64(as_u64(self.seed)))
            order = np.argsort(keys, kind="stable")  # stable: equal keys keep id order on every machine
        else:
            order = np.arange(self.count, dtype=np.int64)
        order.flags.writeable = False
        return order


class BalancedSampler(Sampler):
    """Training batches in which all classes are equally likely: each draw takes a class, then one of its images.

    Draws are independent, so an image may come several times in an epoch, or not at all. An epoch is ``steps`` batches,
    whatever the number of images; ``count`` and ``order`` are those of its draws. Draw i takes the words of Philox
    counter (block, epoch, i): the first chooses the class, the second the image.

    Args:
        labels: (N,) one class per image, none negative; classes without images are never drawn.
        batch_size: samples in a batch of this rank.
        steps: batches in an epoch.
        seed: 64-bit integer, the key of the draws.
        rank: this process, from 0.
        world_size: number of processes.

    Raises:
        ValueError: a number is out of range, or an image has no label.
        TypeError: a number is not an integer.
    """

    def __init__(
        self,
        labels: IdArray,
        batch_size: int,
        *,
        steps: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        draws = at_least("steps", steps, 1) * at_least("batch_size", batch_size, 1)
        draws *= at_least("world_size", world_size, 1)
        if draws > MAX_DRAWS or len(labels) > MAX_DRAWS:
            raise ValueError(
                f"steps={steps}: {draws} draws in an epoch, from {len(labels)} images; at most 2**31 of each fit a key"
            )
        if not len(labels) or labels.min() < 0:
            raise ValueError("labels: drawing by class needs a label for every image; use a class folder, or labels=")
        super().__init__(draws, batch_size, train=True, seed=seed, rank=rank, world_size=world_size)
        self._by_class = np.argsort(labels, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.unique(labels, return_counts=True)[1])])

    def keys_of(self, ids: IdArray, index: int) -> IdArray:
        """Sample ids with the number of the draw in the high 32 bits: an image drawn twice is cropped anew."""
        span = self._span(index)
        return ids | np.arange(span.start, span.stop) << 32

    def _compute_order(self, epoch: int) -> IdArray:
        order = np.empty(self.count, np.int64)
        _draw_balanced(order, self._by_class, self._starts, np.uint64(epoch), np.uint64(as_u64(self.seed)))
        order.flags.writeable = False
        return order


def shown_ids(ids: IdArray) -> IdArray:
    """The samples whose images are shown for ``ids``: sample 0 stands in for padding."""
    return np.maximum(ids, 0)


def labels_of(labels: IdArray, ids: IdArray) -> IdArray:
    """Labels of a batch, -1 for padding."""
    return np.where(ids >= 0, labels[shown_ids(ids)], PADDING)


@kernel
def _draw_balanced(order, by_class, starts, epoch, seed):  # type: ignore[no-untyped-def]
    """Fill ``order`` with draws from ``by_class``, ids sorted by class; class c begins at ``starts[c]``."""
    for i in range(len(order)):
        w0, w1, _, _ = philox4x32(np.uint64(BALANCED_BLOCK), epoch, np.uint64(i), seed)
        drawn = np.int64((w0 * np.uint64(len(starts) - 1)) >> np.uint64(32))
        images = np.uint64(starts[drawn + 1] - starts[drawn])
        order[i] = by_class[starts[drawn] + np.int64((w1 * images) >> np.uint64(32))]


@kernel
def _shuffle_keys(keys, epoch, seed):  # type: ignore[no-untyped-def]
    """Fill ``keys`` (N,) uint64 with one 64-bit word per sample id 0..N-1."""
    for i in range(len(keys)):
        high, low, _, _ = philox4x32(np.uint64(SHUFFLE_BLOCK), epoch, np.uint64(i), seed)
        keys[i] = (high << np.uint64(32)) | low


def at_least(name: str, value: int, low: int, high: int | None = None) -> int:
    """``value`` as an int from ``low`` to ``high`` (None: any), or an error that names the argument."""
    wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: expected {wanted}") from None
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name}={value!r}: expected {wanted}")
    return number
