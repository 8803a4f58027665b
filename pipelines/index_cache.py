"""Indexes of data sets, kept between runs: what a scan of a folder or of shards found.

They lie in ``$HAS_DALI_CACHE`` (by default ``~/.cache/has_dali``), one ``.npz`` each, named by kind and absolute path.
Whoever keeps one stores beside it what tells whether it still holds. The cache may be deleted at any time; where it
cannot be written, data is scanned again each time.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from has_dali.console import atomic_file

_LOG = logging.getLogger(__name__)

CACHE_VERSION = 2
# A file or folder changed this shortly before it was looked at may have changed again since, within one tick of its
# clock: what was found is not kept.
SETTLED_NS = 2_000_000_000
_NAMES = "cache_names"  # of an entry's arrays: a damaged directory of the zip file may pass one over

Arrays: TypeAlias = dict[str, npt.NDArray]


def cache_folder() -> Path:
    """Where caches lie; the folder need not exist.

    Raises:
        OSError: this user has no home, and ``HAS_DALI_CACHE`` names no other place.
    """
    named = os.environ.get("HAS_DALI_CACHE", "")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "has_dali"
    except RuntimeError:
        raise OSError("cache: this user has no home; let HAS_DALI_CACHE name a folder that can be written") from None


def index_path(key: str) -> Path:
    """The file of a cache entry.

    Raises:
        OSError: see ``cache_folder``.
    """
    return cache_folder() / "index" / f"{key}.npz"


def cache_key(kind: str, paths: Sequence[str], options: str = "") -> str:
    """The name of a cache entry: kind and 32 hex digits of absolute paths and options."""
    digest = hashlib.sha256(options.encode())
    for path in paths:
        digest.update(b"\0" + os.fsencode(os.path.abspath(path)))
    return f"{kind}-{digest.hexdigest()[:32]}"


def load_index(key: str) -> Arrays | None:
    """The arrays stored under ``key``, or None where there are none, or only ones that cannot be read."""
    try:
        path = index_path(key)
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if int(arrays.pop("cache_version")) != CACHE_VERSION:
            return None
        if arrays.pop(_NAMES).tolist() != sorted(arrays):
            raise ValueError("arrays are missing")
        return arrays
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged zip file raises almost anything
        _LOG.info("cached index %s: not readable (%s); made anew", key, error)
        return None


def save_index(key: str, arrays: Arrays) -> bool:
    """Store arrays under ``key`` in one step; False, and a line in the log, where the cache cannot be written."""
    notes = {"cache_version": np.array(CACHE_VERSION), _NAMES: np.array(sorted(arrays), np.str_)}
    try:
        path = index_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            np.savez(file, allow_pickle=False, **notes, **arrays)
    except OSError as error:
        _LOG.info("no index cached, so the next run scans the data again: %s", error)
        return False
    return True


def file_stamps(paths: Sequence[str]) -> npt.NDArray[np.int64]:
    """(F, 4) int64, what changes with the contents of each file: see ``stamp_of``; column 0 is its size in bytes.

    Raises:
        OSError: a file is missing or cannot be read; names it.
    """
    stamps = np.empty((len(paths), 4), np.int64)
    for row, path in zip(stamps, paths, strict=True):
        try:
            if not os.path.isfile(path) and os.path.exists(path):
                raise IsADirectoryError(f"data: {path}: is no file")
            row[:] = stamp_of(path)
        except FileNotFoundError:
            raise FileNotFoundError(f"data: {path}: no such file") from None
        except PermissionError:
            raise PermissionError(f"data: {path}: cannot be read; check its permissions") from None
    return stamps


def stamp_of(path: str) -> tuple[int, int, int, int]:
    """Size, times of modification and of the last change of any kind in ns, and inode of a file or folder.

    The modification time alone does not do: copying tools and unpackers set it.
    """
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & (1 << 63) - 1


def settled(stamps: npt.NDArray[np.int64], when: int) -> bool:
    """Whether all had been left alone for two seconds at ``when``, ``time.time_ns()`` before the stamps were taken."""
    return bool(stamps[:, 1:3].max() < when - SETTLED_NS)
