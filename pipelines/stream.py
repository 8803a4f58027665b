"""Batches by position from a DALI pipeline that works ahead of its reader."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import broken, graph
from has_dali.pipelines.sampler import IdArray, Position, Sampler, labels_of
from has_dali.pipelines.skipping import Draws, Replacements, TooManyBrokenError, drawn
from has_dali.pipelines.spec import ImageSpec


class Feeder:
    """What the pipeline calls for its next batch; records what it gave out.

    It works ahead of the reader, who may never ask for a batch that cannot be fed: a file is gone, too many are broken,
    a schedule knows no further epoch. Such a failure is its end, kept in ``failure``, and no batch before it suffers.
    """

    def __init__(self, spec: ImageSpec, source: Any, sampler: Sampler, replacements: Replacements | None) -> None:
        self._spec, self._source, self._sampler, self._replacements = spec, source, sampler, replacements
        self.next: Position | None = (0, 0)
        self.policies: tuple[HideAndSeek | None, ...] = ()  # what the pipeline hides
        self.failure: Exception | None = None
        self.scheduled: deque[tuple[Draws, graph.Inputs]] = deque()  # with the inputs, which DALI does not copy

    def __call__(self) -> graph.Inputs:
        if self.next is None or self.failure is not None:
            raise StopIteration
        try:
            if self._spec.policies(self.next[0]) == self.policies:
                return self._fed(self.next)
        except Exception as error:
            self.failure = error
        raise StopIteration  # another policy needs another pipeline

    def move_to(self, position: Position | None) -> None:
        """Make ``position`` the next batch, as if nothing had failed; None: there is none."""
        self.next, self.failure = position, None

    def _fed(self, position: Position) -> graph.Inputs:
        draws = drawn(self._sampler, position)
        if self._replacements is not None:
            draws = self._replacements.resolve(draws)
        inputs = graph.graph_inputs(self._spec, self._source, draws.shown, draws.keys, draws.position[0])
        self.scheduled.append((draws, inputs))
        self.next = self._sampler.following(draws.position)
        return inputs


class BatchStream:
    """Any batch by position, computed ahead of the reader as long as positions follow one another.

    The pipeline is built at the first batch and lives as long as the stream, or until a policy schedule changes the
    policy. A position that does not follow drops the work under way, at most ``prefetch`` batches.

    Args:
        spec: what is computed.
        source: where the encoded images are: a ``FileSource``, or one that has ``contents``.
        sampler: which ids make up a batch.
        threads: DALI's worker threads.
        prefetch: batches computed ahead of the reader.
        device_id: CUDA device, or None for the CPU.
        error_budget: share of the samples that may be broken and are replaced; None: a broken one is an error.
    """

    def __init__(
        self,
        spec: ImageSpec,
        source: Any,
        sampler: Sampler,
        threads: int,
        prefetch: int,
        device_id: int | None,
        error_budget: float | None = None,
    ) -> None:
        self.spec, self._source, self._sampler = spec, source, sampler
        self._threads, self._prefetch, self._device_id = threads, prefetch, device_id
        self._probe = broken.Probe(spec, source, device_id)
        self.replacements: Replacements | None = None
        if error_budget is not None:
            self.replacements = Replacements(self._probe, sampler, len(source), error_budget)
        self.replaced = 0
        """Samples of the batches handed out that stood in for broken ones."""
        # The feeder is an object of its own: a pipeline that refers to its owner would never be freed.
        self._feeder = Feeder(spec, source, sampler, self.replacements)
        self._pipeline: Any = None

    def batch(self, position: Position) -> tuple[IdArray, IdArray, torch.Tensor]:
        """The ids, labels and images of one batch; work on the following ones goes on meanwhile.

        Raises:
            RuntimeError: a file cannot be read or decoded; names it. Or too many of them cannot.
            Exception: what the source, or a policy schedule, raised for this very batch.
        """
        known: frozenset[int] | None = None
        while True:
            try:
                done, images = self._next(position)
                break
            except TooManyBrokenError:
                self.close()
                raise
            except RuntimeError as error:
                found = self._broken_files()
                if not found:
                    raise
                # Known before this attempt began, so tried before it was shown: it might fail so for ever.
                again = known is not None and all(file.sample_id in known for file in found)
                if self.replacements is None or again:
                    raise RuntimeError(broken.message(found)) from error
                self.replacements.add(found)  # another attempt replaces them
                known = frozenset(self.replacements.broken)
            except BaseException:
                self.close()  # an interrupt may leave ids and images out of step
                raise
        self.replaced += done.replaced
        return done.ids, labels_of(self._source.labels, done.ids), images

    def close(self) -> None:
        """Drop the pipeline and the work under way; the next batch builds another."""
        self._pipeline = None
        self._feeder.scheduled.clear()
        self._feeder.move_to(None)  # the next batch seeks

    def _next(self, position: Position) -> tuple[Draws, torch.Tensor]:
        policies = self.spec.policies(position[0])
        if self._pipeline is None or policies != self._feeder.policies:
            self.close()
            self._feeder.policies = policies
            self._pipeline = self._built()
        self._seek(position)
        self._work_ahead()
        if not self._feeder.scheduled and self._feeder.failure is not None:
            raise self._feeder.failure  # now it is its turn
        images, colourless = self._pop_images()
        if colourless:
            raise RuntimeError(broken.COLOURLESS)  # then all of the batch is looked through, as after any failure
        done, _ = self._feeder.scheduled.popleft()
        try:
            self._work_ahead()
        except RuntimeError:
            self.close()  # this batch is whole; the one that failed will fail again when its turn comes
        return done, images

    def _built(self) -> Any:
        """A pipeline that the feeder feeds."""
        if self._device_id is not None:
            graph.warm_up(self.spec, self._feeder.policies[0], self._sampler.batch_size, self._device_id)
        return graph.build(
            self.spec, self._source, self._feeder, self._feeder.policies, self._sampler.batch_size, self._threads,
            self._prefetch, self._device_id,
        )  # fmt: skip

    def _seek(self, position: Position) -> None:
        scheduled = self._feeder.scheduled
        if scheduled and scheduled[0][0].position == position:
            return
        if not scheduled and self._feeder.next == position and self._feeder.failure is None:
            return
        while scheduled:
            self._pipeline.share_outputs()
            self._pipeline.release_outputs()
            scheduled.popleft()
        self._pipeline.reset()  # clears the end that the feeder signalled
        self._feeder.move_to(position)

    def _work_ahead(self) -> None:
        scheduled = self._feeder.scheduled
        while (count := len(scheduled)) < self._prefetch:
            self._pipeline.schedule_run()  # the first run after a reset starts as many batches as fit
            if len(scheduled) == count:
                return  # the feeder is at its end

    def _pop_images(self) -> tuple[torch.Tensor, bool]:
        """The oldest scheduled batch as a tensor on DALI's own memory; and whether ``colourless`` found any.

        No copy: the tensor holds a reference to DALI's buffer, which DALI does not reuse as long as it lives (a
        property of its dynamic executor; a test holds many batches at several depths).
        """
        if self._device_id is None:
            output, colourless = self._pipeline.share_outputs()
        else:
            stream = torch.cuda.current_stream(self._device_id)
            output, colourless = self._pipeline.share_outputs(cuda_stream=stream)
        images = torch.utils.dlpack.from_dlpack(output.as_tensor())
        found = bool(np.asarray(colourless.as_tensor()).any())
        self._pipeline.release_outputs()
        return images.movedim(-1, -3) if self.spec.channels_last else images, found

    def _broken_files(self) -> list[broken.BrokenFile]:
        """After a failure: the broken files of the oldest batch that has any."""
        scheduled = [draws for draws, _ in self._feeder.scheduled]
        self.close()  # DALI gives up a pipeline in which an operator failed
        for draws in scheduled:
            found = self._probe.among(draws.shown, draws.keys, draws.position[0])
            if found:
                return found
        return []
