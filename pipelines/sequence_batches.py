"""Batches of feature sequences: sampled in time, put together, hidden, by threads that work ahead of the reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from has_dali.functional import hide
from has_dali.pipelines.policy_schedule import Policy, policy_at
from has_dali.pipelines.sampler import Position, Sampler
from has_dali.pipelines.sequence_labels import SequenceLabels
from has_dali.pipelines.sequence_source import SequenceSource

Parts: TypeAlias = dict[str, torch.Tensor]


def sample_indices(frames: int, length: int) -> npt.NDArray[np.int64]:
    """(length,) the time steps, of ``frames``, that a sequence sampled to ``length`` steps shows.

    Step i shows ``floor(i * (frames - 1) / (length - 1) + 1/2)``, in whole numbers: the first and the last time step
    are always there, and the others as evenly as it goes. Sequences with fewer frames than ``length`` repeat them by
    the same rule. A length of 1 shows the middle one, ``(frames - 1) // 2``.
    """
    if length == 1:
        return np.array([(frames - 1) // 2], np.int64)
    steps = np.arange(length, dtype=np.int64)
    return (2 * steps * (frames - 1) + (length - 1)) // (2 * (length - 1))


@dataclass(frozen=True)
class SequenceSpec:
    """What decides a batch's numbers, apart from the files.

    Args:
        length: time steps; None: as many as the longest sequence of the batch has.
        policy: what is hidden; None: nothing.
        fill: (C,) float32, what hidden steps and padding show; None: there are none of either.
    """

    length: int | None
    policy: Policy | None
    fill: npt.NDArray[np.float32] | None


class SequenceReader:
    """Makes one batch.

    Args:
        spec: what is computed.
        source: the sequences.
        labels: theirs.
        sampler: which ids make up a batch.
        pinned: memory from which a CUDA device can copy while the host goes on.
    """

    def __init__(
        self, spec: SequenceSpec, source: SequenceSource, labels: SequenceLabels, sampler: Sampler, pinned: bool
    ) -> None:
        self._spec, self._source, self._labels, self._sampler = spec, source, labels, sampler
        self._pinned = pinned

    def batch(self, position: Position) -> Parts:
        """``sequence`` (N, C, T) float32, ``label``, ``id`` (N,) and ``length`` (N,) int64.

        Raises:
            RuntimeError: a file cannot be read or does not hold finite numbers; names it.
        """
        ids, epoch = self._sampler.ids(*position), position[0]
        shown = np.maximum(ids, 0)  # sample 0 stands in for padding
        rows, chosen, lengths = [], [], []
        for sample_id in shown.tolist():
            features, indices, frames = self._sampled(sample_id)
            rows.append(features)
            chosen.append(indices)
            lengths.append(frames)
        steps = self._spec.length or max(lengths)
        sequences = torch.empty((len(ids), self._source.channels, steps), dtype=torch.float32, pin_memory=self._pinned)
        for row, features in zip(sequences.numpy(), rows, strict=True):
            row[:, : len(features)] = features.T
            if len(features) < steps:
                row[:, len(features) :] = self._fill()[:, None]
        policy = policy_at(self._spec.policy, epoch)
        if policy is not None:
            keys = self._sampler.keys(*position)
            hide(sequences, policy, keys, epoch, fill=self._fill().tolist(), layout="NCT", out=sequences)
        labels = self._labels.batch(ids, chosen, steps)
        values = {"label": labels, "id": ids.copy(), "length": np.array(lengths, np.int64)}
        return {"sequence": sequences, **{name: torch.from_numpy(value) for name, value in values.items()}}

    def _sampled(self, sample_id: int) -> tuple[npt.NDArray, npt.NDArray[np.int64], int]:
        """The features that are shown (T, C), at which time steps, and of how many."""
        try:
            features = self._source.features(sample_id)
            frames = len(features)
            if self._spec.length is None:
                indices = np.arange(frames)
            else:
                indices = sample_indices(frames, self._spec.length)
                features = features[indices]
            check_finite(self._source.name(sample_id), features, indices)
        except (OSError, ValueError) as error:
            raise RuntimeError(f"cannot load sequence {sample_id}: {error}") from error
        return features, indices, frames

    def _fill(self) -> npt.NDArray[np.float32]:
        assert self._spec.fill is not None
        return self._spec.fill


def check_finite(name: str, features: npt.NDArray, indices: npt.NDArray[np.int64]) -> None:
    """Raise ValueError, naming the first number of (T, C) that is NaN, infinite, or too large for float32."""
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(np.asarray(features, np.float32))
    if bad.any():
        step, channel = (int(place[0]) for place in np.nonzero(bad))
        raise ValueError(
            f"{name}: {features[step, channel]} at time step {int(indices[step])}, feature {channel} (counted from 0)"
            " is no finite float32; repair or remove the sequence"
        )


class WorkAhead:
    """Batches by position from a function, computed ahead of the reader as long as positions follow one another.

    Args:
        make: makes a batch; called by several threads.
        sampler: which batches follow which.
        threads: batches computed at the same time.
        prefetch: batches computed ahead.
    """

    def __init__(self, make: Callable[[Position], Any], sampler: Sampler, threads: int, prefetch: int) -> None:
        self._make, self._sampler, self._prefetch = make, sampler, prefetch
        self._pool = ThreadPoolExecutor(max(min(threads, prefetch), 1), thread_name_prefix="has_dali_sequences")
        self._next: Position | None = None
        self._scheduled: deque[tuple[Position, Future[Any]]] = deque()

    def batch(self, position: Position) -> Any:
        """One batch; work on the following ones goes on meanwhile."""
        if not self._scheduled or self._scheduled[0][0] != position:
            self.close()
            self._next = position
        self._work_ahead()
        try:
            made = self._scheduled[0][1].result()
        except BaseException:
            self.close()  # the next call computes its batch anew
            raise
        self._scheduled.popleft()
        self._work_ahead()
        return made

    def close(self) -> None:
        """Drop the work under way."""
        for _, future in self._scheduled:
            future.cancel()
        self._scheduled.clear()

    def _work_ahead(self) -> None:
        while self._next is not None and len(self._scheduled) < self._prefetch:
            self._scheduled.append((self._next, self._pool.submit(self._make, self._next)))
            self._next = self._sampler.following(self._next)


def feature_mean(
    source: SequenceSource, threads: int, advance: Callable[[int], None] | None = None
) -> npt.NDArray[np.float64]:
    """(C,) float64 mean of each feature over all time steps of all sequences: the fill of the paper.

    Args:
        source: the sequences.
        threads: sequences read at the same time.
        advance: called with the number of sequences just read.

    Raises:
        RuntimeError: a file cannot be read or does not hold finite numbers; names it.
    """

    def total(sample_id: int) -> tuple[npt.NDArray[np.float64], int]:
        try:
            features = source.features(sample_id)
            check_finite(source.name(sample_id), features, np.arange(len(features)))
        except (OSError, ValueError) as error:
            raise RuntimeError(f"cannot load sequence {sample_id}: {error}") from error
        return features.sum(axis=0, dtype=np.float64), len(features)

    sums, frames = np.zeros(source.channels), 0
    with ThreadPoolExecutor(threads) as pool:
        for part, count in pool.map(total, range(len(source))):  # in order: the same sum for any number of threads
            sums += part
            frames += count
            if advance is not None:
                advance(1)
    return sums / frames
