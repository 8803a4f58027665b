"""``pack`` and ``check`` from the command line: results, exit codes, and bad input that leaves nothing behind."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.cli import run_guarded
from has_dali.pipelines import data_commands, image_loader
from has_dali.pipelines.data_commands import parsed_size


def _run(command: Callable[[Sequence[str]], int], *argv: object) -> int:
    return run_guarded(f"has-dali {command.__name__}", lambda: command([str(word) for word in argv]))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)).save(folder / f"{i}.jpg")
    return tmp_path / "data"


def test_pack_then_load(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    options = ["--short-side", 32, "--shard-size", "20KB", "--jobs", 2, "--json", report]
    assert _run(data_commands.pack, data, tmp_path / "jpeg", *options) == 0
    assert "8 images in" in capsys.readouterr().out
    result = json.loads(report.read_text())
    assert result["images"] == 8 and result["kept"] == 0 and result["shards"] > 1
    assert _run(data_commands.pack, data, tmp_path / "jpeg", *options) == 0
    assert f"{result['shards']} of them kept from an earlier run" in capsys.readouterr().out
    assert _run(data_commands.pack, tmp_path / "jpeg", tmp_path / "raw", "--raw", "--quiet") == 0  # shards as a source
    assert capsys.readouterr().out == ""
    originals, packed, raw = (
        list(image_loader(folder, 4, train=True, size=24, device="cpu"))
        for folder in (data, tmp_path / "jpeg", tmp_path / "raw")
    )
    for a, b, c in zip(originals, packed, raw, strict=True):
        assert a["id"].tolist() == b["id"].tolist() == c["id"].tolist()
        assert a["label"].tolist() == b["label"].tolist() == c["label"].tolist()
        assert (b["image"] - c["image"]).abs().mean() < 0.05  # decoded by two decoders


def test_check_lists_what_is_wrong(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "bee" / "2.jpg").write_text("no image")
    (data / "bee" / "3.jpg").write_bytes((data / "ant" / "0.jpg").read_bytes())
    found, report = tmp_path / "found.csv", tmp_path / "report.json"
    assert _run(data_commands.check, data, "--jobs", 1, "--csv", found, "--json", report) == 1
    out = capsys.readouterr().out
    assert "8 images checked: 1 broken" in out and "2.jpg" in out and "duplicate" in out
    rows = list(csv.DictReader(found.open()))
    assert [(row["id"], row["finding"]) for row in rows] == [("6", "broken"), ("7", "duplicate")]
    assert json.loads(report.read_text())["findings"] == {"broken": 1, "duplicate": 1}


def test_check_of_a_good_plain_folder(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(data_commands.check, data / "ant", "--jobs", 1) == 0
    assert capsys.readouterr().out == "4 images checked: 0 broken\n"


def test_broken_images_stop_pack_or_are_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "ant" / "1.jpg").write_bytes(b"")
    assert _run(data_commands.pack, data, tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "1.jpg: the file is empty" in err and "--on-error skip" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert _run(data_commands.pack, data, tmp_path / "out", "--on-error", "skip") == 0
    assert "1 broken images left out" in capsys.readouterr().out
    assert "1.jpg" in (tmp_path / "out" / "skipped.csv").read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--shard-size", "256"], ""),
        (["--shard-size", "lots"], "--shard-size lots"),
        (["--shard-size", "0MB"], "--shard-size 0MB"),
        (["--short-side", "-1"], "short_side"),
        (["--quality", "0"], "quality"),
        (["--jobs", "0"], "jobs"),
        (["--on-error", "stop"], "--on-error"),
        (["--json", "no/such/folder/x.json"], "no/such/folder"),
    ],
)
def test_bad_options(
    options: list[str], named: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(data_commands.pack, data, tmp_path / "out", *options) == (2 if named else 0)
    err = capsys.readouterr().err
    assert named in err and err.count("\n") <= 1
    assert (tmp_path / "out").exists() == (not named)


@pytest.mark.parametrize("command", [data_commands.pack, data_commands.check])
def test_missing_data(
    command: Callable[[Sequence[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [tmp_path / "none", *([tmp_path / "out"] if command is data_commands.pack else [])]
    assert _run(command, *words) == 2
    err = capsys.readouterr().err
    assert "none" in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_sizes_with_units() -> None:
    texts = ["1", "256MB", "1.5 GiB", "2kb", "3KiB", "1GB"]
    assert [parsed_size("--x", text) for text in texts] == [1, 256 * 10**6, 3 * 2**29, 2000, 3072, 10**9]
