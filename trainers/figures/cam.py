"""Boxes and class activation maps of several networks on the same images (paper, Figs 5 and 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from has_dali.trainers.figures import style

_SIDE, _TALLEST = 1.25, 1.5
_GAP, _PAIR_GAP, _BLOCK_GAP = 0.05, 0.16, 0.4
_HEAD, _CAPTION, _FOOT, _TITLE = 0.34, 0.34, 0.34, 0.3


@dataclass(frozen=True)
class Found:
    """What one network found in an image.

    Args:
        box: x0, y0, x1, y1 in the image's pixels, both ends inside; None: nothing.
        heat: (h, w) class activation map of any size, over the whole image.
        caption: a short remark, such as the predicted class or the IoU.
        right: colours the caption; None: neutral.
    """

    box: Sequence[float] | None
    heat: npt.ArrayLike
    caption: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Example:
    """One image: (H, W, 3) uint8, its true boxes (k, 4), the name of its class, and what each network found."""

    image: npt.NDArray[np.uint8]
    truth: npt.ArrayLike
    label: str
    found: Sequence[Found]


def cam_figure(
    examples: Sequence[Example],
    names: Sequence[str],
    *,
    title: str = "",
    blocks: int = 1,
    image_weight: float = 0.5,
    heat_weight: float = 0.3,
) -> Figure:
    """Per image and network a pair: the image with true boxes red and the found box green, and the map over it.

    Args:
        examples: the images, in reading order.
        names: of the networks, one per entry of ``Example.found``.
        title: above all.
        blocks: examples side by side.
        image_weight: share of the image in the overlay.
        heat_weight: share of the coloured map in it.

    Raises:
        ValueError: there is no example, or an array has another shape.
    """
    if not examples or not names or blocks < 1:
        raise ValueError(
            f"examples={len(examples)}, names={len(names)}, blocks={blocks}: expected one of each at least"
        )
    blocks = min(blocks, len(examples))
    pair = 2 * _SIDE + _GAP
    block = pair * len(names) + _PAIR_GAP * (len(names) - 1)
    tall = [max(_height(e.image) for e in examples[i : i + blocks]) for i in range(0, len(examples), blocks)]
    top = style.MARGIN + (_TITLE if title else 0)
    height = top + _HEAD + sum(tall) + _CAPTION * len(tall) + _FOOT
    figure = style.new_figure(2 * style.MARGIN + blocks * block + (blocks - 1) * _BLOCK_GAP, height)
    style.write(figure, style.MARGIN, style.MARGIN + 0.1, title, 10, fontweight="bold")
    for b in range(blocks):
        left = style.MARGIN + b * (block + _BLOCK_GAP)
        for m, name in enumerate(names):
            _head(figure, left + m * (pair + _PAIR_GAP), top, pair, name)
    y = top + _HEAD
    for i, example in enumerate(examples):
        if len(example.found) != len(names):
            raise ValueError(f"examples[{i}].found: expected {len(names)} entries, one per network")
        row, block_number = divmod(i, blocks)
        left = style.MARGIN + block_number * (block + _BLOCK_GAP)
        text = style.first_name(example.label)
        style.write(figure, left, y + tall[row] + 0.12, text, 7.5, width=_SIDE, fontweight="bold")
        for m, found in enumerate(example.found):
            x = left + m * (pair + _PAIR_GAP)
            _pair(figure, x, y, tall[row], example, found, (image_weight, heat_weight))
            colour = {None: style.FADED, True: style.RIGHT, False: style.WRONG}[found.right]
            x += _SIDE + _GAP
            style.write(figure, x, y + tall[row] + 0.12, found.caption, 7.5, width=_SIDE, color=colour)
        if block_number == blocks - 1:
            y += tall[row] + _CAPTION
    _legend(figure, height)
    return figure


def overlay(
    image: npt.NDArray[np.uint8], heat: npt.ArrayLike, image_weight: float = 0.5, heat_weight: float = 0.3
) -> npt.NDArray[np.uint8]:
    """A map over its image: the map enlarged to (H, W), divided by its maximum, in jet colours, and mixed.

    Values below 0 count as 0; a map without positive values is cold everywhere.
    """
    values = np.asarray(heat, np.float32)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"heat: expected a map (h, w), got shape {values.shape}")
    values = cv2.resize(values, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
    values = np.nan_to_num(values).clip(0)
    top = float(values.max())
    grey = np.rint(values / top * 255).astype(np.uint8) if top > 0 else np.zeros(values.shape, np.uint8)
    coloured = cv2.applyColorMap(grey, cv2.COLORMAP_JET)[..., ::-1]
    mixed = image_weight * image.astype(np.float32) + heat_weight * coloured.astype(np.float32)
    return np.rint(mixed.clip(0, 255)).astype(np.uint8)


def _height(image: npt.NDArray[np.uint8]) -> float:
    """Inches that a picture of full width takes; a very tall one is made narrower instead."""
    return min(_SIDE * image.shape[0] / image.shape[1], _TALLEST)


def _pair(
    figure: Figure, x: float, y: float, height: float, example: Example, found: Found, weights: tuple[float, float]
) -> None:
    axes = style.panel(figure, x, y, _SIDE, height)
    style.show_picture(axes, example.image)
    for box in np.asarray(example.truth, np.float64).reshape(-1, 4).tolist():
        style.draw_box(axes, box, style.TRUTH)
    if found.box is not None:
        style.draw_box(axes, found.box, style.PREDICTION)
    style.show_picture(
        style.panel(figure, x + _SIDE + _GAP, y, _SIDE, height), overlay(example.image, found.heat, *weights)
    )


def _head(figure: Figure, x: float, y: float, width: float, name: str) -> None:
    style.write(figure, x + width / 2, y + 0.1, name, 9, width=width, ha="center")
    total_width, total_height = figure.get_size_inches()
    line = 1 - (y + 0.22) / total_height
    figure.add_artist(
        Line2D((x / total_width, (x + width) / total_width), (line, line), color=style.FADED, linewidth=0.7)
    )


def _legend(figure: Figure, height: float) -> None:
    total_width = figure.get_size_inches()[0]
    y, x = height - 0.17, style.MARGIN
    for colour, text in ((style.TRUTH, "true box"), (style.PREDICTION, "found box")):
        line: Any = Line2D(
            (x / total_width, (x + 0.2) / total_width), (1 - y / height,) * 2, color=colour, linewidth=2.2
        )
        figure.add_artist(line)
        style.write(figure, x + 0.26, y, text, 7.5, color=style.FADED)
        x += 0.5 + style.text_width(text, 7.5)
