"""The columns of a sweep are the metrics that its data has: of boxes, or of masks."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from has_dali.console import Terminal
from has_dali.trainers.settings import LocalisationSettings
from has_dali.trainers.sweeps import sweep
from has_dali.trainers.sweeps.arms import Arm


@pytest.mark.parametrize(
    ("last", "columns"),
    [
        ({"gt_known": 40.0, "top1_loc": 20.0, "top1": 50.0, "pxap_like": 1.0}, ["gt_known", "top1_loc", "top1"]),
        ({"pxap": 60.0, "top1": 50.0}, ["pxap", "top1"]),
    ],
)
def test_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], last: dict[str, float], columns: list[str]
) -> None:
    for seed in range(2):
        folder = tmp_path / "arm" / f"seed-{seed}"
        folder.mkdir(parents=True)
        metrics = {name: value + 2 * seed for name, value in last.items()}
        (folder / "report.json").write_text(json.dumps({"version": 1, "metrics": {"last": metrics, "best": {}}}))
    recipe, settings = SimpleNamespace(name="small"), LocalisationSettings()
    options: Any = SimpleNamespace(task="localisation", out=tmp_path, recipe=recipe, settings=settings)
    arm = Arm("arm", (("II", "AlexNet-GAP"),), ())
    row = sweep._row(options, arm, "II", "AlexNet-GAP", 2)
    assert row.values == {name: [last[name], last[name] + 2] for name in columns}
    sweep.show(Terminal(), options, [row])
    shown = capsys.readouterr().out
    assert all(name in shown for name in columns)
    assert ("gt_known" in shown) == ("gt_known" in columns) and ("pxap" in shown) == ("pxap" in columns)
    assert f"{last['top1'] + 1:.2f} +- 1.41" in shown
