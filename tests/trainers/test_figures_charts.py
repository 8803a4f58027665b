"""Charts: they show the numbers they were given, their axes are honest, and all text is legible."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import same_color

sys.path.insert(0, str(Path(__file__).parent))
import figure_support as support

from has_dali.trainers.figures import style
from has_dali.trainers.figures.arms import Bars, Level, arms_figure
from has_dali.trainers.figures.curves import Curve, curves_figure

EPOCHS = np.arange(1, 5)


def _lines(figure) -> list:  # type: ignore[no-untyped-def]
    return figure.axes[0].lines


def test_lines_are_means_and_bands_are_extremes() -> None:
    values = np.array([[10.0, 20, 30, np.nan], [20, 30, 50, np.nan], [30, 70, np.nan, np.nan]])
    figure = curves_figure([Curve("a", EPOCHS, values)], title="T", x_label="epoch", y_label="top-1, %")
    assert np.array_equal(_lines(figure)[0].get_ydata(), [20, 40, 40, np.nan], equal_nan=True)
    (band,) = figure.axes[0].collections
    corners = np.concatenate([path.vertices for path in band.get_paths()])
    for x, low, high in ((1, 10, 30), (2, 20, 70), (3, 30, 50)):
        assert {low, high} <= set(corners[corners[:, 0] == x, 1].tolist())
    assert not (corners[:, 0] == 4).any()


def test_curves_are_legible_and_coloured_as_in_the_key() -> None:
    rng = np.random.default_rng(0)
    curves = [Curve(f"an arm with a long name {i}", EPOCHS, 60 + rng.normal(size=(3, 4))) for i in range(5)]
    figure = curves_figure(
        curves,
        title="A title",
        x_label="epoch",
        y_label="top-1, %",
        references={"centre box": 59.9, "whole image": 60.0, "chance": 5.0},
    )
    support.check_legible(figure)
    for i, line in enumerate(_lines(figure)[:5]):
        assert same_color(line.get_color(), style.SERIES[i])
    assert [line.get_ydata()[0] for line in _lines(figure)[5:]] == [59.9, 60.0, 5.0]
    assert "mean of 3 seeds" in " ".join(text.get_text() for text in support.texts(figure))


@pytest.mark.parametrize(
    ("values", "low", "high"), [([5, 60], 0, None), ([50, 60], 49.4, 60.6), ([0, 100], 0, 100), ([41, 100], None, 100)]
)
def test_axes_of_percentages(values: list[float], low: float | None, high: float | None) -> None:
    figure = curves_figure([Curve("a", [0, 1], values)], title="T", x_label="x", y_label="%")
    bottom, top = figure.axes[0].get_ylim()
    assert bottom == (pytest.approx(low) if low is not None else bottom) and bottom <= min(values)
    assert top == (pytest.approx(high) if high is not None else top) and max(values) <= top <= 100


@pytest.mark.parametrize(("values", "bottom"), [([0.3, 4.0], 0), ([3.0, 4.0], 2.94), ([-1.0, 1.0], -1.12)])
def test_axes_of_other_values(values: list[float], bottom: float) -> None:
    figure = curves_figure([Curve("a", [0, 1], values)], title="T", x_label="x", y_label="loss", percent=False)
    assert figure.axes[0].get_ylim()[0] == pytest.approx(bottom)


def test_one_seed_has_no_band_to_explain() -> None:
    figure = curves_figure([Curve("a", EPOCHS, EPOCHS)], title="T", x_label="x", y_label="loss")
    assert "loss, one seed" in [text.get_text() for text in support.texts(figure)]


def test_bad_curves() -> None:
    labels = {"title": "T", "x_label": "x", "y_label": "y"}
    with pytest.raises(ValueError, match="curves: expected 1 to 8"):
        curves_figure([], **labels)
    with pytest.raises(ValueError, match=r"curves: expected 1 to 8, .* told apart, got 9"):
        curves_figure([Curve("a", [0], [0])] * 9, **labels)
    with pytest.raises(ValueError, match=r"curve 'a': expected \(P,\) places and \(seeds, P\) finite values"):
        curves_figure([Curve("a", [0, 1], [0])], **labels)
    with pytest.raises(ValueError, match="curve 'a'"):
        curves_figure([Curve("a", [0], [np.nan])], **labels)


METRICS = {"gt_known": "GT-known Loc", "top1_loc": "Top-1 Loc"}


def _bars(count: int) -> list[Bars]:
    return [
        Bars(f"an arm, number {i}", {"gt_known": (50.0 + i, 52.0 + i, 57.0 + i), "top1_loc": (30.0, 33.0)})
        for i in range(count)
    ]


def test_bars_start_at_zero_and_end_at_the_mean() -> None:
    figure = arms_figure(_bars(2), METRICS, title="T")
    axes = figure.axes[0]
    assert axes.get_ylim()[0] == 0
    assert [(bar.get_y(), bar.get_height()) for bar in axes.patches] == [(0, 53.0), (0, 54.0), (0, 31.5), (0, 31.5)]
    dots = [line.get_ydata().tolist() for line in axes.lines]
    assert dots == [[50, 52, 57], [51, 53, 58], [30, 33], [30, 33]]
    middle = axes.patches[0].get_x() + axes.patches[0].get_width() / 2
    assert support.is_colour(support.colour_at(figure, axes, middle, 20), style.lightened(style.SERIES[0]))
    centre = figure.axes[0].get_xticks()
    assert centre[0] == pytest.approx((middle + axes.patches[1].get_x() + axes.patches[1].get_width() / 2) / 2)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_arms_are_legible(count: int) -> None:
    levels = [
        Level("gt_known", "fixed centre box", 41.0),
        Level("gt_known", "whole image", 40.5),
        Level("gt_known", "paper, AlexNet-GAP", 54.9),
        Level("top1_loc", "paper", 37.0),
        Level("another", "not shown", 500.0),
    ]
    figure = arms_figure(_bars(count), METRICS, title="A title", levels=levels)
    support.check_legible(figure)
    names = {text.get_text() for text in support.texts(figure)}
    assert {"fixed centre box 41.0", "whole image 40.5", "paper 37.0"} <= names
    assert not any("not shown" in name for name in names) and figure.axes[0].get_ylim()[1] < 100


def test_a_missing_metric_leaves_a_gap() -> None:
    figure = arms_figure([Bars("a", {"gt_known": [50.0]}), Bars("b", {"top1_loc": [30.0]})], METRICS, title="T")
    assert [bar.get_height() for bar in figure.axes[0].patches] == [50, 30]
    assert "%, one seed" in [text.get_text() for text in support.texts(figure)]


def test_bad_arms() -> None:
    with pytest.raises(ValueError, match="arms: expected 1 to 8"):
        arms_figure([], METRICS, title="T")
    with pytest.raises(ValueError, match="arms: expected at least one with values"):
        arms_figure([Bars("a", {"loss": [1.0]})], METRICS, title="T")
