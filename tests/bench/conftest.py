"""A few JPEGs in ImageFolder layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def jpeg_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jpegs")
    rng = np.random.default_rng(0)
    for name in ("ant", "bee", "cat"):
        (folder / name).mkdir()
        for i in range(12):
            noise = Image.fromarray(rng.integers(0, 256, (12, 16, 3)).astype(np.uint8))
            noise.resize((160, 120), Image.Resampling.BICUBIC).save(folder / name / f"{i}.jpg", quality=90)
    return folder
