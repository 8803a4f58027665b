"""What all figures share: letters that fit, labels that keep apart, files that appear whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from has_dali.trainers.figures import style


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.floats(0.1, 20))
def test_spread_labels(positions: list[float], gap: float) -> None:
    places = style.spread(positions, gap)
    order = np.argsort(positions, kind="stable")
    assert (np.diff(np.array(places)[order]) >= gap - 1e-6).all()
    assert np.mean(places) == pytest.approx(np.mean(positions), abs=1e-6)  # none is pushed away one-sidedly


def test_spread_moves_only_what_touches() -> None:
    assert style.spread([10.0, 0.0, 10.5], 1.0) == pytest.approx([9.75, 0.0, 10.75])
    assert style.spread([3.0, 1.0], 1.0) == [3.0, 1.0]
    assert style.spread([5.0, 5.0, 5.0], 2.0) == [3.0, 5.0, 7.0]
    assert style.spread([], 1.0) == []


def test_long_names_are_shortened_to_the_width() -> None:
    name = "sulphur-crested cockatoo, Kakatoe galerita"
    short = style.shortened(name, 1.0, 8)
    assert short.endswith("\u2026") and name.startswith(short[:-1]) and len(short) > 8
    assert style.text_width(short, 8) <= 1.0 < style.text_width(name, 8)
    assert style.shortened("tench", 1.0, 8) == "tench"
    assert style.text_width("tench", 8, "bold") > style.text_width("tench", 8)
    assert style.text_width("$x_1$", 8) > style.text_width("x_1", 8)  # no mathematics in class names


def test_first_of_several_names() -> None:
    assert style.first_name("tench, Tinca tinca") == style.first_name("tench") == "tench"


def test_lighter_colours_are_opaque() -> None:
    assert style.lightened("#000000", 0.5) == "#808080" and style.lightened("#ff0000", 0.0) == "#ff0000"


def test_keys_break_lines() -> None:
    names = ["first", "second", "third"]
    one, half = style.key_lines(names, 10.0), style.key_lines(names, 1.2)
    assert [[i for i, _, _ in line] for line in one] == [[0, 1, 2]]
    assert len(half) > 1 and [i for line in half for i, _, _ in line] == [0, 1, 2]
    assert all(line[0][2] == 0 for line in half)


def test_a_file_appears_whole(tmp_path: Path) -> None:
    figure = style.new_figure(1.5, 1.0)
    style.save_png(figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.size == (1.5 * style.DPI, 1.0 * style.DPI)
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        style.save_png(figure, tmp_path / "missing" / "figure.png")


def test_pictures_are_checked() -> None:
    axes = style.panel(style.new_figure(1, 1), 0, 0, 1, 1)
    with pytest.raises(ValueError, match=r"image: expected \(H, W, 3\) uint8, got float64"):
        style.show_picture(axes, np.zeros((4, 4, 3)))
