"""Occluded images and what each network took them for (paper, Fig. 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from has_dali.trainers.figures import style

_SIDE, _GAP, _LINE = 1.5, 0.18, 0.17
_TITLE = 0.32
_SIGN = 0.13  # left of a network's answer


@dataclass(frozen=True)
class Answers:
    """An occluded image (H, W, 3) uint8, the name of its class, and the top-1 answer of each network by its name."""

    image: npt.NDArray[np.uint8]
    label: str
    answers: Mapping[str, str]


def occlusion_figure(examples: Sequence[Answers], *, columns: int = 5, title: str = "") -> Figure:
    """A grid of occluded images; below each its class, and every network's answer with a tick or a cross.

    Args:
        examples: the images, in reading order.
        columns: images in a row.
        title: above all.

    Raises:
        ValueError: there is no example.
    """
    if not examples or columns < 1:
        raise ValueError(f"examples={len(examples)}, columns={columns}: expected at least one")
    columns = min(columns, len(examples))
    lines = 1 + max(len(example.answers) for example in examples)
    pitch = _SIDE + 0.06 + lines * _LINE + _GAP
    rows = -(-len(examples) // columns)
    top = style.MARGIN + (_TITLE if title else 0)
    width = 2 * style.MARGIN + columns * _SIDE + (columns - 1) * _GAP
    figure = style.new_figure(width, top + rows * pitch)
    style.write(figure, style.MARGIN, style.MARGIN + 0.1, title, 10, width=width - 2 * style.MARGIN, fontweight="bold")
    for i, example in enumerate(examples):
        x, y = style.MARGIN + i % columns * (_SIDE + _GAP), top + i // columns * pitch
        style.show_picture(style.panel(figure, x, y, _SIDE, _SIDE), example.image)
        y += _SIDE + 0.06 + _LINE / 2
        style.write(figure, x, y, style.first_name(example.label), 8, width=_SIDE, fontweight="bold")
        for name, answer in example.answers.items():
            y += _LINE
            right = answer == example.label
            colour = style.RIGHT if right else style.WRONG
            style.write(figure, x, y, "\u2713" if right else "\u2717", 8, color=colour)
            text = f"{name}: {style.first_name(answer)}"
            style.write(figure, x + _SIGN, y, text, 7.5, width=_SIDE - _SIGN, color=colour)
    return figure
