"""The job that every image loader gets: from files to normalised training batches.

Shuffled files, random resized crop (area 0.08-1, aspect 3/4-4/3) with an antialiased linear filter, mirror, normalise,
float32 NCHW torch tensors with int64 labels, and Hide-and-Seek where a peer says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores
from has_dali.pipelines.sources import FileSource

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
BATCH_SIZE = 64
# Files are listed again until an epoch has this many, for all peers alike: a small set would otherwise measure
# the ends of epochs, which a real training set hardly has.
EPOCH_IMAGES = 8192
_MOST_FILES = 4096


@dataclass(frozen=True)
class Job:
    """What every peer gets."""

    files: tuple[str, ...]
    labels: tuple[int, ...]
    policy: HideAndSeek
    batch_size: int
    threads: int
    """Threads or worker processes."""
    size: int = 224
    prefetch: int = 2
    """Batches ahead, for loaders that have such an option."""


@dataclass(frozen=True)
class LoaderPeer:
    """One loader: ``open(job)`` gives an endless iterator of batches {"image", "label"}.

    Args:
        key: name within tables.
        label: what people read.
        open: may raise ``harness.Unavailable``.
        hides: applies Hide-and-Seek.
        delivers: gives finished batches, not just work.
        stays_open: it is idle between its turns, so it need not be closed and opened again.
        requires: modules that must import.
        threads_of: key of the peer whose best number of threads it takes over; "" to find its own.
        one_per_core: it refuses more threads than there are cores.
    """

    key: str
    label: str
    open: Callable[[Job], AbstractContextManager[Iterator[Any]]]
    hides: bool = False
    delivers: bool = True
    stays_open: bool = True
    requires: tuple[str, ...] = ()
    kind: str = "peer"
    threads_of: str = ""
    one_per_core: bool = False

    def threads(self, asked: int) -> int:
        """The threads that it runs where ``asked`` are asked for."""
        return min(asked, available_cores()) if self.one_per_core else asked


def some_of(source: FileSource, most: int = _MOST_FILES) -> FileSource:
    """``source``, or ``most`` files spread evenly over it: what is measured must fit the page cache."""
    if len(source) <= most:
        return source
    ids = [i * len(source) // most for i in range(most)]
    return FileSource([source.path(i) for i in ids], source.labels[ids], source.classes)


def job_for(
    source: FileSource, policy: HideAndSeek, threads: int, batch_size: int = BATCH_SIZE, size: int = 224
) -> Job:
    """The job on all files of a source."""
    repeats = -(-max(EPOCH_IMAGES, batch_size) // len(source))
    files = tuple(source.path(sample_id) for sample_id in range(len(source)))
    labels = tuple(int(label) for label in source.labels)
    return Job(files * repeats, labels * repeats, policy, batch_size, threads, size)


def warm_page_cache(job: Job) -> None:
    """Read every file once, so that no peer pays for the disk."""
    for file in sorted(set(job.files)):
        with open(file, "rb") as content:
            content.read()
