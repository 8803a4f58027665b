"""Batches by position from a DALI pipeline that works ahead of its reader."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from has_dali.pipelines import broken, graph
from has_dali.pipelines.sampler import Position, Sampler
from has_dali.pipelines.sources import FileSource
from has_dali.pipelines.spec import ImageSpec

IdArray: TypeAlias = "npt.NDArray[np.int64]"


@dataclass(frozen=True)
class Scheduled:
    """A batch that the pipeline is working on."""

    position: Position
    ids: IdArray
    keys: IdArray


class Feeder:
    """What the pipeline calls for its next batch; records what it gave out."""

    def __init__(self, spec: ImageSpec, source: FileSource, sampler: Sampler) -> None:
        self._spec, self._source, self._sampler = spec, source, sampler
        self.next: Position | None = (0, 0)
        self.scheduled: deque[Scheduled] = deque()

    def __call__(self) -> graph.Inputs:
        if self.next is None:
            raise StopIteration
        batch = Scheduled(self.next, self._sampler.ids(*self.next), self._sampler.keys(*self.next))
        self.scheduled.append(batch)
        self.next = self._sampler.following(batch.position)
        return graph.graph_inputs(self._spec, self._source, batch.ids, batch.keys, batch.position[0])


class BatchStream:
    """Any batch by position, computed ahead of the reader as long as positions follow one another.

    The pipeline is built at the first batch and lives as long as the stream. A position that does not follow drops
    the work under way, at most ``prefetch`` batches.

    Args:
        spec: what is computed.
        source: where the files are.
        sampler: which ids make up a batch.
        threads: DALI's worker threads.
        prefetch: batches computed ahead of the reader.
        device_id: CUDA device, or None for the CPU.
    """

    def __init__(
        self,
        spec: ImageSpec,
        source: FileSource,
        sampler: Sampler,
        threads: int,
        prefetch: int,
        device_id: int | None,
    ) -> None:
        self.spec, self._source, self._sampler = spec, source, sampler
        self._threads, self._prefetch, self._device_id = threads, prefetch, device_id
        # The feeder is an object of its own: a pipeline that refers to its owner would never be freed.
        self._feeder = Feeder(spec, source, sampler)
        self._pipeline: Any = None

    def batch(self, position: Position) -> tuple[IdArray, IdArray, torch.Tensor]:
        """The ids, labels and images of one batch; work on the following ones goes on meanwhile.

        Raises:
            RuntimeError: a file cannot be read or decoded; names it.
        """
        if self._pipeline is None:
            if self._device_id is not None:
                graph.warm_up(self.spec, self._sampler.batch_size, self._device_id)
            self._pipeline = graph.build(
                self.spec, self._feeder, self._sampler.batch_size, self._threads, self._prefetch, self._device_id
            )
        try:
            self._seek(position)
            self._work_ahead()
            images = self._pop_images()
            done = self._feeder.scheduled.popleft()
            self._work_ahead()
        except RuntimeError as error:
            found = self._broken_files()
            if found:
                raise RuntimeError(broken.message(found)) from error
            raise
        except BaseException:
            self.close()  # an interrupt may leave ids and images out of step
            raise
        return done.ids, self._source.labels[done.ids], images

    def close(self) -> None:
        """Drop the pipeline and the work under way; the next batch builds another."""
        self._pipeline = None
        self._feeder.scheduled.clear()
        self._feeder.next = None  # the next batch seeks

    def _seek(self, position: Position) -> None:
        scheduled = self._feeder.scheduled
        if (scheduled[0].position if scheduled else self._feeder.next) == position:
            return
        while scheduled:
            self._pipeline.share_outputs()
            self._pipeline.release_outputs()
            scheduled.popleft()
        self._pipeline.reset()  # clears the end that a feeder of evaluation data signalled
        self._feeder.next = position

    def _work_ahead(self) -> None:
        scheduled = self._feeder.scheduled
        while (count := len(scheduled)) < self._prefetch:
            self._pipeline.schedule_run()  # the first run after a reset starts as many batches as fit
            if len(scheduled) == count:
                return  # the feeder is at its end

    def _pop_images(self) -> torch.Tensor:
        """The oldest scheduled batch as a tensor on DALI's own memory.

        No copy: the tensor holds a reference to DALI's buffer, which DALI does not reuse as long as it lives (a
        property of its dynamic executor; a test holds many batches at several depths).
        """
        if self._device_id is None:
            (output,) = self._pipeline.share_outputs()
        else:
            stream = torch.cuda.current_stream(self._device_id)
            (output,) = self._pipeline.share_outputs(cuda_stream=stream)
        images = torch.utils.dlpack.from_dlpack(output.as_tensor())
        self._pipeline.release_outputs()
        return images.permute(0, 3, 1, 2) if self.spec.channels_last else images

    def _broken_files(self) -> list[broken.BrokenFile]:
        """After a failure: the broken files of the oldest batch that has any."""
        scheduled = list(self._feeder.scheduled)
        self.close()  # DALI gives up a pipeline in which an operator failed
        for entry in scheduled:
            found = broken.broken_files(self.spec, self._source, entry.ids, entry.keys, entry.position[0])
            if found:
                return found
        return []
