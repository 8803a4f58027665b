"""Label masks as arrays of class indices, and the part of one that a crop shows, by nearest sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.pil import opened_image

VOID = 255
_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # orientations that swap height and width

Indices: TypeAlias = "npt.NDArray[np.unsignedinteger]"


def read_mask(path: str) -> Indices:
    """(H, W) class index of every pixel, uint8, or uint16 for gray masks of 16 bits.

    Palette images give palette indices, gray ones gray values, of two colours 0 and 1.

    Raises:
        ValueError: the file is missing, broken, or a colour picture; names it.
    """
    with opened_image(path) as picture:
        if picture.mode not in ("P", "L", "1") and not picture.mode.startswith("I;16"):
            raise ValueError(
                f"{path}: a mask holds one class index per pixel: expected a palette or gray image, got mode"
                f" {picture.mode}; convert its colours to indices"
            )
        picture.load()
        mask = np.asarray(picture)
    return mask.astype(np.uint16) if mask.dtype.itemsize == 2 else mask.astype(np.uint8, copy=False)


def image_sides(path: str) -> tuple[int, int]:
    """Height and width of an image as loaders show it, after EXIF orientation, from its header.

    Raises:
        ValueError: the file is missing, or no image.
    """
    with opened_image(path) as picture:
        width, height = picture.size
        turned = picture.getexif().get(_EXIF_ORIENTATION) in _TURNED
    return (width, height) if turned else (height, width)


def box_pixels(start: int, length: int, size: int) -> npt.NDArray[np.int64]:
    """(size,) source pixel of each output pixel when a box of whole pixels is resampled to ``size`` pixels.

    Output pixel i has its centre at ``start + (i + 1/2) * length / size`` and takes the pixel that this lies in.
    """
    return start + ((2 * np.arange(size, dtype=np.int64) + 1) * length) // (2 * size)


def region_pixels(first: float, last: float, size: int) -> npt.NDArray[np.int64]:
    """The same for a box with fractional edges, such as those of ``EvalPlan``."""
    return np.floor(first + (np.arange(size) + 0.5) * ((last - first) / size)).astype(np.int64)


def sample_mask(
    mask: Indices, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], out: npt.NDArray, void: int = VOID
) -> None:
    """Fill ``out`` (h, w) with ``mask[rows, columns]``, and with ``void`` where these lie outside of the mask."""
    inside_y, inside_x = _inside(rows, mask.shape[0]), _inside(columns, mask.shape[1])
    if (inside_y.stop - inside_y.start, inside_x.stop - inside_x.start) != out.shape:
        out.fill(void)
    out[inside_y, inside_x] = mask.take(rows[inside_y], axis=0).take(columns[inside_x], axis=1)


def _inside(pixels: npt.NDArray[np.int64], side: int) -> slice:
    """Where ``pixels``, ascending or descending, lie within 0 to side - 1."""
    found = np.flatnonzero((pixels >= 0) & (pixels < side))
    return slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0)


def differing_sizes(image: str, mask: str, image_side: Sequence[int], mask_side: Sequence[int]) -> str:
    """The message where an image and its mask have different sizes."""
    return (
        f"image and mask differ in size: {image} is {image_side[0]} x {image_side[1]} (height x width), {mask} is"
        f" {mask_side[0]} x {mask_side[1]}; make them equal"
    )
