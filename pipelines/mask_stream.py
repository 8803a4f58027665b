"""Label masks of batches by position, cut as their images are, by threads that work ahead of the reader.

Nothing is shared with the image pipeline: the boxes come from the same plan, a pure function of (size, key, epoch).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from has_dali.functional import hide
from has_dali.pipelines import mask_files
from has_dali.pipelines.plan import EvalPlan
from has_dali.pipelines.policy_schedule import Policy, policy_at
from has_dali.pipelines.sampler import IdArray, Position, Sampler

Sides: TypeAlias = Callable[[int], tuple[int, int]]


@dataclass(frozen=True)
class MaskSpec:
    """What decides a mask's pixels, apart from its file.

    Args:
        plan: the images' plan; None: whole masks at their own size.
        size: side of the output.
        policy: what is hidden in masks; None: nothing.
        void: what padding and hidden cells show.
    """

    plan: Any
    size: int
    policy: Policy | None = None
    void: int = mask_files.VOID


class MaskReader:
    """One mask at a time; knows files, not batches.

    Args:
        spec: what is computed.
        images: names of the images, for messages.
        masks: paths, by sample id.
        sides: height and width of an image by sample id, after EXIF orientation.
    """

    def __init__(self, spec: MaskSpec, images: Callable[[int], str], masks: Sequence[str], sides: Sides) -> None:
        self.spec, self._images, self._masks, self._sides = spec, images, masks, sides
        self._agree = np.zeros(len(masks), bool)  # sizes compared already: an image's header is read once

    def read(self, sample_id: int, key: int, epoch: int, out: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
        """The mask of one sample, written to ``out`` (size, size), or an array of its own for whole masks.

        A negative id is padding, whose mask is all ``void`` and needs ``out``.

        Raises:
            ValueError: the mask cannot be read, or has another size than its image; names the files.
        """
        if sample_id < 0:
            assert out is not None, "padding has no size of its own"
            out.fill(self.spec.void)
            return out
        mask = mask_files.read_mask(self._masks[sample_id])
        self._check_size(sample_id, mask)
        if out is None:
            out = mask.astype(np.int64)
        else:
            rows, columns = self._pixels(mask.shape, key, epoch)
            mask_files.sample_mask(mask, rows, columns, out, self.spec.void)
        policy = policy_at(self.spec.policy, epoch)
        if policy is not None:
            one = out[None, None]
            hide(one, policy, np.array([key]), epoch, fill=self.spec.void, out=one)
        return out

    def _check_size(self, sample_id: int, mask: npt.NDArray) -> None:
        if self._agree[sample_id]:
            return
        sides = self._sides(sample_id)
        if sides != mask.shape:
            raise ValueError(
                mask_files.differing_sizes(self._images(sample_id), self._masks[sample_id], sides, mask.shape)
            )
        self._agree[sample_id] = True

    def _pixels(self, shape: tuple[int, ...], key: int, epoch: int) -> tuple[IdArray, IdArray]:
        """Rows and columns that the output's pixels show."""
        plan, size = self.spec.plan, self.spec.size
        if isinstance(plan, EvalPlan):
            start, _, first, last = (values[0] for values in plan(np.array([shape])))
            rows, columns = (
                start[axis] + mask_files.region_pixels(float(first[axis]), float(last[axis]), size) for axis in (0, 1)
            )
            return rows, columns
        start, box, flips = (values[0] for values in plan(np.array([shape]), np.array([key]), np.array([epoch])))
        rows, columns = (mask_files.box_pixels(int(start[axis]), int(box[axis]), size) for axis in (0, 1))
        return rows, columns[::-1] if flips else columns


@dataclass(frozen=True)
class Scheduled:
    """A batch of masks that threads are working on."""

    position: Position
    ids: IdArray
    masks: torch.Tensor | None
    parts: list[Future[npt.NDArray[np.int64]] | None]  # None: padding of whole images, whose size nobody knows yet


class MaskStream:
    """Masks of any batch by position, computed ahead of the reader as long as positions follow one another.

    Pillow decodes without Python's lock, so threads share the work.

    Args:
        reader: reads one mask.
        sampler: which ids make up a batch.
        threads: masks computed at the same time.
        prefetch: batches computed ahead of the reader.
        pinned: put batches into memory from which a CUDA device can copy while the host goes on.
    """

    def __init__(self, reader: MaskReader, sampler: Sampler, threads: int, prefetch: int, pinned: bool = False) -> None:
        self._reader, self._sampler = reader, sampler
        self._prefetch, self._pinned = prefetch, pinned
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="has_dali_masks")
        self._next: Position | None = None
        self._scheduled: deque[Scheduled] = deque()

    def work_ahead(self, position: Position) -> None:
        """Start on the batch at ``position`` and those that follow, unless that is under way already."""
        if not self._scheduled or self._scheduled[0].position != position:
            self.close()
            self._next = position
        while self._next is not None and len(self._scheduled) <= self._prefetch:
            self._scheduled.append(self._submitted(self._next))
            self._next = self._sampler.following(self._next)

    def batch(self, position: Position, ids: IdArray, sides: tuple[int, ...]) -> torch.Tensor:
        """Masks (N, size, size) int64 of the images that were given out as batch ``position``.

        Args:
            position: epoch and index of the batch.
            ids: (N,) the samples in it, and what their boxes were drawn for: the sampler's, but for those that took
                the place of a broken file, and padding (-1), whose mask is all ``void``.
            sides: height and width of the images.

        Raises:
            ValueError: a mask cannot be read or does not fit its image; names the files.
        """
        self.work_ahead(position)
        entry = self._scheduled.popleft()
        try:
            rows = []
            for n, part in enumerate(entry.parts):
                if part is not None and entry.ids[n] == ids[n]:
                    rows.append(part.result())
                else:
                    if part is not None:
                        part.exception()  # wait: it may still be writing to its row
                    out = np.empty(sides, np.int64) if entry.masks is None else entry.masks[n].numpy()
                    rows.append(self._reader.read(int(ids[n]), int(ids[n]), position[0], out))
        except BaseException:
            self.close()  # the next call computes its batch anew
            raise
        return torch.from_numpy(rows[0])[None] if entry.masks is None else entry.masks

    def close(self) -> None:
        """Drop the work under way; the next batch starts anew."""
        for entry in self._scheduled:
            for part in entry.parts:
                if part is not None:
                    part.cancel()
        self._scheduled.clear()
        self._next = None

    def _submitted(self, position: Position) -> Scheduled:
        ids = self._sampler.ids(*position)
        size = self._reader.spec.size
        masks = None
        if self._reader.spec.plan is not None:
            masks = torch.empty((len(ids), size, size), dtype=torch.int64, pin_memory=self._pinned)
        rows = [None] * len(ids) if masks is None else list(masks.numpy())
        parts = [
            None
            if sample_id < 0 and row is None
            else self._pool.submit(self._reader.read, sample_id, sample_id, position[0], row)
            for sample_id, row in zip(ids.tolist(), rows, strict=True)
        ]
        return Scheduled(position, ids, masks, parts)
