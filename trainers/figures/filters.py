"""Filters of the first convolution, tiled (paper, Fig. 4): Hide-and-Seek should leave no straight patch edges there."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from has_dali.trainers.figures import style

_WIDEST, _LARGEST_TILE, _GAP = 680, 120, 4  # of a network, of a filter, between filters: in pixels of the figure
_HEAD = 0.62


def filters_figure(weights: Mapping[str, npt.ArrayLike], columns: int | None = None) -> Figure:
    """The filters of one or several networks side by side.

    Args:
        weights: by the network's name: (K, 3, h, w) weights of a convolution on RGB. Each network is scaled from its
            own smallest to its own largest weight, all filters alike.
        columns: tiles in a row; None: about three columns for every two rows.

    Raises:
        ValueError: weights are not of this shape, or not finite.
    """
    if not weights:
        raise ValueError("weights: expected at least one network")
    sheets = {name: tiled(values, columns) for name, values in weights.items()}
    sizes = [(sheet.shape[1] / style.DPI, sheet.shape[0] / style.DPI) for sheet in sheets.values()]
    gap = 2 * style.MARGIN
    width = sum(w for w, _ in sizes) + gap * (len(sizes) - 1) + 2 * style.MARGIN
    figure = style.new_figure(width, _HEAD + max(h for _, h in sizes) + style.MARGIN)
    left = style.MARGIN
    for (name, sheet), (w, h) in zip(sheets.items(), sizes, strict=True):
        values = np.asarray(weights[name], np.float64)
        count, _, rows, across = values.shape
        facts = f"{count} filters of {rows} \u00d7 {across}, weights {values.min():.2f} to {values.max():.2f}"
        style.write(figure, left, 0.2, name, 9.5, width=w, fontweight="bold")
        style.write(figure, left, 0.42, facts.replace("-", "\u2212"), 7.5, width=w, color=style.FADED)
        style.panel(figure, left, _HEAD, w, h).imshow(sheet, interpolation="nearest", aspect="auto")
        left += w + gap
    return figure


def tiled(weights: npt.ArrayLike, columns: int | None = None) -> npt.NDArray[np.uint8]:
    """Filters (K, 3, h, w) as one picture on white, min-max scaled jointly to 0..255: (height, width, 3) uint8.

    Every weight is a square of the same whole number of pixels.
    """
    values = np.asarray(weights, np.float64)
    if values.ndim != 4 or values.shape[1] != 3 or not values.size:
        raise ValueError(f"weights: expected (K, 3, h, w), a convolution on RGB, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("weights: expected finite numbers; did the training diverge?")
    low, high = values.min(), values.max()
    scaled = np.rint((values - low) / (high - low or 1.0) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    count = len(scaled)
    across = min(count, columns) if columns else _columns(count)
    tile = min((_WIDEST + _GAP) // across - _GAP, _LARGEST_TILE)
    zoom = max(1, tile // max(scaled.shape[1:3]))
    tiles = scaled.repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width = tiles.shape[1] + _GAP, tiles.shape[2] + _GAP
    sheet = np.full((-(-count // across) * height - _GAP, across * width - _GAP, 3), 255, np.uint8)
    for k, picture in enumerate(tiles):
        top, left = k // across * height, k % across * width
        sheet[top : top + height - _GAP, left : left + width - _GAP] = picture
    return sheet


def _columns(count: int) -> int:
    """About three columns for every two rows, and full rows where the number allows it."""
    ideal = math.sqrt(1.5 * count)
    full = [c for c in range(math.ceil(math.sqrt(count)), math.ceil(2 * ideal)) if count % c == 0]
    return min(full, key=lambda c: abs(c - ideal)) if full else math.ceil(ideal)
