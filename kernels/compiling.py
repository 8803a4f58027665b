"""Numba decorators of this package: compiled without the GIL, cached on disk, never from sources that have changed.

Numba checks a cached function against its own file only, but these functions inline one another across files. The
stamp of the cache therefore covers all of ``kernels/`` beside the function's own file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.core.ccallback import CFunc
from numba.core.sigutils import normalize_signature


@lru_cache(maxsize=1)
def sources_hash() -> str:
    """Hash of the sources of all kernels."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def kernel(function: Callable[..., Any]) -> Any:
    """``numba.njit(nogil=True, cache=True)`` with a cache that knows all sources."""
    return _stamped(numba.njit(nogil=True, cache=True)(function))


def callback(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.cfunc(signature, cache=True)`` with a cache that knows all sources."""

    def decorate(function: Callable[..., Any]) -> Any:
        result: Any = CFunc(function, normalize_signature(signature), locals={}, options={"nopython": True})
        result.enable_caching()
        _stamped(result).compile()
        return result

    return decorate


def _stamped(compiled: Any) -> Any:
    """Put the hash of all sources into the stamp of a function's cache."""
    file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)  # absent when compiling is switched off
    if file is not None:
        file._source_stamp = (sources_hash(), file._source_stamp)
    return compiled
