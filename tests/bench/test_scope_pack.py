"""The scope ``pack``: three forms of the same images do the same job, FFCV is skipped where it is missing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from has_dali.bench import timing
from has_dali.bench.peers import loader_job
from has_dali.bench.results import Result, Row, Table
from has_dali.bench.scopes import pack
from has_dali.console import Terminal
from has_dali.pipelines.raw_spans import RawSource
from has_dali.pipelines.sources import open_source
from has_dali.pipelines.spans import SpanSource

SHORT = timing.Window(seconds=0.0, batches=1, discarded=0, stride=1)


def _options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    pack.add_options(parser)
    return parser.parse_args(words)


def test_a_run(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch, assert_valid: Callable[[Result], None]) -> None:
    for name in ("ffcv", "ffcv.fields", "ffcv.fields.decoders"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(pack, "_QUICK_WINDOW", SHORT)
    monkeypatch.setattr(loader_job, "EPOCH_IMAGES", 72)
    words = (str(jpeg_folder), "--rounds", "2", "--batch", "12", "--size", "48", "--short-side", "64", "--quick")
    result = pack.run(_options(*words), Terminal(quiet=True))
    assert_valid(result)
    (table,) = result.tables
    assert [row.key for row in table.rows] == ["originals", "packed", "raw", "ffcv"]
    for row in table.rows[:3]:
        assert row.status == "measured" and row.value is not None and len(row.value.values) == 2, row.reason
        assert row.check is not None and row.check["shape"] == (12, 3, 48, 48)
    sizes = [row.extra["kilobytes_per_image"] for row in table.rows[:3]]
    assert sizes[0] > sizes[1] and 64 * 85 * 3 / 1000 < sizes[2] < 30  # pixels, and what tar adds
    assert table.rows[1].extra["packed_images_per_second"] > 0
    assert table.rows[3].status == "skipped" and "ffcv does not import" in str(table.rows[3].reason)
    assert [bar.value for bar in result.bars] == [
        table.speed_ratio("packed", "originals"), table.speed_ratio("raw", "packed"),
    ]  # fmt: skip
    assert result.settings["images"] == 36 and result.settings["short_side"] == 64
    assert result.data is not None and result.data["images"] == 36


def test_the_forms_hold_the_same_samples(jpeg_folder: Path, tmp_path: Path) -> None:
    source = open_source(jpeg_folder)
    forms = pack.packed_forms(source, tmp_path, {"short_side": 64, "quality": 90})
    assert [type(forms[key][0]) for key in ("packed", "raw")] == [SpanSource, RawSource]
    assert all(form.labels.tolist() == source.labels.tolist() for form, _ in forms.values())


def test_the_bars() -> None:
    table = Table("pack", "t", "images/s", "higher", "originals")
    for key, rate in (("originals", 100.0), ("packed", 250.0), ("raw", 450.0)):
        table.rows.append(Row(key, key, value=timing.Summary((rate, rate))))
    packed, raw = pack.bars(table)
    assert packed.met and not packed.aim_met and packed.value is not None and packed.value.median == 2.5
    assert raw.met is False and raw.value is not None and raw.value.median == 1.8
    table.rows.pop()
    assert pack.bars(table)[1].met is None


@pytest.mark.parametrize("option", ["--rounds", "--batch", "--size", "--short-side", "--quality"])
def test_bad_options(option: str, jpeg_folder: Path) -> None:
    with pytest.raises(ValueError, match=option):
        pack.run(_options(str(jpeg_folder), option, "0"), Terminal(quiet=True))
