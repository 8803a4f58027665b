"""Comparison of runs: hand-computed means, spreads, differences and intervals, on report files written here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from has_dali.console import Terminal
from has_dali.trainers.results.compare import Comparison, Line, Pair, compare, show, to_markdown
from has_dali.trainers.results.report import Report, switches_of
from has_dali.trainers.settings import LocalisationSettings

TINY = {"name": "tiny-20", "train_images": 10_000, "val_images": 1_000, "classes": 20, "list_hash": "ab"}
ILSVRC = {"name": "in1k", "train_images": 1_281_167, "val_images": 50_000, "classes": 1000, "list_hash": "cd"}
NONE = {"method": "none", "patch_sizes": None}
HAS_32 = {"method": "has", "patch_sizes": [32]}


def _report(seed: int, hide: dict[str, Any], metrics: dict[str, float | None], **changes: Any) -> dict[str, Any]:
    report = {
        "version": 1,
        "task": "localisation",
        "recipe": "small",
        "method": "AlexNet-GAP" if hide["method"] == "none" else "AlexNet-HaS-32",
        "table": "II",
        "seed": seed,
        "settings": {
            "model": {"name": "smallnet", "pool": "gap"},
            "loader": {"size": 64, "threads": seed},
            "hide": hide,
            "paper": {"metric": None},
        },
        "trainer": {"max_epochs": 30},
        "dataset": TINY,
        "metrics": {"best": {name: value and value + 1 for name, value in metrics.items()}, "last": metrics},
        "baselines": {"centre box": {"gt_known": 41.5}},
        "started": f"2026-11-25T10:0{seed}:00",
        "epochs": 30,
    }
    return {**report, **changes}


def _write(folder: Path, **reports: dict[str, Any]) -> Path:
    for name, report in reports.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "report.json").write_text(json.dumps(report))
    return folder


def _line(comparison: Comparison, label: str, metric: str) -> Line:
    (line,) = (line for line in comparison.lines if (line.arm.label, line.metric) == (label, metric))
    return line


def _pair(comparison: Comparison, label: str, metric: str) -> Pair:
    (pair,) = (pair for pair in comparison.pairs if (pair.arm.label, pair.metric) == (label, metric))
    return pair


@pytest.fixture
def three_seeds(tmp_path: Path) -> Path:
    """Baseline 40, 42, 44; Hide-and-Seek 41, 44, 47 on GT-known."""
    runs = {f"gap-{s}": _report(s, NONE, {"gt_known": 40.0 + 2 * s, "loss": 0.5}) for s in range(3)}
    runs |= {f"has-{s}": _report(s, HAS_32, {"gt_known": 41.0 + 3 * s, "loss": 0.9}) for s in range(3)}
    return _write(tmp_path / "runs", **runs)


def test_mean_and_spread_over_seeds(three_seeds: Path) -> None:
    comparison = compare([three_seeds])
    assert [arm.label for arm in comparison.arms] == ["AlexNet-GAP", "AlexNet-HaS-32"]
    ours = _line(comparison, "AlexNet-HaS-32", "gt_known").ours
    assert (ours.mean, ours.std, ours.count) == (44.0, 3.0, 3)  # (9 + 0 + 9) / 2 = 9
    assert _line(comparison, "AlexNet-GAP", "gt_known").ours.std == 2.0


def test_paired_difference_with_students_interval(three_seeds: Path) -> None:
    """Differences 1, 2, 3: mean 2, s = 1, t(0.975, 2) = 4.30265, so 2 +- 4.30265 / sqrt(3) = 2 +- 2.48414."""
    pair = _pair(compare([three_seeds]), "AlexNet-HaS-32", "gt_known")
    assert pair.baseline.label == "AlexNet-GAP"
    assert pair.differences == {0: 1.0, 1: 2.0, 2: 3.0} and pair.mean == 2.0
    assert pair.interval == pytest.approx((-0.48414, 4.48414), abs=1e-5)
    assert pair.printed is not None and pair.printed.value == pytest.approx(58.75 - 54.90)
    assert not pair.printed.same_data


def test_best_or_last_evaluation(three_seeds: Path) -> None:
    assert _line(compare([three_seeds], "best"), "AlexNet-GAP", "gt_known").ours.mean == 43.0
    with pytest.raises(ValueError, match="which='final': expected last or best"):
        compare([three_seeds], "final")  # type: ignore[arg-type]


def test_paper_on_its_own_data(tmp_path: Path) -> None:
    _write(tmp_path, a=_report(0, NONE, {"gt_known": 55.4}, dataset=ILSVRC))
    line = _line(compare([tmp_path]), "AlexNet-GAP", "gt_known")
    assert line.printed is not None and line.printed.same_data and line.printed.value == 54.90
    assert line.difference == pytest.approx(0.5)


def test_a_row_with_several_data_sets_needs_the_right_one(tmp_path: Path) -> None:
    """Table VIII prints "Full" for three data sets: on a fourth there is nothing to compare with."""
    of_table = {"task": "classification", "method": "Full", "table": "VIII"}
    cifar = {"name": "c", "train_images": 50_000, "val_images": 10_000, "classes": 100, "list_hash": ""}
    _write(
        tmp_path,
        other=_report(0, NONE, {"resnet44_acc": 80.0}, **of_table),
        same=_report(0, NONE, {"resnet44_acc": 74.0}, **of_table, dataset=cifar),
    )
    lines = compare([tmp_path]).lines
    assert {line.printed and line.printed.value for line in lines} == {None, 74.37}


def test_runs_that_differ_in_effect_are_different_arms(tmp_path: Path) -> None:
    longer = {"trainer": {"max_epochs": 60}}
    _write(
        tmp_path,
        short=_report(0, NONE, {"top1": 50.0}, method=None, table=None),
        long=_report(0, NONE, {"top1": 60.0}, method=None, table=None, **longer),
        long_again=_report(1, NONE, {"top1": 62.0}, method=None, table=None, **longer),
    )
    lines = {line.arm.label: line.ours for line in compare([tmp_path]).lines}
    assert set(lines) == {"small (trainer.max_epochs=30)", "small (trainer.max_epochs=60)"}
    assert lines["small (trainer.max_epochs=60)"].mean == 61.0


def test_settings_of_hiding_do_not_split_the_baseline(tmp_path: Path) -> None:
    runs = {f"r{s}": _report(s, {"method": "none", "patch_sizes": [s]}, {"top1": 50.0}) for s in range(2)}
    assert len(compare([_write(tmp_path, **runs)]).arms) == 1


@pytest.mark.parametrize(("method", "arms"), [("random-erasing", 1), ("pixel-dropout", 1), ("has", 2), ("conv1", 2)])
def test_patch_sizes_count_where_patches_are_hidden(tmp_path: Path, method: str, arms: int) -> None:
    runs = {f"r{s}": _report(s, {"method": method, "patch_sizes": [8 + s]}, {"top1": 50.0}) for s in range(2)}
    assert len(compare([_write(tmp_path, **runs)]).arms) == arms


def test_unnamed_arms_are_told_apart_by_what_they_hide(tmp_path: Path) -> None:
    unnamed = {"method": None, "table": None}
    _write(
        tmp_path,
        a=_report(0, NONE, {"top1": 50.0}, **unnamed),
        b=_report(0, HAS_32, {"top1": 51.0}, **unnamed),
        c=_report(0, {"method": "has", "patch_sizes": [16]}, {"top1": 52.0}, **unnamed),
    )
    assert {arm.label for arm in compare([tmp_path]).arms} == {
        "small (hide.method=none)",
        "small (hide.method=has, hide.patch_sizes=[32])",
        "small (hide.method=has, hide.patch_sizes=[16])",
    }


def test_no_pair_with_an_arm_that_differs_in_more_than_hiding(tmp_path: Path) -> None:
    gmp = {"model": {"name": "smallnet", "pool": "gmp"}, "loader": {"size": 64}, "hide": HAS_32}
    _write(tmp_path, gap=_report(0, NONE, {"top1": 50.0}), gmp=_report(0, HAS_32, {"top1": 49.0}, settings=gmp))
    comparison = compare([tmp_path])
    assert comparison.pairs == ()
    assert comparison.notes == ("AlexNet-HaS-32 has no baseline: AlexNet-GAP also differs in model.pool",)


def test_only_common_seeds_are_paired(tmp_path: Path) -> None:
    _write(
        tmp_path,
        a=_report(0, NONE, {"top1": 50.0}),
        b=_report(1, NONE, {"top1": 40.0}),
        c=_report(1, HAS_32, {"top1": 43.0}),
        d=_report(2, HAS_32, {"top1": 99.0}),
    )
    pair = _pair(compare([tmp_path]), "AlexNet-HaS-32", "top1")
    assert pair.differences == {1: 3.0} and pair.interval is None


def test_no_seed_in_common_is_said(tmp_path: Path) -> None:
    _write(tmp_path, a=_report(0, NONE, {"top1": 50.0}), b=_report(1, HAS_32, {"top1": 43.0}))
    assert compare([tmp_path]).notes == ("AlexNet-HaS-32 and its baseline AlexNet-GAP have no seed in common",)


def test_a_repeated_seed_counts_once(tmp_path: Path) -> None:
    _write(
        tmp_path,
        z_old=_report(0, NONE, {"top1": 50.0}, started="2026-11-01"),
        a_new=_report(0, NONE, {"top1": 60.0}, started="2026-11-02"),
    )
    comparison = compare([tmp_path])
    assert comparison.lines[0].ours.mean == 60.0 and comparison.lines[0].ours.count == 1
    (note,) = comparison.notes
    assert note.startswith("seed 0 was run twice") and note.index("a_new") < note.index("z_old")


def test_a_row_that_the_paper_repeats_is_named_with_its_table(tmp_path: Path) -> None:
    _write(tmp_path, a=_report(0, NONE, {"top1": 50.0}), b=_report(0, NONE, {"top1": 50.0}, table="IV"))
    assert [arm.label for arm in compare([tmp_path]).arms] == ["AlexNet-GAP, table II", "AlexNet-GAP, table IV"]


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path, a=_report(0, NONE, {"top1": 50.0, "loss": None}), b=_report(1, NONE, {"top1": 52.0, "loss": 0.5}))
    comparison = compare([tmp_path])
    assert _line(comparison, "AlexNet-GAP", "loss").ours.count == 1
    assert _line(comparison, "AlexNet-GAP", "top1").ours.count == 2


def test_files_folders_and_repeated_paths(three_seeds: Path) -> None:
    one = three_seeds / "gap-0"
    assert compare([one, one / "report.json", three_seeds / ".." / "runs" / "gap-0"]).lines[0].ours.count == 1
    assert compare([three_seeds, one]).lines[0].ours.count == 3


def test_what_a_run_writes_can_be_compared(tmp_path: Path) -> None:
    settings = LocalisationSettings()
    settings.hide.method = "none"
    report = Report("localisation", "small", 4, settings.to_dict(), {"max_epochs": 30}, TINY, switches_of(settings))
    report.metrics = {"best": {"gt_known": 51.0}, "last": {"gt_known": float("nan"), "top1": 50.0}}
    report.write(tmp_path)
    comparison = compare([tmp_path])
    (line,) = comparison.lines
    assert (line.metric, line.ours.mean, line.arm.label, line.arm.hides) == ("top1", 50.0, "small", False)
    assert list(line.arm.values("top1", "last")) == [4]


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no report\.json in it or below"):
        compare([tmp_path])
    with pytest.raises(ValueError, match="no runs were given"):
        compare([])
    with pytest.raises(FileNotFoundError, match="missing"):
        compare([tmp_path / "missing"])
    file = tmp_path / "report.json"
    file.write_text("{broken")
    with pytest.raises(ValueError, match=rf"{re.escape(str(file))}: not JSON"):
        compare([file])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "expected a report of version 1"),
        ({"seed": "0"}, "seed: expected int, got str"),
        ({"metrics": {"last": {}}}, "metrics.best: expected metrics by name, got NoneType"),
        ({"metrics": {"best": {}, "last": {"top1": "high"}}}, "metrics.last.top1: expected a number, got 'high'"),
        ({"settings": None}, "settings: expected dict, got NoneType"),
        ({"metrics": {"best": {}, "last": {}}}, "none of the 1 reports holds a finite metric"),
    ],
)
def test_damaged_reports(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare([_write(tmp_path, run=_report(0, NONE, {"top1": 50.0}) | changes)])


def test_tables_on_the_terminal(three_seeds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(Terminal(), compare([three_seeds]))
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines()]
    assert ["AlexNet-HaS-32", "58.75*", "44.00", "±", "3.00", "-14.75", "3"] in rows
    assert ["centre", "box", "(nothing", "learned)", "-", "41.50", "-"] in rows
    assert "AlexNet-HaS-32 - AlexNet-GAP +3.85* +2.00 -0.48 to +4.48 +1.00 +2.00 +3.00 3" in map(" ".join, rows)
    assert "10,000 to train, 1,000 to evaluate, 20 classes" in text
    assert "* on the paper's own data, ilsvrc_val: not the same experiment" in text


def test_markdown(three_seeds: Path) -> None:
    lines = to_markdown(compare([three_seeds]), ["gt_known"]).splitlines()
    assert "|  | paper | ours | ours - paper | seeds |" in lines and "|---|---:|---:|---:|---:|" in lines
    assert "| **gt_known** |  |  |  |  |" in lines
    assert "| AlexNet-GAP | 54.90* | 42.00 ± 2.00 | -12.90 | 3 |" in lines
    assert not any("loss" in line for line in lines)
    with pytest.raises(ValueError, match="metric 'map': no run has it; there are gt_known, loss"):
        to_markdown(compare([three_seeds]), ["map"])
