"""Opening image files with Pillow, where a tool needs pictures without a pipeline: errors name the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


@contextmanager
def opened_image(path: str | os.PathLike[str]) -> Iterator[Image]:
    """``PIL.Image.open``; what Pillow raises while the block opens or decodes becomes one line with the path.

    Raises:
        ValueError: the file is missing, unreadable, broken, or no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            yield image
    except UnidentifiedImageError:
        raise ValueError(f"{os.fspath(path)}: is no image that can be decoded; remove it or replace it") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{os.fspath(path)}: cannot be decoded ({reason}); remove it or replace it") from None


def as_rgb(picture: Image) -> Image:
    """``picture.convert("RGB")``, with 16-bit gray scaled to 8 bits as the loaders do; Pillow would clip it."""
    from PIL import Image

    if picture.mode.startswith("I;16"):
        picture = Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8))
    return picture.convert("RGB")
