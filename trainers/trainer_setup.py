"""pytorch-lightning's Trainer for a run: callbacks, loggers, devices."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from has_dali.trainers.arguments import RunOptions
from has_dali.trainers.callbacks import History, ProgressBar, Speed, Stopping, WithinEpoch

CHECKPOINTS = "checkpoints"
# Settings of the Trainer that change no weight: where it runs and what it shows.
_SURROUNDINGS = (
    "accelerator", "strategy", "devices", "num_nodes", "profiler", "plugins", "log_every_n_steps", "benchmark",
    "enable_autolog_hparams", "model_registry", "detect_anomaly", "limit_test_batches", "limit_predict_batches",
    "max_time", "inference_mode", "check_val_every_n_epoch", "val_check_interval", "limit_val_batches",
    "reload_dataloaders_every_n_epochs", "barebones", "deterministic",
)  # fmt: skip


class _EMA(EMAWeightAveraging):
    """The averaged weights on the device that trains: Lightning asks the module before it has been moved there."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Name the device first."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)


def deciding(trainer: dict[str, Any]) -> dict[str, Any]:
    """The Trainer's settings that decide what comes out of a run."""
    return {name: value for name, value in trainer.items() if name not in _SURROUNDINGS}


def quieten() -> None:
    """Lightning's remarks about its own surroundings are not the user's business."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*LeafSpec.*",
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*exists and is not empty.*",
        ".*sync_dist=True.*",
        ".*set_float32_matmul_precision.*",
    ):
        warnings.filterwarnings("ignore", message=text)


def epochs_of(options: RunOptions) -> int:
    """Length of the run, which the schedule must know."""
    epochs = options.trainer["max_epochs"]
    if not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"trainer.max_epochs={epochs!r}: expected a whole number from 1, the length of the schedule")
    return epochs


def run_callbacks(folder: Path, save_every: int, ema: float, monitor: str) -> list[pl.Callback]:
    """What watches every run: speed, history, stopping, and checkpoints in ``folder``.

    Args:
        folder: of the checkpoints.
        save_every: optimiser steps between checkpoints within an epoch; 0: none.
        ema: decay of the moving average; 0: none.
        monitor: the validation metric that tells which epoch is best.
    """
    last: dict[str, Any] = {"dirpath": folder, "filename": "last", "enable_version_counter": False}
    callbacks: list[pl.Callback] = [
        Speed(),
        History(),
        Stopping(folder),
        ModelCheckpoint(folder, "best", monitor=monitor, mode="max", enable_version_counter=False),
        ModelCheckpoint(**last, every_n_epochs=1, save_on_train_epoch_end=True),
    ]
    if save_every:
        callbacks.append(WithinEpoch(**last, every_n_train_steps=save_every))
    if ema:
        callbacks.insert(0, _EMA(decay=ema))  # before what may save: a checkpoint holds the average of its own step
    return callbacks


def run_loggers(out: Path) -> list[Any]:
    """CSV and TensorBoard files below ``out``."""
    return [CSVLogger(out / "logs", "csv"), TensorBoardLogger(out / "logs", "tensorboard")]


def build_trainer(options: RunOptions, callbacks: list[pl.Callback]) -> pl.Trainer:
    """The Trainer of a run; under torchrun with the processes that it started."""
    arguments = dict(options.trainer)
    shown = sys.stderr.isatty() and not options.quiet
    if shown:
        speed = next(callback for callback in callbacks if isinstance(callback, Speed))
        callbacks = [*callbacks, ProgressBar(speed)]
    if "TORCHELASTIC_RUN_ID" in os.environ:
        arguments["devices"] = int(os.environ["LOCAL_WORLD_SIZE"])
        arguments["num_nodes"] = int(os.environ["WORLD_SIZE"]) // arguments["devices"]
    return pl.Trainer(
        **arguments,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=run_loggers(options.out),
        callbacks=callbacks,
        default_root_dir=options.out,
        enable_progress_bar=shown,
        enable_model_summary=False,
    )
