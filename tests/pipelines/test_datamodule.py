"""ImageDataModule in a Lightning trainer: ranks and devices from it, and resuming in the middle of an epoch."""

from __future__ import annotations

import doctest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import image_loader

pl = pytest.importorskip("pytorch_lightning")

from pytorch_lightning.callbacks import ModelCheckpoint  # noqa: E402

from has_dali.pipelines import datamodule  # noqa: E402
from has_dali.pipelines.datamodule import ImageDataModule  # noqa: E402

POLICY = HideAndSeek((4,), seed=1)


class _Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3 * 16 * 16, 3)
        self.seen: list[tuple[int, list[int], float]] = []
        self.evaluated: dict[str, list[int]] = {"val": [], "test": []}

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen.append((batch_idx, batch["id"].tolist(), float(batch["image"].double().sum())))
        return torch.nn.functional.cross_entropy(self.layer(batch["image"].flatten(1)), batch["label"])

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.evaluated["val"] += batch["id"].tolist()

    def test_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.evaluated["test"] += batch["id"].tolist()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-4)


def _trainer(folder: Path, epoch_end: bool = False, **options: Any) -> Any:
    when = {"every_n_epochs": 1, "save_on_train_epoch_end": True} if epoch_end else {"every_n_train_steps": 1}
    checkpoints = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **when)
    return pl.Trainer(
        accelerator="cpu", logger=False, callbacks=[checkpoints], enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder, **{"max_epochs": 3, **options},
    )  # fmt: skip


def _data(folder: Path, **options: Any) -> ImageDataModule:
    return ImageDataModule(folder, batch_size=8, size=16, policy=POLICY, threads=1, seed=4, **options)


def test_examples() -> None:
    assert doctest.testmod(datamodule).failed == 0


def test_fit_and_test(image_folder: Path, tmp_path: Path) -> None:
    model, trainer = _Model(), _trainer(tmp_path, max_epochs=2)
    data = _data(image_folder, val=image_folder, test=image_folder, eval_batch_size=7)
    trainer.fit(model, data)
    expected = image_loader(image_folder, 8, train=True, policy=POLICY, size=16, seed=4, device="cpu")
    assert [ids for _, ids, _ in model.seen] == [batch["id"].tolist() for _ in range(2) for batch in expected]
    assert model.evaluated["val"] == 2 * list(range(30))
    trainer.test(model, data, verbose=False)
    assert model.evaluated["test"] == list(range(30))


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_resuming_from_any_step(image_folder: Path, tmp_path: Path, step: int) -> None:
    """Epochs of three batches: in the middle, at the end, and in the second one."""
    whole = _Model()
    _trainer(tmp_path / "whole").fit(whole, _data(image_folder))
    assert len(whole.seen) == 9
    _trainer(tmp_path / "stopped", max_steps=step).fit(_Model(), _data(image_folder))
    resumed = _Model()
    _trainer(tmp_path / "resumed").fit(resumed, _data(image_folder), ckpt_path=tmp_path / f"stopped/step={step}.ckpt")
    assert resumed.seen == whole.seen[step:]


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("validated", [False, True])
def test_resuming_from_the_end_of_an_epoch(image_folder: Path, tmp_path: Path, epochs: int, validated: bool) -> None:
    """Lightning hands no state to the loaders then."""
    val = image_folder if validated else None
    whole = _Model()
    _trainer(tmp_path / "whole").fit(whole, _data(image_folder, val=val))
    stopped = _trainer(tmp_path / "stopped", epoch_end=True, max_epochs=epochs)
    stopped.fit(_Model(), _data(image_folder, val=val))
    resumed = _Model()
    checkpoint = tmp_path / f"stopped/step={3 * epochs}.ckpt"
    _trainer(tmp_path / "resumed").fit(resumed, _data(image_folder, val=val), ckpt_path=checkpoint)
    assert resumed.seen == whole.seen[3 * epochs :] and len(resumed.seen) == 9 - 3 * epochs


def test_loaders_made_anew_in_every_epoch(image_folder: Path, tmp_path: Path) -> None:
    whole, anew = _Model(), _Model()
    _trainer(tmp_path / "whole").fit(whole, _data(image_folder))
    _trainer(tmp_path / "anew", reload_dataloaders_every_n_epochs=1).fit(anew, _data(image_folder))
    assert anew.seen == whole.seen and len(anew.seen) == 9


def test_a_checkpoint_of_other_data_is_refused(image_folder: Path, tmp_path: Path) -> None:
    _trainer(tmp_path, max_steps=1).fit(_Model(), _data(image_folder))
    files = sorted(image_folder.rglob("*.jpg"))[:24]
    other = ImageDataModule(files, batch_size=8, size=16, policy=POLICY, seed=4)
    with pytest.raises(ValueError, match=r"state: data is .*other files"):
        _trainer(tmp_path / "other").fit(_Model(), other, ckpt_path=tmp_path / "step=1.ckpt")


def test_ranks_and_devices_are_the_trainers(image_folder: Path) -> None:
    data = _data(image_folder, val=image_folder, train_options={"crop": "short-side"}, mean=0.0, std=1.0)
    data.trainer = SimpleNamespace(
        global_rank=1, world_size=3, num_devices=3, strategy=SimpleNamespace(root_device=torch.device("cpu"))
    )
    train, val = data.train_dataloader().loader, data.val_dataloader()
    assert (train.sample_order.rank, train.sample_order.world_size) == (1, 3)
    assert train.settings["crop"] == "short-side" and val.settings["crop"] == "center"
    assert train.spec.policy == POLICY and val.spec.policy is None
    assert train.spec.mean == val.spec.mean == (0.0, 0.0, 0.0)
    assert train.device == torch.device("cpu")


def test_options_that_the_trainer_decides(image_folder: Path) -> None:
    with pytest.raises(TypeError, match="rank: the trainer decides it"):
        _data(image_folder, rank=1)
    with pytest.raises(TypeError, match="policy: the trainer decides it, or it is an argument"):
        _data(image_folder, train_options={"policy": None})
