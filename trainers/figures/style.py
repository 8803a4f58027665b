"""What all figures share: colours, letters, panels placed in inches from the top left corner, and saving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from has_dali.console import atomic_file

DPI = 200
MARGIN = 0.16
KEY = 0.2  # height of a line of a key
INK, FADED, RULE = "#1c2026", "#6e7680", "#d5dae0"
TRUTH, PREDICTION = "#f01818", "#19e32b"  # the paper's red and green
RIGHT, WRONG = "#0a7d33", "#c0182b"
# Told apart by readers with any colour vision (after Okabe and Ito), dark enough for thin lines on white.
SERIES = ("#6e7680", "#0b7a75", "#d1570b", "#3b6fb6", "#a3338b", "#b8860b", "#1c2026", "#5aa02c")
HALO = (withStroke(linewidth=2.5, foreground="white"),)  # keeps letters legible where a grid line runs behind them
_CASING = "#000000"
_ELLIPSIS = "\u2026"


def new_figure(width: float, height: float) -> Figure:
    """A white figure of the given size in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, in one step.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_file(path) as file:
        FigureCanvasAgg(figure).print_png(file)


def pixels(figure: Figure) -> npt.NDArray[np.uint8]:
    """The drawn figure: (height, width, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Any:
    """Axes without frame and ticks; inches from the figure's top left corner."""
    total_width, total_height = figure.get_size_inches()
    rectangle = (left / total_width, 1 - (top + height) / total_height, width / total_width, height / total_height)
    axes = figure.add_axes(rectangle)
    axes.set_axis_off()
    return axes


def write(
    figure: Figure, x: float, y: float, text: str, size: float = 8.0, width: float | None = None, **style: Any
) -> None:
    """A line of text; inches from the top left corner. With ``width`` it is shortened to fit.

    ``style`` goes to matplotlib's ``Figure.text``; by default the text is dark, left-aligned, and centred on ``y``.
    """
    total_width, total_height = figure.get_size_inches()
    style = {"color": INK, "ha": "left", "va": "center_baseline", **style}
    if width is not None:
        text = shortened(text, width, size, style.get("fontweight", "normal"))
    figure.text(x / total_width, 1 - y / total_height, text, fontsize=size, **style)


def shortened(text: str, width: float, size: float, weight: str = "normal") -> str:
    """``text``, or its beginning and an ellipsis, at most ``width`` inches wide in letters of ``size`` points."""
    if text_width(text, size, weight) <= width:
        return text
    low, high = 0, len(text)  # the longest beginning that fits
    while low < high:
        middle = (low + high + 1) // 2
        fits = text_width(text[:middle].rstrip() + _ELLIPSIS, size, weight) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip(" ,") + _ELLIPSIS


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line of text in inches."""
    if not text.strip():
        return 0.0
    renderer = FigureCanvasAgg(Figure(dpi=DPI)).get_renderer()
    letters = FontProperties(size=size, weight=weight)
    return float(renderer.get_text_width_height_descent(text, letters, False)[0]) / DPI


def show_picture(axes: Any, image: npt.ArrayLike, smooth: bool = True) -> None:
    """A picture (H, W, 3) uint8 in its own proportions; enlarged smoothly, or with its pixels as squares.

    Where its proportions are not the panel's, it stands on the panel's bottom edge.
    """
    values = np.asarray(image)
    if values.ndim != 3 or values.shape[2] != 3 or values.dtype != np.uint8:
        raise ValueError(f"image: expected (H, W, 3) uint8, got {values.dtype} of shape {values.shape}")
    axes.imshow(values, interpolation="bicubic" if smooth else "nearest")
    axes.set_anchor("S")


def draw_box(axes: Any, box: Sequence[float], colour: str, width: float = 1.6) -> None:
    """The outline of x0, y0, x1, y1 in pixels, both ends inside, in a thin dark casing that shows on any picture."""
    x0, y0, x1, y1 = (float(value) for value in box)
    for line, edge in ((width + 1.0, _CASING), (width, colour)):
        alpha = 0.55 if edge == _CASING else 1.0
        outline = Rectangle(
            (x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, fill=False, edgecolor=edge, linewidth=line, alpha=alpha
        )
        outline.set_clip_on(False)  # a box along the picture's border keeps its full line
        outline.set_joinstyle("miter")
        axes.add_patch(outline)


def first_name(name: str) -> str:
    """The first of the comma-separated names that ImageNet's classes have."""
    return name.partition(",")[0].strip()


def plain_axes(axes: Any) -> None:
    """A chart's frame: bottom line, faint horizontal grid, small quiet numbers."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FADED)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def lightened(colour: str, share: float = 0.22) -> str:
    """A colour mixed with white: opaque, so that no grid line shows through an area of it."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(value + share * (255 - value)):02x}" for value in channels)


def key_lines(names: Sequence[str], width: float) -> list[list[tuple[int, str, float]]]:
    """A key: number, name and place in inches of each series, as many per line as fit into ``width`` inches."""
    lines: list[list[tuple[int, str, float]]] = [[]]
    x = 0.0
    for i, name in enumerate(names):
        step = 0.36 + text_width(name, 8)
        if lines[-1] and x + step > width:
            lines.append([])
            x = 0.0
        lines[-1].append((i, name, x))
        x += step
    return lines


def draw_key(figure: Figure, lines: Sequence[Sequence[tuple[int, str, float]]], top: float, light: bool) -> None:
    """Draw a key from ``top`` inches on, ``KEY`` inches per line; ``light`` as the bars are."""
    for row, line in enumerate(lines):
        y = top + (row + 0.5) * KEY
        for i, name, x in line:
            colour = SERIES[i]
            swatch = panel(figure, MARGIN + x, y - 0.055, 0.11, 0.11)
            swatch.set_axis_on()
            swatch.patch.set_facecolor(lightened(colour) if light else colour)
            swatch.set(xticks=[], yticks=[])
            swatch.spines[:].set_visible(False)
            write(figure, MARGIN + x + 0.16, y, name, 8)


def check_series(name: str, count: int) -> None:
    """Raise ValueError unless every series can have a colour of its own."""
    if not 1 <= count <= len(SERIES):
        raise ValueError(
            f"{name}: expected 1 to {len(SERIES)}, which is as many colours as can be told apart, got {count}"
        )


def round_steps(axis: Any, count: int, integer: bool = False) -> None:
    """About ``count`` marks at round numbers."""
    axis.set_major_locator(MaxNLocator(count, steps=[1, 2, 5, 10], integer=integer))


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Places for labels as near to ``positions`` as keeps them ``gap`` apart, in the same order.

    Labels that touch form a block centred on what it labels, so that none is pushed away one-sidedly.
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    blocks: list[list[float]] = []  # sum of positions, count
    for i in order:
        blocks.append([positions[i], 1])
        while len(blocks) > 1:
            (sum_a, count_a), (sum_b, count_b) = blocks[-2:]
            top_a = sum_a / count_a + (count_a - 1) * gap / 2
            bottom_b = sum_b / count_b - (count_b - 1) * gap / 2
            if bottom_b - top_a >= gap - 1e-12:
                break
            blocks[-2:] = [[sum_a + sum_b, count_a + count_b]]
    placed = [total / count + (k - (count - 1) / 2) * gap for total, count in blocks for k in range(int(count))]
    result = [0.0] * len(positions)
    for i, place in zip(order, placed, strict=True):
        result[i] = place
    return result
