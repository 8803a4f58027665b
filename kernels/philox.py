"""Philox4x32-10 for Numba kernels: four 32-bit words per counter block, held in uint64 to keep LLVM's code plain."""

from __future__ import annotations

import numba
import numpy as np

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


@numba.njit(inline="always")
def philox4x32(block, epoch, sample_id, seed):  # type: ignore[no-untyped-def]
    """Words of counter (block, epoch, id low, id high) under key (seed low, seed high); uint64 in and out."""
    c0, c1, c2, c3 = block & _LOW, epoch & _LOW, sample_id & _LOW, sample_id >> _32
    k0, k1 = seed & _LOW, seed >> _32
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3
