"""Feature sequences with temporal Hide-and-Seek, for recognition and localisation in time; resumable at any batch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores
from has_dali.pipelines import options
from has_dali.pipelines.device import choose_device
from has_dali.pipelines.epoch_position import EpochPosition
from has_dali.pipelines.loader_state import check_state, state_of
from has_dali.pipelines.policy_schedule import Policy, PolicySchedule
from has_dali.pipelines.sampler import Sampler, at_least
from has_dali.pipelines.sequence_batches import Parts, SequenceReader, SequenceSpec, WorkAhead, feature_mean
from has_dali.pipelines.sequence_labels import checked_sequence_labels
from has_dali.pipelines.sequence_source import SequenceSource, open_sequences
from has_dali.pipelines.sources import digest_of

_LOG = logging.getLogger(__name__)
_LONGEST = 2**31 - 1


class SequenceLoader:
    """Iterable over the batches of one epoch; iterating again gives the next epoch. Made by ``sequence_loader``.

    A batch is a dict: ``sequence`` (N, C, T) float32; ``label``, see ``sequence_loader``; ``id`` (N,) int64, -1 for
    padding; ``length`` (N,) int64, the time steps that each sequence has in its file. Epochs, early exits and states
    follow the rules of ``ImageLoader``.

    Args:
        source: the sequences.
        batches: gives batches by position.
        sampler: the order.
        described: all that decides the batches beside seed and data, JSON-able.
        data: fingerprint of sequences and labels.
        fill_value: (C,) float32 or None.
        device: where batches go.
    """

    def __init__(
        self,
        source: SequenceSource,
        batches: WorkAhead,
        sampler: Sampler,
        described: Mapping[str, Any],
        data: str,
        fill_value: npt.NDArray[np.float32] | None,
        device: torch.device,
    ) -> None:
        self.source, self.sample_order, self.device = source, sampler, device
        self.settings = dict(described)
        """What decides the batches beside seed and data, as it stands in the state."""
        self.fill_value = fill_value
        """(C,) float32: what hidden steps and padding show, the data's mean unless it was given; None: not needed."""
        self._data, self._batches = data, batches
        self._position = EpochPosition(sampler)
        self._batches_given, self._samples_given = 0, 0

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        return len(self.sample_order)

    def __repr__(self) -> str:
        """The data and what is done to it."""
        return f"SequenceLoader({len(self.source)} sequences, {len(self)} batches, {self.settings})"

    @property
    def epoch(self) -> int:
        """The epoch under way or left early; after a complete loop, the next one."""
        return self._position.epoch

    @property
    def next_epoch(self) -> int:
        """The epoch that a new loop takes."""
        return self._position.next_epoch

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one to be iterated, from its start, or from the position loaded within it.

        Raises:
            ValueError, TypeError: the epoch is no integer from 0 to 2**32 - 1.
        """
        self._position.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Position of the next batch, and what it belongs to, as ``ImageLoader.state_dict``."""
        epoch, samples = self._position.consumed()
        return state_of(self.sample_order.seed, epoch, samples, self._data, self.settings)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a position that ``state_dict`` gave, over the same data with the same settings.

        Raises:
            ValueError: the state is of another kind, seed, data or settings; names what differs.
        """
        self._position.move_to(*check_state(state, self.sample_order.seed, self._data, self.settings))

    def report(self) -> dict[str, Any]:
        """What this loader handed out on this rank, JSON-able: ``batches`` and ``samples``, without padding."""
        return {"batches": self._batches_given, "samples": self._samples_given}

    def __iter__(self) -> Iterator[Parts]:
        """The batches of the next epoch, or the rest of the epoch that ``load_state_dict`` pointed into."""
        return self._loop(self._position.begin())

    def _loop(self, loop: int) -> Iterator[Parts]:
        while (position := self._position.following()) is not None:
            batch = self._batches.batch(position)
            self._position.advance()
            self._batches_given += 1
            self._samples_given += int((batch["id"] >= 0).sum())
            if self.device.type != "cpu":
                batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
            yield batch
            del batch
            self._position.check(loop)


def sequence_loader(
    data: Any,
    batch_size: int,
    *,
    train: bool,
    length: int | None = None,
    labels: Any = None,
    label_kind: str | None = None,
    policy: Policy | None = None,
    fill_value: str | float | Sequence[float] = "mean",
    layout: str = "TC",
    key: str | None = None,
    device: str | torch.device = "auto",
    threads: int | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    prefetch: int = 4,
) -> SequenceLoader:
    """Batches of feature sequences, sampled uniformly in time, with segments hidden in training.

    Training: shuffled; an incomplete last batch is dropped. Evaluation: in order, nothing hidden, every sequence once.
    Masks depend on (policy seed, epoch, id) only: a segment of ``patch_sizes`` time steps is hidden with ``p_hide``,
    all its features at once (paper, section 3.2).

    Args:
        data: a folder of ``.npy``, ``.npz``, ``.h5`` or ``.hdf5`` files, by name, or with one folder of them per class;
            a list of such files; one ``.npz`` or HDF5 file whose arrays are the sequences; or a list of arrays.
        batch_size: sequences per batch on this rank.
        train: training or evaluation, see above.
        length: time steps T of a batch, see ``sample_indices`` for the rule; None: all of each sequence, padded with
            the fill value to the longest of the batch.
        labels: one integer per sequence (``label`` (N,) int64); (N, K) numbers for several classes each (``label``
            (N, K) float32); or one array per sequence with an integer, or K numbers, for each of its time steps
            (``label`` (N, T) int64 or (N, T, K) float32, sampled as the features are, -1 or 0 in padding). None: those
            of class folders, else -1.
        label_kind: "class", "multi-hot" or "frames", where the labels alone do not tell.
        policy: what to hide, in training only, with segment lengths as patch sizes; None hides nothing.
        fill_value: what hidden steps show: "mean": the mean of each feature over all time steps of ``data``, computed
            here; or one number; or one per feature. Evaluation data, padded, takes the training loader's
            ``fill_value``.
        layout: of the arrays: "TC" (time, features) or "CT".
        key: the array's name in ``.npz`` and HDF5 files that hold several.
        device: "cpu", "cuda:N", or "auto": the GPU where there is one.
        threads: batches read at the same time; None: one per core that this process may use.
        seed: of the order (the policy has its own).
        rank: this process, from 0.
        world_size: number of processes; together they see each sequence once.
        prefetch: batches computed ahead.

    Raises:
        OSError: a file or folder is missing.
        ValueError, TypeError: an argument is out of range, or labels or files do not fit together.
        ImportError: HDF5 without h5py.
        RuntimeError: here for the mean, or while iterating: a file cannot be read, or holds NaN; names it.

    Example:
        >>> from has_dali import HideAndSeek
        >>> data = [np.ones((frames, 5), np.float32) for frames in (30, 41, 12, 25)]
        >>> policy = HideAndSeek((10,), p_hide=0.5)
        >>> loader = sequence_loader(data, 2, train=True, length=20, labels=[0, 1, 1, 0], policy=policy, device="cpu")
        >>> [(tuple(batch["sequence"].shape), tuple(batch["label"].shape)) for batch in loader]
        [((2, 5, 20), (2,)), ((2, 5, 20), (2,))]
    """
    options.check_flags(train=train)
    if policy is not None and not isinstance(policy, (HideAndSeek, PolicySchedule)):
        raise TypeError(f"policy={policy!r}: expected a HideAndSeek, a PolicySchedule or None")
    if policy is not None and not train:
        raise ValueError("policy: evaluation hides nothing (train=False); leave policy out")
    steps = None if length is None else at_least("length", length, 1, _LONGEST)
    workers = at_least("threads", available_cores() if threads is None else threads, 1)
    ahead = at_least("prefetch", prefetch, 1)
    source = open_sequences(data, layout, key)
    sampler = Sampler(len(source), batch_size, train=train, seed=seed, rank=rank, world_size=world_size)
    known = checked_sequence_labels(labels, label_kind, source)
    fill = None
    if policy is not None or steps is None:
        fill = _fill(fill_value, source, workers)
    chosen, reason = choose_device(device)
    _LOG.info("sequence_loader: %d sequences of %d features to %s (%s)", len(source), source.channels, chosen, reason)
    reader = SequenceReader(SequenceSpec(steps, policy, fill), source, known, sampler, chosen.type == "cuda")
    described = {
        "train": train,
        "global_batch": sampler.global_batch,
        "length": steps,
        "policy": None if policy is None else policy.to_dict(),
        "fill_value": None if fill is None else digest_of(fill),
        "label_kind": known.kind,
    }
    data_digest = digest_of(f"{source.fingerprint()}{known.fingerprint()}".encode())
    batches = WorkAhead(reader.batch, sampler, workers, ahead)
    plain = json.loads(json.dumps(described))  # as it is read back from a state
    return SequenceLoader(source, batches, sampler, plain, data_digest, fill, chosen)


def _fill(fill_value: Any, source: SequenceSource, threads: int) -> npt.NDArray[np.float32]:
    if isinstance(fill_value, str):
        if fill_value != "mean":
            raise ValueError(f"fill_value={fill_value!r}: expected 'mean', a number, or one number per feature")
        _LOG.info("sequence_loader: computing the mean of %d features; give fill_value to skip it", source.channels)
        return feature_mean(source, threads).astype(np.float32)
    try:
        values = np.asarray(fill_value, np.float32)
    except (TypeError, ValueError):
        values = np.empty((0, 0), np.float32)
    if values.shape not in ((), (source.channels,)) or not np.isfinite(values).all():
        raise ValueError(
            f"fill_value: expected 'mean', a finite number, or {source.channels} of them, one per feature, got shape"
            f" {np.shape(fill_value)}"
        )
    return np.broadcast_to(values, (source.channels,)).copy()
