"""From the class maps of crops to one map of the picture's size (paper section 4.2.1, and the code released with CAM).

The picture is warped to ``big`` x ``big`` pixels, ten crops go through the network, each crop's map is brought to the
crop's size with bicubic interpolation, un-mirrored, pasted back where the crop was cut, and merged. Everything is
batched, on the device that the maps are on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Merge = Literal["sum_abs", "mean_by_coverage"]
CROPS = 10
# Values in the largest intermediate of one step: keeps the working set in the cache, and memory flat.
_CHUNK = 1 << 22


def crop_size(big: int) -> int:
    """Side of the crops of a picture warped to ``big``: 224 of 256 in the paper, the same ratio elsewhere."""
    return round(big * 224 / 256)


def crop_places(big: int, crop: int) -> list[tuple[int, int]]:
    """(y, x) of the five crops: the corners, then the centre. The next five are their mirrors."""
    if not 1 <= crop <= big:
        raise ValueError(f"crop={crop}: expected 1 to {big}, the side of the picture")
    far = big - crop
    return [(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)]


def ten_crops(images: Tensor, crop: int | None = None) -> Tensor:
    """Corners, centre and the mirrors of the five.

    Args:
        images: (N, C, big, big).
        crop: side of a crop; 224/256 of ``big`` by default.

    Returns:
        (N, 10, C, crop, crop), a copy.
    """
    big = images.shape[-1]
    crop = crop_size(big) if crop is None else crop
    five = torch.stack([images[..., y : y + crop, x : x + crop] for y, x in crop_places(big, crop)], dim=1)
    return torch.cat([five, five.flip(-1)], dim=1)


def merged_crops(maps: Tensor, big: int, crop: int | None = None, merge: Merge = "sum_abs") -> Tensor:
    """One map of the warped picture from those of its ten crops.

    ``sum_abs`` adds up absolute values, as the released code does: where more crops overlap the sum is larger, so the
    centre gains. ``mean_by_coverage`` divides the sum by the number of crops that cover the pixel, as the paper says.

    Args:
        maps: (N, 10, M, h, w) in the order of ``ten_crops``: M class maps of each crop.
        big: side of the warped picture.
        crop: side of a crop; 224/256 of ``big`` by default.
        merge: how pasted maps become one.

    Returns:
        (N, M, big, big), in the maps' dtype.

    Raises:
        ValueError: not ten maps per image, or, for ``mean_by_coverage``, crops that leave pixels uncovered.
    """
    crop = crop_size(big) if crop is None else crop
    if maps.ndim != 5 or maps.shape[1] != CROPS:
        raise ValueError(f"maps: expected (N, {CROPS}, classes, height, width), got {tuple(maps.shape)}")
    if merge not in ("sum_abs", "mean_by_coverage"):
        raise ValueError(f"merge={merge!r}: expected 'sum_abs' or 'mean_by_coverage'")
    canvas = maps.new_zeros(*maps.shape[:1], maps.shape[2], big, big)
    covered = maps.new_zeros(big, big)
    for k, (y, x) in enumerate(crop_places(big, crop)):
        # Resampling commutes with the mirror, so a crop and its mirror share one pass where they only add up.
        straight, mirrored = maps[:, k], maps[:, k + 5].flip(-1)
        if merge == "sum_abs":
            pasted = upsampled(straight, (crop, crop)).abs_() + upsampled(mirrored, (crop, crop)).abs_()
        else:
            pasted = upsampled(straight + mirrored, (crop, crop))
        canvas[..., y : y + crop, x : x + crop] += pasted
        covered[y : y + crop, x : x + crop] += 2
    if merge == "sum_abs":
        return canvas
    if bool((covered == 0).any()):
        raise ValueError(f"crop={crop}: ten crops do not cover {big} pixels; mean_by_coverage needs at least half")
    return canvas.div_(covered)


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, M, h, w) at (N, M, *size): bicubic, half-pixel centres, a = -0.75, no antialiasing, as OpenCV's."""
    if maps.shape[-2:] == size:
        return maps.clone()
    count = max(1, _CHUNK // (maps.shape[1] * size[0] * size[1]))
    parts = [F.interpolate(part, size, mode="bicubic", align_corners=False) for part in maps.split(count)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def picture_maps(maps: Tensor, sizes: npt.ArrayLike) -> Iterator[npt.NDArray[np.float32]]:
    """Maps at the size of each picture, divided by their maximum.

    Args:
        maps: (N, M, h, w), of one crop or merged.
        sizes: (N, 2) heights and widths of the pictures as stored.

    Yields:
        (M, height, width) float32 for each picture, in order; see ``divided_by_max`` for maps without a maximum.
    """
    wanted = [(int(height), int(width)) for height, width in np.asarray(sizes)]
    if len(wanted) != len(maps):
        raise ValueError(f"sizes: expected one pair for each of {len(maps)} pictures, got {len(wanted)}")
    start = 0
    while start < len(wanted):
        stop = start + 1
        while stop < len(wanted) and wanted[stop] == wanted[start]:
            stop += 1
        same = divided_by_max(upsampled(maps[start:stop].float(), wanted[start]))
        yield from same.cpu().numpy()
        start = stop


def divided_by_max(maps: Tensor) -> Tensor:
    """Each map (..., H, W) over its maximum: 1 at the peak, negative values stay negative.

    A map with a value that is not finite, or with no positive value, becomes all zeros: it localises nothing. A
    constant positive map becomes all ones: the whole picture.
    """
    peak = maps.amax(dim=(-2, -1), keepdim=True)
    usable = torch.isfinite(maps).all(dim=-1, keepdim=True).all(dim=-2, keepdim=True) & (peak > 0)
    return torch.where(usable, maps / torch.where(usable, peak, 1), 0)


def crop_probabilities(logits: Tensor) -> Tensor:
    """(N, classes): the mean of the softmax over crops, of logits (N, crops, classes)."""
    return logits.softmax(-1).mean(1)
