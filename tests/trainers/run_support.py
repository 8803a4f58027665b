"""What the tests of whole runs share: the words of a training that takes a second, and reading what it left."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from has_dali.cli import main

LOCALISE = [
    "train", "localisation", "--recipe", "small", "--quiet", "--loader.size", "21", "--loader.resize", "24",
    "--loader.batch_size", "16", "--loader.eval_batch_size", "8", "--loader.threads", "1", "--loader.held_out", "4",
    "--model.width", "0.25", "--optim.lr", "0.05", "--trainer.precision", "32-true",
    "--trainer.check_val_every_n_epoch", "1",
]  # fmt: skip


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums of convolutions on the CPU depend on the number of threads, which is the machine's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def localise(data: Path, out: Path, epochs: int, *options: str) -> dict[str, Any]:
    """Train, and the report."""
    code = main([*LOCALISE, "--data", str(data), "--out", str(out), "--trainer.max_epochs", str(epochs), *options])
    assert code == 0
    return report_of(out)


def evaluate(run: Path, data: Path, *changes: str, file: str = "last.ckpt") -> dict[str, Any]:
    """What ``has-dali eval`` finds, with settings changed."""
    found = run / f"eval-{abs(hash((str(data), changes)))}.json"
    words = [word for change in changes for word in ("--set", change)]
    argv = ["eval", "localisation", "--data", str(data), "--device", "cpu", "--quiet", "--json", str(found), *words]
    assert main([*argv, "--ckpt", str(run / "checkpoints" / file)]) == 0
    content: dict[str, Any] = json.loads(found.read_text())
    return content


def report_of(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "report.json").read_text())
    return content


def weights(out: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def arrays(data: Path, part: str) -> dict[str, np.ndarray]:
    with np.load(data / f"{part}.npz") as file:
        return dict(file)


def write(folder: Path, train: dict[str, np.ndarray], val: dict[str, np.ndarray]) -> Path:
    """A data set in a folder of its own."""
    folder.mkdir()
    np.savez(folder / "train.npz", **train)
    np.savez(folder / "val.npz", **val)
    return folder


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that takes no such words."""
    assert main(argv) == 2, argv
    error = capsys.readouterr().err
    assert len(error.splitlines()) <= 2 and error.startswith(f"has-dali {argv[0]}: "), error
    return error
