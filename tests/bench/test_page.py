"""docs/benchmarks.md from a fabricated set of runs: complete, the same every time, nothing stale left behind."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from has_dali.bench import page
from has_dali.console import write_json

Documented = Callable[..., dict[str, Any]]


@pytest.fixture
def runs(documented: Documented, tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    write_json(folder / "loader.json", documented(0))
    write_json(folder / "op.json", {**documented(1), "scope": "op", "title": "Operator"})
    write_json(folder / "older.json", {"rows": []})
    return folder


def test_the_page_says_everything(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "docs" / "benchmarks.md"
    out.parent.mkdir()
    written = page.write_page(runs, out)
    text = out.read_text()
    assert text.index("## Operator") < text.index("## Loaders")  # in the order of the scopes, whatever the file names
    for part in (
        "usable cores",
        "`has-dali bench loader`",
        "Page cache warm",
        "patch sizes 16/32",
        "fingerprint 0123456789abcdef",
        "load average",
        "| loader | over SPDL |",
        "NO |",
        "FFCV: skipped",
        "a lazy peer: void",
        "SPDL, four threads is faster than has\\_dali, with Hide-and-Seek",
        "numpy 2.",
    ):
        assert part in text, part
    pictures = set(re.findall(r"\(images/(bench_[^)]*)\)", text))
    assert pictures == {f"bench_{name}.svg" for name in ("loader_loader", "loader_scaling", "op_loader", "op_scaling")}
    assert {path.name for path in written} == {out.name, *pictures}
    assert all((out.parent / "images" / name).is_file() for name in pictures)
    assert str(tmp_path) not in text


def test_the_same_runs_give_the_same_page_and_stale_pictures_go(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "benchmarks.md"
    images = tmp_path / "images"
    page.write_page(runs, out)
    before = {path.name: path.read_bytes() for path in (out, *images.iterdir())}
    page.write_page(runs, out)
    assert before == {path.name: path.read_bytes() for path in (out, *images.iterdir())}
    (images / "photo.svg").write_text("mine")
    (runs / "op.json").unlink()
    page.write_page(runs, out)
    left = {path.name for path in images.iterdir()}
    assert left == {"bench_loader_loader.svg", "bench_loader_scaling.svg", "photo.svg"}


def test_long_settings_stay_in_the_document(documented: Documented) -> None:
    record = documented()
    record["settings"]["recipe"] = {f"option {i}": i for i in range(50)}
    text, _ = page.page({"loader": record}, "images")
    assert "recipe as in the document" in text and "option 49" not in text and "batch size 64" in text


@pytest.mark.parametrize("text", ["{ half a fi", '{"scope": "loader", "version": 1}', '{"scope": "loader"}'])
def test_a_broken_run_is_not_left_out(text: str, runs: Path, tmp_path: Path) -> None:
    (runs / "loader.json").write_text(text)
    with pytest.raises(ValueError, match=r"loader\.json"):
        page.write_page(runs, tmp_path / "benchmarks.md")
    assert not (tmp_path / "benchmarks.md").exists()


def test_no_loss_is_said_as_well(documented: Documented) -> None:
    text, _ = page.page({"loader": documented(speed=3.0)}, "images")
    assert "No contender was faster than ours at the same job." in text


def test_the_command(runs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "has_dali.bench.page", "--out", str(tmp_path / "p.md"), "--results"]
    done = subprocess.run([*command, str(runs)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "p.md" in done.stdout, done.stderr
    for folder, message in ((tmp_path / "none", "no such folder"), (tmp_path / "images", "no run to show")):
        done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
