"""Batches of torch tensors, epoch by epoch, from whatever computes them; resumable at any batch."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from has_dali.pipelines.epoch_position import EpochPosition
from has_dali.pipelines.loader_state import check_state, settings_of, state_of
from has_dali.pipelines.sampler import PADDING, BalancedSampler, Position, Sampler
from has_dali.pipelines.skipping import report_of
from has_dali.pipelines.spec import ImageSpec

Batch: TypeAlias = dict[str, torch.Tensor]


class Stream(Protocol):
    """Batches by position, computed ahead of the reader.

    One that replaces broken samples has ``replacements``, which knows them, and ``replaced``, how many stood in.
    """

    spec: ImageSpec

    def batch(self, position: Position) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], torch.Tensor]:
        """The ids, labels and images of one batch."""


class ImageLoader:
    """Iterable over the batches of one epoch; iterating again gives the next epoch. Made by ``image_loader``.

    A batch is a dict: ``image`` (N, 3, size, size), or (N, k, 3, size, size) with ``multi_view=k``; ``label`` (N,)
    int64, ``id`` (N,) int64. Its tensors are the reader's to keep: no later batch overwrites them. Class-balanced
    batches also hold ``key`` (N,) int64: what crops and masks were drawn for, which tells apart the draws of a sample
    that comes more than once in an epoch. An id and label of -1 are padding: see ``image_loader``.

    As with torch's DataLoader, a new loop starts afresh: after leaving a loop early, the next one takes the
    following epoch. Only ``load_state_dict`` continues in the middle. One loop at a time: a new one ends the older.
    """

    def __init__(self, stream: Stream, source: Any, sampler: Sampler, device: torch.device) -> None:
        # Not "sampler": trainers that find an attribute of that name take the loader for torch's own.
        self.source, self.sample_order, self.device = source, sampler, device
        self.spec = stream.spec
        self.settings = settings_of(stream.spec, sampler)
        """What decides the batches beside seed and data, as it stands in the state."""
        self._stream = stream
        self._batches_given, self._samples_given = 0, 0
        self._position = EpochPosition(sampler)

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        return len(self.sample_order)

    def __repr__(self) -> str:
        """The data and everything that decides what the images look like."""
        batches = f"{len(self)} batches of {self.sample_order.batch_size}"
        return f"ImageLoader({len(self.source)} images, {batches}, {self.spec})"

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch, or the rest of the epoch that ``load_state_dict`` pointed into."""
        return self._batches(self._position.begin())

    @property
    def epoch(self) -> int:
        """The epoch under way or left early; after a complete loop, the next one."""
        return self._position.epoch

    @property
    def next_epoch(self) -> int:
        """The epoch that a new loop takes: the one loaded or not begun, or the one after a loop left early."""
        return self._position.next_epoch

    @property
    def skips(self) -> bool:
        """Whether broken samples are replaced, as ``on_error="skip"`` has it; never with images in memory."""
        return getattr(self._stream, "replacements", None) is not None

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one to be iterated, from its start, or from the position loaded within it.

        Raises:
            ValueError, TypeError: the epoch is no integer from 0 to 2**32 - 1.
        """
        self._position.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Position of the next batch, and what it belongs to, JSON-able; a state is good for every rank.

        ``samples`` is what all ranks together consumed of ``epoch``, in whole global batches; batches computed ahead
        but not handed out do not count. After the last one of an epoch the position is the start of the next.
        ``data`` is the fingerprint of the source, ``settings`` all that decides the batches beside it and ``seed``,
        ``fingerprint`` a digest of both.
        """
        epoch, samples = self.position()
        return state_of(self.sample_order.seed, epoch, samples, self.fingerprint, self.settings)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a position that ``state_dict`` gave, over the same data with the same settings.

        The number of processes may differ if the global batch (batch_size * world_size) is the same.

        Raises:
            ValueError: the state is of another kind, seed, data or settings, or of no batch; names what differs.
        """
        epoch, samples = check_state(state, self.sample_order.seed, self.fingerprint, self.settings)
        self.move_to(epoch, samples)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The source's, computed once: of a million paths it takes 0.4 s."""
        digest: str = self.source.fingerprint()
        return digest

    def position(self) -> tuple[int, int]:
        """Epoch of the next batch, and the samples that all ranks together consumed of it."""
        return self._position.consumed()

    def move_to(self, epoch: int, samples: int) -> None:
        """Make the batch at a ``position`` the next one, unchecked whether it was this loader's.

        Raises:
            ValueError: there is no such batch.
        """
        self._position.move_to(epoch, samples)

    def report(self) -> dict[str, Any]:
        """What this loader handed out on this rank, and what it could not load, since it was made; JSON-able.

        ``batches``; ``samples``, without padding; ``replaced``: draws of broken samples that showed another one, with
        ``on_error="skip"``; ``broken``: a list of {"id", "name", "reason"}, each sample once, those found while
        working ahead included.
        """
        stream: Any = self._stream
        replaced = getattr(stream, "replaced", 0)
        return report_of(self._batches_given, self._samples_given, replaced, getattr(stream, "replacements", None))

    def _batches(self, loop: int) -> Iterator[Batch]:
        while (position := self._position.following()) is not None:
            ids, labels, images = self._stream.batch(position)
            self._position.advance()
            self._batches_given += 1
            self._samples_given += int((ids != PADDING).sum())
            batch = {"image": images, "label": self._tensor(labels), "id": self._tensor(ids.copy())}
            if isinstance(self.sample_order, BalancedSampler):
                batch["key"] = self._tensor(self.sample_order.keys_of(ids, position[1]))
            yield batch
            del batch, images  # else they would live on until the next batch is there
            self._position.check(loop)

    def _tensor(self, values: npt.NDArray[np.int64]) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        # Even a .to() that does nothing lets other threads take Python's lock, and the one that works ahead keeps it.
        return tensor if self.device.type == "cpu" else tensor.to(self.device, non_blocking=True)
