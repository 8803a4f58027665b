"""A small image folder that the tests render themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# (height, width): landscape, portrait, narrow, smaller than the output, tiny
SIZES = ((90, 120), (120, 90), (40, 200), (20, 24), (1, 1), (75, 75), (64, 130))


def render(height: int, width: int, seed: int) -> Image.Image:
    """A smooth random RGB picture: JPEG keeps it within a few grey levels."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 JPEGs in three class folders, one of them nested; every third is gray."""
    root = tmp_path_factory.mktemp("images")
    for n in range(30):
        folder = root / ("ant", "bee/deep", "cat")[n % 3]
        folder.mkdir(parents=True, exist_ok=True)
        image = render(*SIZES[n % len(SIZES)], seed=n)
        (image.convert("L") if n % 3 == 2 else image).save(folder / f"{n:03}.jpg", quality=92)
    return root
