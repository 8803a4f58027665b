"""Indexes of data sets, kept between runs: what a scan of a folder or of shards found.

They lie in ``$HAS_DALI_CACHE`` (by default ``~/.cache/has_dali``), one ``.npz`` each, named by kind and absolute path.
Whoever keeps one stores beside it what tells whether it still holds. The cache may be deleted at any time; where it
cannot be written, data is scanned again each time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from has_dali.console import atomic_file

_LOG = logging.getLogger(__name__)

CACHE_VERSION = 1

Arrays: TypeAlias = dict[str, npt.NDArray]


def cache_folder() -> Path:
    """Where caches lie; the folder need not exist."""
    named = os.environ.get("HAS_DALI_CACHE", "")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "has_dali"


def cache_key(kind: str, paths: Sequence[str], options: str = "") -> str:
    """The name of a cache entry: kind and 32 hex digits of absolute paths and options."""
    digest = hashlib.sha256(options.encode())
    for path in paths:
        digest.update(b"\0" + os.fsencode(os.path.abspath(path)))
    return f"{kind}-{digest.hexdigest()[:32]}"


def load_index(key: str) -> Arrays | None:
    """The arrays stored under ``key``, or None where there are none, or only ones that cannot be read."""
    path = cache_folder() / "index" / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return arrays if int(arrays.pop("cache_version")) == CACHE_VERSION else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        _LOG.info("%s: not readable (%s); made anew", path, error)
        return None


def save_index(key: str, arrays: Arrays) -> bool:
    """Store arrays under ``key`` in one step; False, and a line in the log, where the cache cannot be written."""
    path = cache_folder() / "index" / f"{key}.npz"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            np.savez(file, allow_pickle=False, cache_version=np.array(CACHE_VERSION), **arrays)
    except OSError as error:
        _LOG.info("no index cached, so the next run scans the data again: %s", error)
        return False
    return True


def file_stamps(paths: Sequence[str]) -> npt.NDArray[np.int64]:
    """(F, 2) int64, bytes and modification time in ns of each file: what changes with its contents.

    Raises:
        OSError: a file is missing or cannot be read; names it.
    """
    stamps = np.empty((len(paths), 2), np.int64)
    for row, path in zip(stamps, paths, strict=True):
        try:
            if not os.path.isfile(path) and os.path.exists(path):
                raise IsADirectoryError(f"data: {path}: is no file")
            found = os.stat(path)
        except FileNotFoundError:
            raise FileNotFoundError(f"data: {path}: no such file") from None
        except PermissionError:
            raise PermissionError(f"data: {path}: cannot be read; check its permissions") from None
        row[:] = found.st_size, found.st_mtime_ns
    return stamps
