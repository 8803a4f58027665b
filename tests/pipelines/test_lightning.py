"""The loader handed to pytorch-lightning as it is, for training and validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from has_dali.pipelines import image_loader

pl = pytest.importorskip("pytorch_lightning")


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
