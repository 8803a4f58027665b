"""Figures made of pictures: the right pixels have the right colours, and all text is legible."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import figure_support as support

from has_dali import HideAndSeek
from has_dali.trainers.figures import style
from has_dali.trainers.figures.cam import Example, Found, cam_figure, overlay
from has_dali.trainers.figures.filters import filters_figure, tiled
from has_dali.trainers.figures.occlusion import Answers, occlusion_figure
from has_dali.trainers.figures.strip import strip_figure

LONG = "black-and-gold garden spider, Argiope aurantia"
GREY = (120, 130, 140)


def _grey(height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def _example(image: np.ndarray, networks: int = 2, label: str = "tench") -> Example:
    heat = np.zeros((6, 8))
    heat[2, 2] = 1
    found = [Found((12, 10, 30, 28), heat, f"IoU 0.{m}1 and more that is long", bool(m)) for m in range(networks)]
    return Example(image, [(5, 8, 50, 40)], label, found)


def test_boxes_are_where_they_belong() -> None:
    figure = cam_figure([_example(_grey())], ["gap", "has"])
    for axes in (figure.axes[0], figure.axes[2]):  # the box pictures; the others are maps
        for (x0, y0, x1, y1), colour in (((5, 8, 50, 40), style.TRUTH), ((12, 10, 30, 28), style.PREDICTION)):
            middle = ((x0 + x1) / 2, (y0 + y1) / 2)
            on = [(x0 - 0.5, middle[1]), (x1 + 0.5, middle[1]), (middle[0], y0 - 0.5), (middle[0], y1 + 0.5)]
            for x, y in on:  # inclusive pixels: the outline runs around them
                assert support.is_colour(support.colour_at(figure, axes, x, y), colour), (x, y)
        for x, y in ((8, 20), (20, 20), (45, 35), (60, 44)):
            assert np.abs(support.colour_at(figure, axes, x, y).astype(int) - GREY).max() <= 2


def test_no_box_found_and_several_true_boxes() -> None:
    heat = np.ones((2, 2))
    example = Example(_grey(), [(2, 2, 20, 20), (40, 20, 60, 40)], "tench", [Found(None, heat)])
    figure = cam_figure([example], ["gap"])
    drawn = [patch for patch in figure.axes[0].patches if patch.get_edgecolor()[:3] != (0, 0, 0)]
    assert len(drawn) == 2
    assert support.is_colour(support.colour_at(figure, figure.axes[0], 50, 19.5), style.TRUTH)


def test_overlay_by_hand() -> None:
    """Jet is (128, 0, 0) at 1 and (0, 0, 128) at 0: .5 * image + .3 * heat, negative values count as 0."""
    image = np.full((2, 2, 3), 100, np.uint8)
    mixed = overlay(image, [[4.0, -9.0], [0.0, 2.0]])
    assert mixed[0, 0].tolist() == [88, 50, 50]
    assert mixed[0, 1].tolist() == mixed[1, 0].tolist() == [50, 50, 88]
    assert mixed[1, 1].astype(int)[1] > 100  # green in the middle of the scale
    assert (overlay(image, [[1.0]], image_weight=1.0, heat_weight=0.0) == image).all()
    assert (overlay(image, np.zeros((3, 3)))[..., 2] == 88).all()  # a map without positive values is cold
    assert overlay(np.full((1, 1, 3), 255, np.uint8), [[1.0]], 1.0, 1.0).max() == 255  # saturates
    with pytest.raises(ValueError, match=r"heat: expected a map \(h, w\), got shape \(2, 2, 2\)"):
        overlay(image, np.zeros((2, 2, 2)))


def test_maps_are_shown_beside_their_pictures() -> None:
    figure = cam_figure([_example(_grey())], ["gap", "has"])
    assert (np.asarray(figure.axes[1].images[0].get_array()) == overlay(_grey(), _example(_grey()).found[0].heat)).all()


@pytest.mark.parametrize("blocks", [1, 2])
def test_cam_figures_are_legible(blocks: int) -> None:
    examples = [_example(_grey(h, w), label=LONG) for h, w in ((48, 64), (64, 48), (40, 120), (120, 40), (64, 64))]
    figure = cam_figure(examples, ["AlexNet-GAP", "a network with a rather long name"], title="Title", blocks=blocks)
    support.check_legible(figure)
    assert len(figure.axes) == 5 * 2 * 2


def test_bad_examples() -> None:
    with pytest.raises(ValueError, match="examples=0"):
        cam_figure([], ["gap"])
    with pytest.raises(ValueError, match=r"examples\[0\]\.found: expected 1 entries, one per network"):
        cam_figure([_example(_grey())], ["gap"])


def test_filters_are_scaled_jointly_and_tiled() -> None:
    """Six 2 x 2 filters in three columns: squares of one size, white between them."""
    weights = np.zeros((6, 3, 2, 2))
    weights[0, 0, 0, 0], weights[4, 1, 1, 1] = -1.0, 3.0  # the range of all filters: 0 is a quarter of the way up
    sheet = tiled(weights, columns=3)
    zoom = 60  # 120 pixels at most for a filter
    assert sheet.shape == (4 * zoom + 4, 6 * zoom + 8, 3)
    zero = round(255 / 4)
    assert sheet[0, 0].tolist() == sheet[zoom - 1, zoom - 1].tolist() == [0, zero, zero]
    assert sheet[zoom, zoom].tolist() == [zero, zero, zero]
    top, left = 2 * zoom + 4, 2 * zoom + 4  # filter 4: second row, second column
    assert sheet[top + 2 * zoom - 1, left + 2 * zoom - 1].tolist() == [zero, 255, zero]
    assert (sheet[2 * zoom : 2 * zoom + 4] == 255).all() and (sheet[:, 2 * zoom : 2 * zoom + 4] == 255).all()


@pytest.mark.parametrize(("count", "columns"), [(96, 12), (64, 8), (16, 4), (1, 1), (7, 4)])
def test_columns_of_filters(count: int, columns: int) -> None:
    weights = np.random.default_rng(0).normal(size=(count, 3, 11, 11))
    width = tiled(weights).shape[1]
    side = (width + 4) // columns - 4
    assert side % 11 == 0 and width == columns * (side + 4) - 4


def test_filters_reach_the_figure_pixel_by_pixel() -> None:
    weights = np.random.default_rng(0).normal(size=(96, 3, 11, 11))
    figure = filters_figure({"AlexNet-GAP": weights, "AlexNet-HaS-Mixed, a rather long name": weights * 2})
    support.check_legible(figure)
    drawn, sheet = style.pixels(figure), tiled(weights)
    left = round(style.MARGIN * style.DPI)
    found = [
        y for y in range(drawn.shape[0] - len(sheet) + 1) if (drawn[y, left : left + sheet.shape[1]] == sheet[0]).all()
    ]
    assert any((drawn[y : y + len(sheet), left : left + sheet.shape[1]] == sheet).mean() > 0.999 for y in found)


def test_bad_filters() -> None:
    with pytest.raises(ValueError, match=r"expected \(K, 3, h, w\), a convolution on RGB, got shape \(8, 1, 3, 3\)"):
        filters_figure({"grey": np.zeros((8, 1, 3, 3))})
    with pytest.raises(ValueError, match="finite"):
        filters_figure({"nan": np.full((8, 3, 3, 3), np.nan)})
    with pytest.raises(ValueError, match="at least one network"):
        filters_figure({})


def test_answers_are_marked_right_or_wrong() -> None:
    examples = [Answers(_grey(64, 64), LONG, {"GAP": "tench, Tinca tinca", "HaS": LONG}) for _ in range(7)]
    figure = occlusion_figure(examples, columns=3, title="Occluded images, with a title that is too long for one line")
    support.check_legible(figure)
    marks = [(t.get_text(), t.get_color()) for t in support.texts(figure) if t.get_text() in ("\u2713", "\u2717")]
    assert marks == [("\u2717", style.WRONG), ("\u2713", style.RIGHT)] * 7
    answers = [t.get_text() for t in support.texts(figure) if t.get_text().startswith("GAP: ")]
    assert answers == ["GAP: tench"] * 7
    assert len(figure.axes) == 7
    with pytest.raises(ValueError, match="examples=0"):
        occlusion_figure([])


def test_strip_shows_the_loaders_masks() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    policies = {"S = 16": HideAndSeek((16,), seed=3), "never": HideAndSeek((8,), p_hide=0.0)}
    figure = strip_figure(image, policies, [0, 5], (120.4, 110.6, 100.0), sample_id=9, title="Strip")
    support.check_legible(figure)
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert (shown[0] == image).all()
    for picture, epoch in ((shown[1], 0), (shown[3], 5)):
        mask = policies["S = 16"].mask([9], epoch, 64, 64)[0]
        assert (picture[mask] == (120, 111, 100)).all() and (picture[~mask] == image[~mask]).all()
        assert f"{mask.mean():.0%} hidden" in [text.get_text() for text in support.texts(figure)]
    assert (shown[2] == image).all() and (shown[4] == image).all()
    assert [text.get_text() for text in support.texts(figure)].count("whole") == 2
    with pytest.raises(ValueError, match="epochs=0"):
        strip_figure(image, policies, [], (0, 0, 0))
