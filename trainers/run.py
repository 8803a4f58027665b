"""One run: open the data, build the network, fit, evaluate the last and the best weights, write the report."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from has_dali.doctor import environment
from has_dali.trainers import datasets
from has_dali.trainers.arguments import RunOptions
from has_dali.trainers.callbacks import LAST, History, ProgressBar, Speed, Stopped, Stopping, out_of_memory
from has_dali.trainers.data import ImageData
from has_dali.trainers.evaluation import Evaluation, evaluate
from has_dali.trainers.report import Report, switches_of
from has_dali.trainers.task import Task
from has_dali.trainers.tasks import TaskKind, task_kind

CHECKPOINTS = "checkpoints"
_MONITORED = "top1"


def train(options: RunOptions, data: Path) -> Report | None:
    """Train and evaluate; returns the report, or None on ranks other than 0.

    Leaves in ``options.out``: ``report.json``, ``checkpoints/{last,best}.ckpt``, ``logs/`` (CSV and TensorBoard).

    Raises:
        ValueError, OSError: settings, data or checkpoint do not fit; names what and how to mend it.
        NonFiniteLossError: names the batch; ``checkpoints/nonfinite.ckpt`` holds the state before it.
        RuntimeError: memory is used up; names the setting to lower.
    """
    quieten()
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    kind, settings = task_kind(options.task), options.settings
    images = kind.open_data(data, settings)
    fitted, held_out = split(images, settings.loader.held_out)
    torch.manual_seed(options.seed)
    model = kind.build_model(settings, len(images.classes), options.seed)
    task = kind.module(
        model, settings, len(images.classes), options.seed, _epochs(options), options.recipe.name, name=kind.name
    )
    task.check(images, held_out)
    speed, history = Speed(), History()
    folder = options.out / CHECKPOINTS
    best = ModelCheckpoint(folder, "best", monitor=_MONITORED, mode="max", enable_version_counter=False)
    trainer = _trainer(options, [speed, history, Stopping(folder), best])
    loaders = ImageData(fitted, settings, options.seed)
    resume = folder / LAST if options.resume else None
    if resume is not None and not resume.is_file():
        raise FileNotFoundError(f"{resume}: no checkpoint to resume from; leave --resume out to start anew")
    try:
        # The weights of a checkpoint are data; what else it holds are numbers, strings and lists.
        trainer.fit(task, datamodule=loaders, ckpt_path=resume, weights_only=True)
        metrics = _final_metrics(trainer, task, kind, images, held_out, best)
    except Stopped as stop:
        if stop.args[0] == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stop.args[0]) from None
    except Exception as error:
        if out_of_memory(error):
            raise RuntimeError(
                f"out of memory: raise trainer.accumulate_grad_batches (now {trainer.accumulate_grad_batches}), which"
                f" leaves the result as it is, or lower loader.batch_size (now {settings.loader.batch_size})"
            ) from error
        raise
    if not trainer.is_global_zero:
        return None
    last = metrics["last"]
    report = Report(
        task=options.task,
        recipe=options.recipe.name,
        seed=options.seed,
        settings=settings.to_dict(),
        trainer={name: options.trainer[name] for name in ("max_epochs", "max_steps", "precision")},
        dataset=describe(images, fitted),
        switches=switches_of(settings),
        table=settings.paper.table,
        method=settings.paper.method,
        metrics={name: _named(found.metrics, settings.paper.metric) for name, found in metrics.items()},
        baselines=last.baselines,
        curves={**history.curves(), **last.curves},
        hidden_fraction=speed.hidden_fraction,
        wall_seconds=time.perf_counter() - clock,
        images_per_second=speed.images_per_second,
        input_stall=speed.input_stall,
        first_batch_seconds=0.0 if loaders.timed is None else loaders.timed.first,
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        started=started,
        argv=["has-dali", *sys.argv[1:]],
        environment=environment(),
    )
    report.write(options.out)
    return report


def split(images: Any, every: int) -> tuple[Any, Any]:
    """The data to fit, and its held-out training images as a data set of their own (None where ``every`` is 0)."""
    if not every:
        return images, None
    tuning = datasets.held_out(images, every)
    parts = {name: getattr(tuning, name) for name in ("train", "train_boxes") if hasattr(tuning, name)}
    return replace(images, **parts), tuning


def describe(images: Any, fitted: Any) -> dict[str, Any]:
    """The data in a report: enough to tell whether two runs saw the same."""
    return {
        "name": images.name,
        "train_images": len(fitted.train),
        "val_images": len(images.val),
        "classes": len(images.classes),
        "list_hash": f"{fitted.train.fingerprint()}-{images.val.fingerprint()}",
    }


def quieten() -> None:
    """Lightning's remarks about its own surroundings are not the user's business."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*LeafSpec.*",
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message=text)


def _epochs(options: RunOptions) -> int:
    epochs = options.trainer["max_epochs"]
    if not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"trainer.max_epochs={epochs!r}: expected a whole number from 1, the length of the schedule")
    return epochs


def _trainer(options: RunOptions, callbacks: list[pl.Callback]) -> pl.Trainer:
    arguments = dict(options.trainer)
    last: dict[str, Any] = {"dirpath": options.out / CHECKPOINTS, "filename": "last", "enable_version_counter": False}
    callbacks.append(ModelCheckpoint(**last, every_n_epochs=1, save_on_train_epoch_end=True))
    if options.save_every:
        callbacks.append(ModelCheckpoint(**last, every_n_train_steps=options.save_every))
    if options.settings.optim.ema:
        callbacks.append(EMAWeightAveraging(decay=options.settings.optim.ema))
    shown = sys.stderr.isatty() and not options.quiet
    if shown:
        speed = next(callback for callback in callbacks if isinstance(callback, Speed))
        callbacks.append(ProgressBar(speed))
    if "LOCAL_WORLD_SIZE" in os.environ and arguments["devices"] == "auto":  # under torchrun
        arguments["devices"] = int(os.environ["LOCAL_WORLD_SIZE"])
        arguments["num_nodes"] = int(os.environ["WORLD_SIZE"]) // arguments["devices"]
    logs = options.out / "logs"
    return pl.Trainer(
        **{**arguments, "use_distributed_sampler": False, "num_sanity_val_steps": 0},
        logger=[CSVLogger(logs, "csv"), TensorBoardLogger(logs, "tensorboard")],
        callbacks=callbacks,
        default_root_dir=options.out,
        enable_progress_bar=shown,
        enable_model_summary=False,
    )


def _final_metrics(
    trainer: pl.Trainer, task: Task, kind: TaskKind, images: Any, held_out: Any, best: ModelCheckpoint
) -> dict[str, Evaluation]:
    """Metrics of the last weights and of those with the best validation accuracy."""
    found = {"last": evaluate(task, images, held_out, trainer)}
    path = Path(best.best_model_path)
    if path.is_file() and trainer.current_epoch - 1 != _epoch_of(path):
        kept = {name: value.clone() for name, value in task.state_dict().items()}
        task.load_state_dict(torch.load(path, weights_only=True, map_location=task.device)["state_dict"])
        found["best"] = evaluate(task, images, held_out, trainer)
        task.load_state_dict(kept)
    else:
        found["best"] = found["last"]
    return found


def _epoch_of(path: Path) -> int:
    epoch: int = torch.load(path, weights_only=True, map_location="cpu")["epoch"]
    return epoch


def _named(metrics: dict[str, float], paper_name: str | None) -> dict[str, float]:
    """The metrics, with top-1 also under the name that the paper's table has for it."""
    return {**metrics, paper_name: metrics["top1"]} if paper_name else metrics
