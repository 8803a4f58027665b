"""Run by test_cuda_host.py under the sanitizers' runtime: python cuda_sanitized.py FOLDER."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import cuda_support as support

from has_dali.kernels.policy import HideAndSeek

SANITIZE = ("-shared", "-fPIC", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
OFFSET = HideAndSeek(patch_sizes=(3, 8, 0, 300), random_offset=True, seed=9)
CASES = [
    support.HideCase((2, 3, 9, 16), dtype="uint8", policy=OFFSET),
    support.HideCase((2, 5, 7, 7), dtype="float16", in_place=True, skew=(2, 2), policy=OFFSET),
    support.HideCase((2, 9, 13, 3), "NHWC", "uint8", in_place=True, fill=(1, 2, 3), skew=(1, 1)),
    support.HideCase((2, 4, 5, 20), "NHWC", "float32", fill=tuple(range(20)), skew=(0, 4)),
    support.HideCase((2, 4, 5, 20), "NHWC", "uint8", fill=tuple(range(20)), in_place=True),
    support.HideCase((2, 2, 5000), "NCT", "bfloat16", policy=OFFSET),
    support.ResizeCase([(17, 40), (1, 1), (70, 3)], (16, 24), mirror=[1, 0, 1], policy=OFFSET),
    support.ResizeCase([(17, 40), (1, 1)], (5, 33), dtype="float16", layout="HWC", mirror=[1, 0]),
    support.ResizeCase([(17, 40), (1, 1)], (5, 33), channels=4, antialias=False, mirror=[0, 1], policy=OFFSET),
    support.ResizeCase([(17, 40), (9, 9)], None, dtype="bfloat16", mirror=[0, 1]),
    support.ResizeCase([(3, 9000)], (2, 2), channels=1),
]


def build(specialisation, folder):
    """The sanitized library of a specialisation."""
    path = folder / f"sanitized_{support.digest(specialisation)}.so"
    if not path.exists():
        support.compile_host(specialisation, path, SANITIZE, "")
    library = ctypes.CDLL(str(path))
    library.run_kernel.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_size_t]
    return library


def _sanitizer(function, address, size):
    call = getattr(ctypes.CDLL(None), function)
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    call(address, max(size, 0))


def _owner(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def guard(array):
    """Forbid the bytes around an array (the address sanitizer counts in groups of 8)."""
    base, start = _owner(array), array.ctypes.data
    after = -(-(start + array.nbytes) // 8) * 8
    _sanitizer("__asan_poison_memory_region", base.ctypes.data, start // 8 * 8 - base.ctypes.data)
    _sanitizer("__asan_poison_memory_region", after, base.ctypes.data + base.nbytes - after)


def unguard(array):
    """Allow them again: NumPy hands small blocks out anew without telling the sanitizer."""
    base = _owner(array)
    _sanitizer("__asan_unpoison_memory_region", base.ctypes.data, base.nbytes)


def run(case, folder, *, shorten=False):
    """Plan, guard, execute, compare; ``shorten`` guards the last 16 bytes of the result too, to see it caught."""
    job = case.job()
    for buffer in job.buffers:
        guard(buffer)
    if shorten:
        flat = job.results[0].reshape(-1).view(np.uint8)
        guard(flat[:-16])
    for launch in job.plan.launches:
        library = build(job.plan.specialisation, folder)
        code = library.run_kernel(launch.arguments.ctypes.data, launch.grid, launch.block, launch.shared_bytes)
        assert code == 0, (case, code)
    for buffer in job.buffers:
        unguard(buffer)
    job.check()


def main():
    """All cases; then one that must die, in a child."""
    folder = Path(sys.argv[1])
    for case in CASES:
        run(case, folder)
        sys.stdout.write(f"ok {case}\n")
        sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(2)
        run(CASES[0], folder, shorten=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status != 0, "the sanitizer missed an access outside an array"
    sys.stdout.write("caught the planted overrun\n")


if __name__ == "__main__":
    main()
