"""Images that lie in no file in one piece, written one after the other into a flat file of the cache."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from has_dali.console import atomic_file

_LOG = logging.getLogger(__name__)

Bytes: TypeAlias = "bytes | npt.NDArray[np.uint8]"


def write_flat(path: Path, pieces: Iterable[Bytes], expected: int) -> int:
    """Write pieces one after the other, in one step; returns their bytes.

    Args:
        path: the flat file; its folder is made.
        pieces: made while they are written.
        expected: about how many bytes there will be; asked for before the first is written.

    Raises:
        OSError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    size = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < expected:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with atomic_file(path) as file:
            for piece in pieces:
                size += file.write(piece if isinstance(piece, bytes) else piece.data)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(path.parent).free
            raise OSError(
                f"{path.parent}: the disk is full: {expected / 1e9:.2f} GB of images need a copy in the cache,"
                f" {free / 1e9:.2f} GB are free; make room, or let HAS_DALI_CACHE name a folder on another disk"
            ) from None
        if error.errno is None:
            raise
        raise type(error)(
            f"{path.parent}: cannot be written ({error.strerror}), and these images need a copy in the cache;"
            " let HAS_DALI_CACHE name a folder that can"
        ) from None
    return size


def flat_size(path: Path) -> int | None:
    """The bytes of a flat file, or None where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


@contextlib.contextmanager
def alone(path: Path | Callable[[], Path]) -> Iterator[None]:
    """Wait until no other process is in such a block with the same ``path``: the ranks of a job start at once.

    What a process that was killed left of ``path`` is removed first. Where nothing can be written, or the file system
    knows no locks, nobody waits: processes then do the same work, each for itself.

    Args:
        path: a file of the cache, or what gives it.
    """
    with contextlib.ExitStack() as stack:
        try:
            path = path if isinstance(path, Path) else path()
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path.with_name(f"{path.name}.lock"), "wb"))
            fcntl.flock(file, fcntl.LOCK_EX)
            for part in path.parent.glob(f".{path.name}.*.part"):  # nobody else writes it now
                part.unlink(missing_ok=True)
        except OSError as error:
            _LOG.info("cache: nothing is locked (%s)", error)
        yield
