"""What a measurement was fed: a fingerprint of the data set, without the folders it lies in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def no_folders(text: str) -> str:
    """Every path in ``text`` (absolute, from home, or with several components) as its last component."""
    return ":".join(part.rstrip("/").rsplit("/", 1)[-1] if "/" in part else part for part in text.split(":"))


def data_facts(source: Any, name: str | None = None) -> dict[str, Any]:
    """Data fingerprint of a source, a sequence of files, or an array of images.

    Args:
        source: what was loaded: a source of ``has_dali.pipelines``, or paths of image files.
        name: what to call it; folders in it are dropped.

    Returns:
        ``images``, ``bytes``, ``fingerprint`` (16 hex digits over names and sizes, or the source's own); for files
        also their median size, chroma subsampling and how much of them the page cache holds.
    """
    from has_dali.pipelines.statistics import describe_files  # Numba

    files = _files_of(source)
    known: dict[str, Any] = {"name": None if name is None else no_folders(name)}
    if files is None:
        pixels = getattr(source, "pixels", None)
        own = getattr(source, "fingerprint", None)
        size = int(pixels.nbytes) if pixels is not None else None
        lengths = getattr(source, "lengths", None)
        return {
            **known,
            "images": len(source),
            "bytes": int(lengths.sum()) if size is None and lengths is not None else size,
            "fingerprint": own() if callable(own) else None,
        }
    distinct = sorted(set(files))
    digest = hashlib.sha256()
    total = 0
    for path in distinct:
        size = os.path.getsize(path)
        total += size
        digest.update(f"{'/'.join(Path(path).parts[-2:])}\0{size}\n".encode("utf-8", "surrogateescape"))
    facts_of_files = describe_files(distinct)
    return {
        **known,
        **facts_of_files,
        "bytes": total,
        "fingerprint": digest.hexdigest()[:16],
        "page_cache": cached_share(distinct),
    }


def cached_share(files: Sequence[str], most: int = 500) -> float | None:
    """Share of the bytes of (some of) the files that the page cache holds; None where the system cannot tell."""
    if not hasattr(os, "preadv") or not hasattr(os, "RWF_NOWAIT"):
        return None
    total = held = 0
    for path in files[:: -(-len(files) // most)]:
        size = os.path.getsize(path)
        total += size
        descriptor = os.open(path, os.O_RDONLY)
        try:
            held += os.preadv(descriptor, [bytearray(size)], 0, os.RWF_NOWAIT) if size else 0
        except BlockingIOError:
            pass  # nothing of it is in memory
        except OSError:
            return None  # this file system cannot say
        finally:
            os.close(descriptor)
    return held / total if total else None


def _files_of(source: Any) -> list[str] | None:
    if hasattr(source, "path") and hasattr(source, "encoded_path"):
        return [source.path(i) for i in range(len(source))]
    if isinstance(source, (list, tuple)) and source and all(isinstance(path, (str, os.PathLike)) for path in source):
        return [os.fspath(path) for path in source]
    return None
