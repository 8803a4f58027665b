"""This project's loader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from has_dali.bench import timing
from has_dali.bench.peers.loader_job import AREA, ASPECT, Job


@contextmanager
def with_has(job: Job) -> Iterator[Iterator[Any]]:
    """Crop, resize, mirror, normalise and hide in one pass."""
    yield _batches(job, hides=True)


@contextmanager
def without_has(job: Job) -> Iterator[Iterator[Any]]:
    """The same pass without hiding."""
    yield _batches(job, hides=False)


def _batches(job: Job, *, hides: bool) -> Iterator[Any]:
    from has_dali.pipelines import image_loader

    loader = image_loader(
        job.files,
        job.batch_size,
        train=True,
        policy=job.policy if hides else None,
        size=job.size,
        device="cpu",
        threads=job.threads,
        labels=job.labels,
        scale=AREA,
        ratio=ASPECT,
        prefetch=job.prefetch,
    )
    return timing.endless(loader)
