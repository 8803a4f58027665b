"""``show`` and ``mean`` from the command line: results, and bad input that leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.cli import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)).save(folder / f"{i}.jpg")
    return tmp_path / "data"


def test_show_writes_a_sheet_and_a_report(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet, report = tmp_path / "s.png", tmp_path / "s.json"
    options = ["--preset", "face64", "--p-hide", "0.25", "--seed", "9", "--epochs", "2", "--size", "64"]
    assert main(["show", str(data), *options, "--out", str(sheet), "--json", str(report)]) == 0
    assert Image.open(sheet).format == "PNG"
    result = json.loads(report.read_text())
    assert result["policy"]["patch_sizes"] == [0, 8, 16, 32] and result["policy"]["p_hide"] == 0.25
    titles = [column["column"] for column in result["columns"]]
    assert titles == ["original", "S = 8", "S = 16", "S = 32", "epoch 0", "epoch 1"]
    assert 0.1 < result["columns"][1]["hidden_fraction"] < 0.4
    assert "S = 16" in capsys.readouterr().out


def test_show_takes_a_plain_folder_and_patch_sizes(data: Path, tmp_path: Path) -> None:
    assert main(["show", str(data / "ant"), "--patch-sizes", "8", "--quiet", "--out", str(tmp_path / "s.png")]) == 0
    assert (tmp_path / "s.png").is_file()


def test_mean_prints_and_writes_the_same_json(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mean", str(data), "--json", str(tmp_path / "m.json")]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((tmp_path / "m.json").read_text())
    assert captured.err == ""
    pixels = np.concatenate([np.asarray(Image.open(path)).reshape(-1, 3) for path in data.glob("*/*.jpg")])
    np.testing.assert_allclose(json.loads(captured.out)["mean"], pixels.mean(0))


def test_quiet_mean_prints_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mean", str(data), "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--p-hide", "1.5"], "p_hide=1.5"),
        (["--p-apply", "-0.1"], "p_apply=-0.1"),
        (["--p-hide", "half"], "--p-hide"),
        (["--patch-sizes", ","], "patch_sizes is empty"),
        (["--patch-sizes=-4"], "patch_sizes[0]=-4"),
        (["--patch-sizes", "16,x"], "--patch-sizes 16,x"),
        (["--preset", "imagnet"], "preset 'imagnet'"),
        (["--seed", str(2**64)], "seed="),
        (["--fill", "1,2"], "--fill 1,2"),
        (["--fill", "1,2,300"], "--fill 1,2,300"),
        (["--images", "0"], "--images 0"),
        (["--epochs", "-1"], "--epochs -1"),
        (["--json", "no/such/folder/x.json"], "no/such/folder"),
        (["--presets", "imagenet"], "--presets"),
    ],
)
def test_bad_options_of_show(
    options: list[str], named: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    assert main(["show", str(data), "--out", str(out), *options]) == 2
    err = capsys.readouterr().err
    assert named in err and err.count("\n") <= 2
    assert not out.exists()


def test_a_sheet_too_large_for_memory_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "new", lambda *_: pytest.fail("the sheet was allocated"))
    out = tmp_path / "sheet.png"
    assert main(["show", str(data), "--size", "4096", "--epochs", "4096", "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert "4 images x 4101 columns of 4096 pixels" in err and "at most 80 million pixels; lower --images" in err
    assert err.count("\n") == 1 and not out.exists()


def test_out_cannot_be_written(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(data), "--out", str(tmp_path / "none" / "s.png")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["show", str(data), "--out", "/proc/x.png"]) == 2
    err = capsys.readouterr().err
    assert "/proc/x.png: " in err and ".part" not in err
    assert main(["show", str(data), "--out", str(data)]) == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "mean"])
def test_bad_data(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "where"
    out = ["--out", str(tmp_path / "s.png")] if command == "show" else ["--json", str(tmp_path / "m.json")]
    assert main([command, str(where), *out]) == 2
    assert "no such folder" in capsys.readouterr().err
    (where / "empty").mkdir(parents=True)
    assert main([command, str(where), *out]) == 2
    assert "holds no images" in capsys.readouterr().err
    (where / "empty" / "text.jpg").write_text("no image")
    assert main([command, str(where), *out]) == 2
    err = capsys.readouterr().err
    assert "text.jpg" in err and ("no image" in err or "not an image" in err) and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["where"]
