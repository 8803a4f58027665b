"""Loaders handed to pytorch-lightning as they are, and with the trainer's epoch for resuming at an epoch's end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from has_dali.pipelines import image_loader

pl = pytest.importorskip("pytorch_lightning")

from pytorch_lightning.callbacks import ModelCheckpoint  # noqa: E402

from has_dali.pipelines.epoch_batches import EpochBatches  # noqa: E402
from has_dali.pipelines.image_batches import ImageLoader  # noqa: E402


class _Linear(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3 * 16 * 16, 3)
        self.seen: list[list[int]] = []
        self.validated: list[int] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen.append(batch["id"].tolist())
        return torch.nn.functional.cross_entropy(self.layer(batch["image"].flatten(1)), batch["label"])

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.validated += batch["id"].tolist()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-3)


def test_lightning_takes_the_loaders_as_they_are(image_folder: Path, tmp_path: Path) -> None:
    train = image_loader(image_folder, 8, train=True, size=16, device="cpu", threads=1)
    val = image_loader(image_folder, 8, train=False, size=16, device="cpu", threads=1)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path,
    )  # fmt: skip
    module = _Linear()
    trainer.fit(module, train, val)
    expected = image_loader(image_folder, 8, train=True, size=16, device="cpu", threads=1)
    assert module.seen == [batch["id"].tolist() for _ in range(2) for batch in expected]
    assert module.validated == 2 * list(range(30))


class _Epochs:
    """A loader without batches that takes note of the epochs."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[int]:
        return iter(range(2))

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def test_the_epoch_is_asked_for_with_the_first_batch() -> None:
    epoch, loader = [0], _Epochs()
    batches = EpochBatches(loader, lambda: epoch[0])
    loop = iter(batches)
    epoch[0] = 7  # a trainer makes the iterator before it has loaded its checkpoint
    assert loader.epochs == [] and len(batches) == 2
    assert list(loop) == [0, 1] and loader.epochs == [7]
    assert list(EpochBatches(loader)) == [0, 1] and loader.epochs == [7]


def _fit(loader: ImageLoader, folder: Path, epochs: int, checkpoint: Path | None = None) -> _Linear:
    """A fit that leaves a checkpoint at the end of each epoch."""
    kept = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=True)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[kept], enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    module = _Linear()
    trainer.fit(module, EpochBatches(loader, lambda: trainer.current_epoch), ckpt_path=checkpoint)
    return module


def test_a_loader_with_the_trainers_epoch_resumes_at_the_end_of_an_epoch(image_folder: Path, tmp_path: Path) -> None:
    loader, again, third = (
        image_loader(image_folder, 8, train=True, size=16, device="cpu", threads=1) for _ in range(3)
    )
    whole = _fit(loader, tmp_path / "whole", 2)
    resumed = _fit(again, tmp_path / "resumed", 2, tmp_path / "whole" / "epoch=0.ckpt")
    assert resumed.seen == whole.seen[3:] and len(resumed.seen) == 3
    assert whole.seen == [batch["id"].tolist() for _ in range(2) for batch in third]
