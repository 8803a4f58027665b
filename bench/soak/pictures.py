"""Small JPEGs that trials load: rendered, of many sizes and kinds, the same for a seed on every machine."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

SIZES = ((72, 96), (96, 72), (64, 64), (40, 130), (120, 90))


def picture(height: int, width: int, seed: int) -> Any:
    """A smooth RGB picture with some detail, as a Pillow image."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)).resize((width, height), 3)
    detail = rng.normal(0, 8, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(smooth) + detail, 0, 255).astype(np.uint8))


def encoded(number: int) -> bytes:
    """JPEG number ``number``: sizes, chroma, gray, progressive, restart markers, EXIF and comments take turns."""
    image = picture(*SIZES[number % len(SIZES)], seed=number)
    options: dict[str, Any] = {"quality": 60 + 5 * (number % 8), "subsampling": number % 3}
    kind = number % 7
    if kind == 1:
        image = image.convert("L")
        del options["subsampling"]
    elif kind == 2:
        options["progressive"] = True
    elif kind == 3:
        options["restart_marker_rows"] = 1
    elif kind == 4:
        exif = type(image.getexif())()
        exif[0x0112] = 1 + number // 7 % 8
        options["exif"] = exif
    elif kind == 5:
        options["comment"] = b"a comment"
    elif kind == 6:
        image = image.convert("CMYK")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def write_folder(root: Path, count: int, classes: int = 4) -> Path:
    """A class folder of ``count`` JPEGs."""
    for number in range(count):
        folder = root / f"class_{number % classes}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:05}.jpg").write_bytes(encoded(number))
    return root
