"""What the figure tests share: colours at data coordinates, and checks that hold for every figure."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from has_dali.trainers.figures import style


def colour_at(figure: Figure, axes: Any, x: float, y: float) -> np.ndarray:
    """The drawn colour at a data coordinate of ``axes``: (3,) uint8."""
    drawn = style.pixels(figure)
    across, up = axes.transData.transform((x, y))
    return drawn[drawn.shape[0] - 1 - int(up), int(across)]


def is_colour(got: np.ndarray, colour: str, tolerance: int = 12) -> bool:
    """Whether a drawn colour is the named one, up to antialiasing."""
    return bool(np.abs(got - 255 * np.array(to_rgb(colour))).max() <= tolerance)


def texts(figure: Figure) -> list[Text]:
    """Every visible non-empty text; matplotlib keeps numbers beyond an axis's ends that it does not draw."""
    beyond = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            beyond |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    shown = (text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible())
    return [text for text in shown if text not in beyond and text.axes in (None, *_drawn(figure))]


def _drawn(figure: Figure) -> list[Any]:
    """Axes whose numbers are drawn."""
    return [axes for axes in figure.axes if axes.axison]


def check_legible(figure: Figure) -> None:
    """All text lies inside the figure, none over another, none over a picture."""
    style.pixels(figure)  # lays out
    renderer = figure.canvas.get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]
    boxes = [(name, box) for name, box in boxes if box.width > 0]
    for name, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, f"{name!r} leaves the figure: {box}"
    for (name, box), (other, other_box) in itertools.combinations(boxes, 2):
        assert not _overlap(box, other_box), f"{name!r} over {other!r}"
    for axes in figure.axes:
        for picture in axes.images:
            for name, box in boxes:
                assert not _overlap(box, picture.get_window_extent(renderer)), f"{name!r} over a picture"


def _overlap(a: Any, b: Any) -> bool:
    return bool(min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1)
