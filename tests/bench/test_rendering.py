"""Tables say the same on the terminal and in Markdown; nothing is left out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from has_dali.bench import rendering
from has_dali.bench.results import Bar, Latency, Result, Row, Table
from has_dali.bench.timing import Interval, Summary
from has_dali.console import Terminal


def words_of(result: Result) -> dict[str, str]:
    _, rows = rendering.table_cells(result.tables[0])
    return {row[0]: row[-1] for row in rows}


def test_every_row_is_shown_with_what_it_is(fabricated: Callable[..., Result]) -> None:
    assert words_of(fabricated()) == {
        "SPDL, four threads": "loss",
        "decode the crop box, nothing else": "bound",
        "has_dali, with Hide-and-Seek": "baseline",
        "DALI's own operators": "win",
        "torchvision DataLoader, Pillow and the usual loop over patches": "win",
        "FFCV": "skipped",
        "a lazy peer": "void",
    }


def test_rows_go_from_fast_to_slow_whatever_the_unit() -> None:
    for better, expected in (("higher", ["b", "a"]), ("lower", ["a", "b"])):
        rows = [Row("a", "a", value=Summary((1.0,))), Row("b", "b", value=Summary((2.0,)))]
        table = Table("t", "T", "s", better, "a", rows=[Row("c", "c", status="skipped", reason="r"), *rows])
        assert [row.key for row in rendering.ordered(table)] == [*expected, "c"]


def test_terminal_and_markdown_agree(fabricated: Callable[..., Result], capsys: pytest.CaptureFixture[str]) -> None:
    result = fabricated()
    rendering.show(Terminal(), result)
    shown = " ".join(capsys.readouterr().out.split())
    text = rendering.markdown(result)
    spdl = result.tables[0].row("spdl")
    assert spdl is not None and spdl.ratio is not None
    parts = (
        rendering.times(spdl.ratio),
        "loss",
        "skipped",
        "void",
        "No module named 'ffcv'",
        "hides 12.5%",
        "not measured",
    )
    for part in (*parts, "age cache warm"):
        assert part in shown and part in text, part
    assert "| over SPDL |" in text and "NO |" in text and "| aim |" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.count("|") - line.count("\\|") for line in lines}
    assert widths == {8, 9, 7}  # loaders, the sweep with its axis, bars


def test_a_row_of_ours_against_a_baseline_of_others_is_judged_for_us() -> None:
    rows = [Row("peer", "peer", value=Summary((10.0,) * 3)), Row("us", "us", "ours", value=Summary((20.0,) * 3))]
    table = Table("t", "T", "images/s", "higher", "peer", rows=rows)
    table.fill_ratios()
    assert rendering.verdict(table, rows[1]) == "win"
    table.better = "lower"
    table.fill_ratios()
    assert rendering.verdict(table, rows[1]) == "loss"
    rows[1].value = Summary((9.0, 10.0, 11.0))
    table.fill_ratios()
    assert rendering.verdict(table, rows[1]) == "draw"


def test_a_sweep_judges_rows_of_one_place_only(fabricated: Callable[..., Result]) -> None:
    sweep = fabricated().tables[1]
    columns, rows = rendering.table_cells(sweep)
    assert columns[1] == "threads" and [row[1] for row in rows] == ["1", "1", "2", "2", "4", "4"]
    assert [row[-1] for row in rows] == ["baseline", "win", "", "", "", ""]


def test_unstable_rows_are_flagged(fabricated: Callable[..., Result]) -> None:
    result = fabricated(noise=0.3)
    assert "unstable" in words_of(result)["DALI's own operators"]
    assert any(
        "repeat on an idle machine" in note and "threads 2" in note for note in rendering.table_notes(result.tables[1])
    )


@pytest.mark.parametrize(
    ("bar", "cells"),
    [
        (Bar("b", Summary((2.0,)), 1.0, aim=3.0), ["b", "2", "", ">= 1", ">= 3", "yes"]),
        (Bar("b", Summary((3.5,)), 1.0, aim=3.0), ["b", "3.50", "", ">= 1", ">= 3", "aim"]),
        (Bar("b", Summary((0.5, 0.5)), 1.0), ["b", "0.500", "0.500-0.500", ">= 1", "", "NO"]),
        (Bar("b", Summary((0.5,)), at_most=1.0, aim=0.4), ["b", "0.500", "", "<= 1", "<= 0.4", "yes"]),
        (
            Bar("b", Summary((0.5,)), at_most=1.0, interval=Interval(0.5, 0.2, 1.1)),
            ["b", "0.500", "", "<= 1", "", "not resolved"],
        ),
        (
            Bar("b", Summary((0.5,)), at_most=1.0, interval=Interval(0.5, 0.2, 0.9)),
            ["b", "0.500", "", "<= 1", "", "yes"],
        ),
        (Bar("b", None, at_most=1.25), ["b", "", "", "<= 1.25", "", "not measured"]),
    ],
)
def test_bars(bar: Bar, cells: list[str]) -> None:
    assert rendering.bar_cells(bar) == cells


def test_a_bar_that_is_not_resolved_says_why() -> None:
    bar = Bar("b", Summary((0.5,)), at_most=1.0, note="n", interval=Interval(0.5, 0.2, 1.1))
    first, second = rendering.bar_notes([bar])
    assert first == "b: n" and "not resolved" in second and "0.200 to 1.10" in second


def test_a_percentile_of_few_steps_is_left_blank() -> None:
    table = Table("t", "T", "s", "higher", "a", rows=[])
    for count, shown in ((99, ""), (100, "90")):
        table.rows = [Row("a", "a", value=Summary((1.0,)), latency=Latency(60, 70, 90, 120, count))]
        columns, (cells,) = rendering.table_cells(table)
        assert cells[columns.index("p99 ms/step")] == shown


@given(st.floats(1e-6, 1e9))
def test_figures_keep_what_counts(value: float) -> None:
    assert float(rendering.figure(value).replace(",", "")) == pytest.approx(value, rel=0.006)


def test_markdown_shows_text_as_it_is() -> None:
    assert rendering.escaped("a|b *c* _d_ `e` <f>\ng") == "a\\|b \\*c\\* \\_d\\_ \\`e\\` \\<f> g"
