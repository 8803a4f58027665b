"""``has-dali eval``: what it shows, and the checkpoints, settings and data that it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from run_support import arrays, refused, report_of, write

from has_dali.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "cam.crops=five"], "--set cam.crops=five: "),
        (["--set", "cam.threshold=7"], "cam.threshold=7.0: expected a number between 0 and 1"),
        (["--set", "cam.threshold=held-in"], "--set cam.threshold=held-in: "),
        (["--set", "cam.merge=["], "--set cam.merge=[: "),
        (["--set", "cam"], "--set cam: expected GROUP.OPTION=VALUE"),
        (["--set", "cam.crop=one"], "--set cam.crop=one: expected GROUP.OPTION=VALUE"),
        (["--set", "model.width=1"], "its weights do not fit smallnet with 3 classes"),
        (["--set", "loader.held_out=0"], "cam.threshold=held-out: loader.held_out is 0"),
        (["--device", "tpu"], "tpu"),
        (["--json", "no/folder/a.json"], "does not exist"),
    ],
)
def test_eval_refuses_settings(
    words: list[str], message: str, runs: tuple[str, str], squares_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", "localisation", "--ckpt", f"{runs[1]}/checkpoints/last.ckpt", "--data", str(squares_folder)]
    assert message in refused([*argv, *words], capsys)


def test_eval_refuses_checkpoints_and_data(
    runs: tuple[str, str], classified: str, squares_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = f"{runs[1]}/checkpoints/last.ckpt"

    def of(checkpoint: Path | str, data: Path = squares_folder, task: str = "localisation") -> str:
        return refused(["eval", task, "--ckpt", str(checkpoint), "--data", str(data)], capsys)

    error = of(f"{classified}/checkpoints/last.ckpt")
    assert "a checkpoint of classification, expected one of localisation" in error
    assert "task 'lokalisation' is unknown" in of(ours, task="lokalisation")
    assert "no such checkpoint" in of(tmp_path / "none.ckpt") and "no such checkpoint" in of(tmp_path)
    for content in ([1, 2], {"a": 1}, torch.zeros(2)):
        torch.save(content, tmp_path / "other.ckpt")
        assert "expected a checkpoint of has-dali train, got another one" in of(tmp_path / "other.ckpt")
    (tmp_path / "empty.ckpt").touch()
    assert "not a checkpoint, or a damaged one" in of(tmp_path / "empty.ckpt")
    whole = Path(ours).read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    assert "not a checkpoint, or a damaged one" in of(tmp_path / "half.ckpt")
    older = torch.load(ours, weights_only=True)
    older["has_dali"]["version"] = 0
    torch.save(older, tmp_path / "older.ckpt")
    assert "version 0, expected 1; train it anew" in of(tmp_path / "older.ckpt")
    train, val = arrays(squares_folder, "train"), arrays(squares_folder, "val")
    kept = {part: {name: values[labels["labels"] < 2] for name, values in labels.items()} for part, labels in
            (("train", train), ("val", val))}  # fmt: skip
    assert "with 2 classes" in of(ours, write(tmp_path / "two", kept["train"], kept["val"]))
    no_boxes = {name: values for name, values in val.items() if name != "boxes"}
    assert "missing boxes" in of(ours, write(tmp_path / "none", train, no_boxes))


def test_eval_shows_a_table(runs: tuple[str, str], squares_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = f"{runs[1]}/checkpoints/last.ckpt"
    assert main(["eval", "localisation", "--ckpt", ours, "--data", str(squares_folder), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    metrics = report_of(Path(runs[1]))["metrics"]["last"]
    (line,) = (line for line in shown.splitlines() if line.split()[:1] == ["gt_known"])
    assert f"{metrics['gt_known']:.2f}" in line and "centre box 0.75" in shown
