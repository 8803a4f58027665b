"""The demo end to end on a few small files, and its bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from has_dali.bench import timing, training
from has_dali.bench.peers import loader_job
from has_dali.bench.results import Result
from has_dali.bench.scopes import loader
from has_dali.cli import main
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.sources import folder_source


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "WINDOW", SHORT)
    monkeypatch.setattr(loader_job, "EPOCH_IMAGES", 128)
    monkeypatch.setattr(training, "_BATCH_SIZE", 4)
    monkeypatch.setattr(training, "_SIZE", 64)


SHORT = timing.Window(seconds=0.0, batches=1, discarded=0, stride=1)


@pytest.mark.usefixtures("quick")
def test_demo_leaves_pictures_and_a_report(
    jpeg_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "demo"
    options = ["--data", str(jpeg_folder), "--out", str(out), "--rounds", "1", "--steps", "3"]
    assert main(["demo", *options, "--json", str(tmp_path / "copy.json")]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["contact_sheet.png", "loader_speed.png", "report.json"]
    for name in ("contact_sheet.png", "loader_speed.png"):
        Image.open(out / name).verify()
    report = json.loads((out / "report.json").read_text())
    assert report == json.loads((tmp_path / "copy.json").read_text())
    measured = Result.from_dict(report["loaders"])
    keys = ["has_dali", "has_dali_plain", "dali", "torchvision_pil", "decode_ceiling"]
    assert [row.key for row in measured.tables[0].rows] == keys
    assert all(row.status == "measured" for row in measured.tables[0].rows)
    assert len(measured.bars) == 4 and all(bar.met is not None for bar in measured.bars)
    assert report["training"]["steps"] == 3 and 0 <= report["training"]["input_stall"] <= 1
    assert report["data"]["images"] == 36 and report["data"]["embedded_corpus"] is False
    captured = capsys.readouterr()
    assert "input stall" in captured.out and "Traceback" not in captured.err


@pytest.mark.usefixtures("quick")
def test_training_reports_every_step(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    report = training.train_resnet18(
        folder_source(jpeg_folder), HideAndSeek((8,)), 1, steps=4, advance=lambda steps=1, note="": notes.append(note)
    )
    assert report.steps == len(report.losses) == 4 and len(notes) == 3
    assert report.chance_loss == pytest.approx(1.0986, abs=1e-3)
    assert all(loss == loss and loss < 50 for loss in report.losses)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--data", "nowhere"], "data='nowhere': no such folder"),
        (["--rounds", "0"], "--rounds 0"),
        (["--steps", "1"], "--steps 1"),
        (["--rounds", "many"], "--rounds"),
        (["--json", "nowhere/x.json"], "does not exist"),
    ],
)
def test_bad_input_leaves_nothing(
    options: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), *options]) == 2
    err = capsys.readouterr().err
    assert named in err and err.count("\n") == 1
    assert not out.exists()


def test_bad_images_leave_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data" / "ant").mkdir(parents=True)
    (tmp_path / "data" / "ant" / "text.jpg").write_text("no image")
    assert main(["demo", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "new" / "demo")]) == 2
    assert "text.jpg" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_out_is_a_file(tmp_path: Path, jpeg_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo").write_text("mine")
    assert main(["demo", "--data", str(jpeg_folder), "--out", str(tmp_path / "demo")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "demo").read_text() == "mine"
