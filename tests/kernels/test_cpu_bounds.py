"""No byte outside an image is read: images end (or begin) at a page that must not be touched, in a child process."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from has_dali.kernels import cpu
from has_dali.kernels.policy import HideAndSeek

_GUARDED = """
import ctypes, mmap
import numpy as np
from has_dali.kernels import cpu
from has_dali.kernels.policy import HideAndSeek

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)


def guarded(shape, at_end):
    nbytes = int(np.prod(shape))
    pages = -(-nbytes // PAGE) + 2
    memory = mmap.mmap(-1, pages * PAGE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages - 1):
        assert libc.mprotect(ctypes.c_void_p(base + page * PAGE), PAGE, 0) == 0
    start = (pages - 1) * PAGE - nbytes if at_end else PAGE
    buffer = (ctypes.c_uint8 * nbytes).from_address(base + start)
    buffer.owner = memory
    return np.ndarray(shape, np.uint8, buffer=buffer)


SHAPES = [(1, 1), (2, 1), (3, 1), (2, 2), (1, 3), (5, 4), (1, 37), (40, 1), (17, 23), (64, 64)]
for h, w in SHAPES:
    for channels in (1, 2, 3, 4):
        for at_end in (True, False):
            image = guarded((h, w, channels), at_end)
            image[:] = 77
            for size in (None, (h, w), (1, 1), (7, 9), (50, 3), (9, 33)):
                for antialias in (True, False):
                    for policy in (None, HideAndSeek((1, 4))):
                        out = cpu.resize_mirror_normalize_hide(
                            [image, image], policy, [1, 2], 0, size, [False, True], 77, 1, antialias=antialias
                        )
                        assert max(float(np.abs(o).max()) for o in out) < 1e-3, (h, w, channels, size)
            cpu.hide(image[None], HideAndSeek((3,)), [1], 0, 5, "NHWC")
print("all within bounds")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="guards pages with mprotect")
def test_nothing_around_an_image_is_read() -> None:
    run = subprocess.run([sys.executable, "-c", _GUARDED], capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "all within bounds" in run.stdout, (run.returncode, run.stderr[-2000:])


@pytest.mark.parametrize("shape", [(0, 20, 3), (20, 0, 3), (4, 4, 0), (4, 4, 5), (4, 4)])
def test_images_without_pixels_or_with_other_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images\[1\]: expected uint8"):
        images = [np.zeros((4, 4, 3), np.uint8), np.zeros(shape, np.uint8)]
        cpu.resize_mirror_normalize_hide(images, None, [0, 1], 0, (8, 8))


@pytest.mark.parametrize("length", [0, 1, 2, 4])
def test_fill_values_must_be_one_per_channel(length: int) -> None:
    batch = np.zeros((2, 3, 9, 9), np.uint8)
    with pytest.raises(ValueError, match="fill_values"):
        cpu.hide(batch, HideAndSeek((2,)), [0, 1], 0, fill_values=np.zeros(length, np.uint8))


def test_outputs_are_the_same_on_a_processor_without_extensions() -> None:
    """Without F16C float16 is made in integer arithmetic: LLVM alone would call a routine that is not there.

    Without AVX-512 rows are blended four columns at a time.
    """
    code = """
import sys
import numpy as np
from has_dali.kernels import cpu
from has_dali.kernels.policy import HideAndSeek
images = [np.arange(256, dtype=np.uint8).reshape(16, 16, 1)] * 8
scales = [1.0, 1e-3, 3.7e-5, 1e-7, 255.0, 300.0, 7e3, 1e30]
outs = [cpu.resize_mirror_normalize_hide([image], None, [0], 0, None, mean=3.3, std=1 / s, dtype=np.float16)[0]
        for image, s in zip(images, scales)]
rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
for mirror in (False, True):
    outs += cpu.resize_mirror_normalize_hide([rgb], HideAndSeek(8), [0], 0, (20, 37), [mirror], dtype=np.float16)
np.save(sys.argv[1], np.concatenate([out.view(np.uint16).reshape(-1) for out in outs]))
"""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        results = []
        for name in ("host", "generic"):
            path = f"{folder}/{name}.npy"
            apart = {} if name == "host" else {"NUMBA_CPU_NAME": name, "NUMBA_CACHE_DIR": folder}
            environment = {**os.environ, **apart}
            subprocess.run([sys.executable, "-c", code, path], check=True, env=environment)
            results.append(np.load(path))
        np.testing.assert_array_equal(*results)
