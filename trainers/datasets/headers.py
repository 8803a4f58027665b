"""Sizes of many image files, from their headers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.pil import opened_image

# Opening a file waits for the disk or the network, so more threads than cores.
READERS = 16


def image_sizes(files: Sequence[str]) -> npt.NDArray[np.int64]:
    """(N, 2) int64, height and width as stored; nothing is decoded.

    Raises:
        ValueError: a file is missing or no image.
    """
    with ThreadPoolExecutor(READERS) as pool:
        sizes = list(pool.map(_size, files, chunksize=64))
    return np.array(sizes, np.int64).reshape(-1, 2)


def _size(path: str) -> tuple[int, int]:
    with opened_image(path) as image:
        return image.height, image.width
