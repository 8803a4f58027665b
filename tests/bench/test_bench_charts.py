"""Charts show every row, no text meets another, and the same figures give the same file."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from has_dali.bench import charts
from has_dali.bench.curves import curves
from has_dali.bench.plots import SWEEPS, plot_files, plots
from has_dali.bench.results import Result, Row, Table
from has_dali.bench.timing import Summary


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would have been saved."""
    figures: list[Any] = []
    monkeypatch.setattr(charts, "_save", lambda figure, path: figures.append(figure))
    return figures


def texts(figure: Any) -> list[Any]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [*figure.texts]
    for axes in figure.axes:
        found += [*axes.texts, axes.xaxis.label]
        if axes.axison:
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def assert_apart(figure: Any) -> None:
    """No two texts overlap, and none leaves the figure."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    width, height = figure.canvas.get_width_height()
    for name, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{name!r} leaves the figure"
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
        assert not overlap, f"{one!r} meets {two!r}"


def long_table(rows: int = 12) -> Table:
    """Long names, values far apart."""
    table = Table("t", "T", "images/s", "higher", "row-3")
    for i in range(rows):
        label = f"contender {i} with a long name that says which decoder, how many workers and what hides"
        kind = "ours" if i == 3 else "bound" if i < 2 else "peer"
        value = Summary(tuple(40000 / 1.9**i * factor for factor in (0.8, 1.0, 1.15)))
        table.rows.append(Row(f"row-{i}", label, kind, value=value))
    table.rows.append(Row("gone", "FFCV", status="skipped", reason="does not import; " * 20))
    table.fill_ratios()
    return table


def test_no_text_of_a_bar_chart_meets_another(fabricated: Callable[..., Result], drawn: list[Any]) -> None:
    charts.bar_chart(fabricated().tables[0], Path("a.png"), "Title", "subtitle " * 40)
    charts.bar_chart(long_table(), Path("a.png"), "A title that is far too long for the picture " * 4)
    charts.bar_chart(
        Table("t", "T", "s", "lower", "a", rows=[Row("a", "a", value=Summary((1e-6,)))]), Path("a.png"), "One"
    )
    assert len(drawn) == 3
    for figure in drawn:
        assert_apart(figure)


def test_every_row_is_in_the_picture(fabricated: Callable[..., Result], drawn: list[Any]) -> None:
    table = fabricated(noise=0.3).tables[0]
    charts.bar_chart(table, Path("a.png"), "Title")
    words = " ".join(text.get_text().replace("\n", " ") for text in texts(drawn[0]))
    for row in table.rows:
        assert row.label in words
    assert "skipped: does not import" in words and "void: hides 12.5%" in words
    assert "(loss)" in words and "unstable" in words and "a bound:" in words


def test_no_text_of_curves_meets_another(fabricated: Callable[..., Result]) -> None:
    tables = fabricated().tables
    for number in (1, 3):
        sweeps = [tables[1]]
        for i in range(1, number):
            places = ((x, {"x": x, "series": f"{i}"}) for x in (8, 9, 56))
            rows = [Row(f"{x}", "a", "ours", value=Summary((1e5 * x,)), extra=extra) for x, extra in places]
            sweeps.append(Table(f"s{i}", "S", "images/s", "higher", "8", {"x": f"size {i}"}, rows))
        figure = curves(sweeps, "Scaling")
        assert_apart(figure)
        drawn_axes = [axes for axes in figure.axes if axes.lines]
        assert len(drawn_axes) == number
        assert drawn_axes[0].get_xscale() == "log" and len(drawn_axes[0].lines) == 2
        assert list(drawn_axes[0].lines[0].get_xdata()) == [1, 2, 4]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_figures_give_the_same_file(suffix: str, fabricated: Callable[..., Result], tmp_path: Path) -> None:
    for draw, name in ((charts.bar_chart, "bars"), (lambda t, p, title: charts.curve_chart([t], p, title), "curves")):
        table = fabricated().tables[name == "curves"]
        files = [tmp_path / f"{name}{i}{suffix}" for i in range(2)]
        for file in files:
            draw(table, file, "Title")
        first, second = (file.read_bytes() for file in files)
        assert first == second
        if suffix == ".png":
            Image.open(files[0]).verify()
        else:
            assert first.startswith(b"<?xml") and b"<dc:date>" not in first


def test_nothing_to_draw(fabricated: Callable[..., Result], tmp_path: Path) -> None:
    gone = Table("t", "T", "s", "lower", "a", rows=[Row("a", "a", status="skipped", reason="r")])
    with pytest.raises(ValueError, match="no row was measured"):
        charts.bar_chart(gone, tmp_path / "a.png", "T")
    with pytest.raises(ValueError, match="there is no curve to draw"):
        charts.curve_chart([fabricated().tables[0]], tmp_path / "a.png", "T")
    with pytest.raises(ValueError, match=r"ends in \.png or \.svg"):
        charts.bar_chart(fabricated().tables[0], tmp_path / "a.jpg", "T")
    assert list(tmp_path.iterdir()) == []


def test_what_a_result_draws(fabricated: Callable[..., Result], tmp_path: Path) -> None:
    result = fabricated()
    assert [plot.key for plot in plots(result)] == [SWEEPS, "loader"]
    files = plot_files(result, tmp_path / "a.svg")
    assert [path.name for path in files] == ["a_scaling.svg", "a_loader.svg"]
    result.tables = result.tables[:1]
    assert list(plot_files(result, tmp_path / "a.svg")) == [tmp_path / "a.svg"]
