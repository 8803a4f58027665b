"""What covers an image in the synthetic occlusion protocol: masks and patterns, pure functions of (seed, sample id)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from has_dali.kernels import contract, reference
from has_dali.kernels.policy import HideAndSeek

LEVELS = (0.3, 0.5, 0.7)
COVERS = ("mean", "texture", "cells")
# Philox counter blocks of these draws, far from those of masks, crops and shuffles.
_PLACE_BLOCK = contract.PLAN_BLOCK + 2**20
CHOICE_BLOCK = _PLACE_BLOCK + 1
_WAVE_BLOCK = _PLACE_BLOCK + 2
_GRAIN_BLOCK = _PLACE_BLOCK + 64
_WAVES = 3
_UNIT = 2.0**-32


def cover_masks(
    boxes: npt.ArrayLike,
    sample_ids: npt.ArrayLike,
    height: int,
    width: int,
    *,
    level: float,
    cover: str = "mean",
    seed: int = 0,
    patch_size: int | None = None,
) -> npt.NDArray[np.bool_]:
    """Which pixels are covered: (N, height, width) bool.

    "mean" and "texture" cover a rectangle inside the box, of ``level`` times its area up to whole pixels and of random
    shape and place; but for a rim of two pixels, a higher level covers what a lower one does (in boxes of some size).
    "cells" hides the cells of a Hide-and-Seek grid with p_hide = ``level``, inside the box: the share is right on
    average only.

    Args:
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the batch, both ends inside; parts outside the batch do not count.
        sample_ids: (N,) integers; with the seed they determine everything.
        height: of the batch.
        width: of the batch.
        level: share of the box to cover, 0 to 1.
        cover: one of ``COVERS``.
        seed: 64-bit integer.
        patch_size: edge of a cell in pixels; None: an eighth of the batch's shorter side.

    Raises:
        ValueError: shapes differ, or a value is out of range.
    """
    box = np.asarray(boxes, np.int64)
    ids = np.asarray(sample_ids, np.int64)
    if box.shape != (len(ids), 4):
        raise ValueError(f"boxes: expected shape ({len(ids)}, 4), one box per sample id, got {box.shape}")
    if not 0 <= level <= 1:
        raise ValueError(f"level={level!r}: expected a share of the box, from 0 to 1")
    check_cover(cover)
    box = np.concatenate([box[:, :2].clip(0), box[:, 2:].clip(None, [width - 1, height - 1])], axis=1)
    if cover == "cells":
        edge = max(1, min(height, width) // 8) if patch_size is None else patch_size
        cells = HideAndSeek(patch_sizes=(edge,), p_hide=level, seed=seed).mask(ids, 0, height, width)
        return cells & _inside(box, height, width)
    masks = np.zeros((len(ids), height, width), np.bool_)
    for n, (x0, y0, x1, y1) in enumerate(box.tolist()):
        if x0 > x1 or y0 > y1 or level == 0:
            continue
        top, left, rows, columns = _rectangle(y1 - y0 + 1, x1 - x0 + 1, level, seed, int(ids[n]))
        masks[n, y0 + top : y0 + top + rows, x0 + left : x0 + left + columns] = True
    return masks


def cover_batch(
    images: torch.Tensor,
    boxes: npt.ArrayLike,
    sample_ids: npt.ArrayLike,
    *,
    level: float,
    cover: str = "mean",
    seed: int = 0,
    patch_size: int | None = None,
    mean: Sequence[float] = contract.IMAGENET_MEAN,
    std: Sequence[float] = contract.IMAGENET_STD,
) -> tuple[torch.Tensor, npt.NDArray[np.float64]]:
    """A covered copy of a normalised batch, and the share of each box that is covered.

    Args:
        images: (N, 3, H, W) normalised, so that 0 is the mean colour; on any device.
        boxes: (N, 4), see ``cover_masks``; so are the other arguments.
        sample_ids: (N,) integers.
        level: share of the box to cover.
        cover: "mean": a rectangle of the mean colour; "texture": of a pattern; "cells": cells of the mean colour.
        seed: 64-bit integer.
        patch_size: edge of a cell in pixels.
        mean: of the normalisation, 0..255; the pattern's colours go through it.
        std: of the normalisation, 0..255.

    Returns:
        The batch, same dtype and device, and (N,) float64 shares, NaN where the batch shows nothing of the box.
    """
    height, width = images.shape[-2:]
    masks = cover_masks(boxes, sample_ids, height, width, level=level, cover=cover, seed=seed, patch_size=patch_size)
    fill = torch.zeros((), dtype=images.dtype, device=images.device)
    if cover == "texture":
        patterns = np.stack([texture(height, width, seed, i) for i in np.asarray(sample_ids, np.int64).tolist()])
        scale, shift, _ = contract.normalization(mean, std, None, 3)
        values = (patterns * scale + shift).transpose(0, 3, 1, 2)
        fill = torch.from_numpy(np.ascontiguousarray(values)).to(images.device, images.dtype)
    mask = torch.from_numpy(masks).to(images.device)[:, None]
    box = _inside(np.asarray(boxes, np.int64), height, width)
    areas = box.sum((1, 2))
    shares = np.where(areas > 0, (masks & box).sum((1, 2)) / np.maximum(areas, 1), np.nan)
    return torch.where(mask, fill, images), shares


def texture(height: int, width: int, seed: int, sample_id: int) -> npt.NDArray[np.float32]:
    """A colour pattern drawn from (seed, sample id): (height, width, 3) float32, 0..255.

    Three plane waves of random direction, 4 to 16 periods per image, between two random colours, with grain.
    """
    words = reference.words(seed, 0, sample_id, np.arange(_WAVE_BLOCK, _WAVE_BLOCK + _WAVES + 2)) * _UNIT
    side = max(height, width)
    y, x = np.mgrid[0:height, 0:width] / side
    waves = np.zeros((height, width))
    for direction, frequency, phase, weight in words[:_WAVES]:
        along = x * math.cos(math.pi * direction) + y * math.sin(math.pi * direction)
        waves += (0.5 + weight) * np.sin(2 * math.pi * ((4 + 12 * frequency) * along + phase))
    noise = reference.words(seed, 0, sample_id, _GRAIN_BLOCK + np.arange(-(-height * width // 4)))
    grain = noise.reshape(-1)[: height * width].reshape(height, width) * _UNIT - 0.5
    blend = (0.5 + waves / 3 + 0.3 * grain).clip(0, 1)[..., None]
    first, second = 255 * words[_WAVES, :3], 255 * words[_WAVES + 1, :3]
    return (first + blend * (second - first)).astype(np.float32)


def check_cover(cover: str) -> None:
    """Raise ValueError unless ``cover`` is one of ``COVERS``."""
    if cover not in COVERS:
        raise ValueError(f"cover={cover!r}: expected one of {', '.join(COVERS)}")


def _rectangle(height: int, width: int, level: float, seed: int, sample_id: int) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of a rectangle that covers ``level`` of a box of ``height`` x ``width`` pixels.

    Its sides take level**u and level**(1 - u) of the box's, with one uniform u: no side is favoured, and as both grow
    with the level while its relative place stays, rectangles of rising levels lie within one another up to rounding.
    """
    u, down, across, _ = (reference.words(seed, 0, sample_id, _PLACE_BLOCK)[0] * _UNIT).tolist()
    rows = min(max(round(level**u * height), math.ceil(level * height)), height)
    columns = min(max(round(level * height * width / rows), 1), width)
    rows = min(max(round(level * height * width / columns), 1), height)  # thin boxes: whole columns can be far off
    return int(down * (height - rows + 1)), int(across * (width - columns + 1)), rows, columns


def _inside(boxes: npt.NDArray[np.int64], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Pixels of each box: (N, height, width) bool."""
    x0, y0, x1, y1 = boxes.T[:, :, None, None]
    y, x = np.arange(height)[None, :, None], np.arange(width)[None, None, :]
    return (y >= y0) & (y <= y1) & (x >= x0) & (x <= x1)
