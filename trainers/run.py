"""One run: open the data, build the network, fit, evaluate the last and the best weights, write the report."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from has_dali.doctor import environment
from has_dali.pipelines.data import open_data
from has_dali.trainers.arguments import RunOptions
from has_dali.trainers.batches import joined_reports
from has_dali.trainers.callbacks import LAST, History, Speed, Stopped, out_of_memory
from has_dali.trainers.data import Share
from has_dali.trainers.datasets.split import fit_and_held_out
from has_dali.trainers.evaluation import Evaluation, evaluate, gathered
from has_dali.trainers.results.report import REPORT, Report, describe, switches_of
from has_dali.trainers.task import Task
from has_dali.trainers.tasks import task_kind
from has_dali.trainers.trainer_setup import CHECKPOINTS, build_trainer, deciding, epochs_of, quieten, run_callbacks


def train(options: RunOptions, data: Path) -> Report | None:
    """Train and evaluate; returns the report, or None on ranks other than 0.

    Leaves in ``options.out``: ``report.json``, ``checkpoints/{last,best}.ckpt``, ``logs/`` (CSV and TensorBoard).

    Raises:
        ValueError, OSError: settings, data, checkpoint or the folder do not fit; names what and how to mend it.
        NonFiniteLossError: names the batch; ``checkpoints/nonfinite.ckpt`` holds the state before it.
        RuntimeError: memory is used up; names the setting to lower.
    """
    quieten()
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    kind, settings = task_kind(options.task), options.settings
    resume = _checkpoint_to_resume(options)
    images = kind.open_data(data, settings)
    fitted, held_out = fit_and_held_out(images, settings.loader.held_out)
    torch.manual_seed(options.seed)
    model = kind.build_model(settings, len(images.classes), options.seed)
    task = kind.module(
        model, settings, len(images.classes), options.seed, epochs_of(options), options.recipe.name, name=kind.name
    )
    task.check(images, held_out)
    dataset = describe(images, fitted)
    task.context = {"trainer": deciding(options.trainer), "data": dataset["list_hash"]}
    callbacks = run_callbacks(options.out / CHECKPOINTS, options.save_every, settings.optim.ema, kind.monitored)
    trainer = build_trainer(options, callbacks)
    if trainer.strategy.root_device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    if settings.loader.cache == "decoded":
        fitted, images, held_out = _decoded(fitted, images, held_out, settings.loader.threads)
    loaders = kind.data_module(fitted, settings, options.seed)
    phase = "training"
    try:
        # The weights of a checkpoint are data; what else it holds are numbers, strings and lists.
        trainer.fit(task, datamodule=loaders, ckpt_path=resume, weights_only=True)
        phase = "evaluation"
        metrics = _final_metrics(trainer, task, images, held_out)
    except Stopped as stop:
        if stop.args[0] == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stop.args[0]) from None
    except Exception as error:
        if out_of_memory(error):
            raise RuntimeError(_memory_advice(phase, trainer, settings.loader)) from error
        raise
    share = Share.of(trainer)
    loading = {part: joined_reports(gathered(report, share)) for part, report in loaders.reports().items()}
    if not trainer.is_global_zero:
        return None
    speed = _callback(trainer, Speed)
    last = metrics["last"]
    report = Report(
        task=options.task,
        recipe=options.recipe.name,
        seed=options.seed,
        settings=settings.to_dict(),
        trainer=deciding(options.trainer),
        dataset=dataset,
        switches=switches_of(settings),
        table=settings.paper.table,
        method=settings.paper.method,
        metrics={name: _named(found.metrics, settings.paper.metric) for name, found in metrics.items()},
        baselines=last.baselines,
        curves={**_callback(trainer, History).curves(), **last.curves},
        hidden_fraction=speed.hidden_fraction,
        wall_seconds=time.perf_counter() - clock,
        images_per_second=speed.images_per_second,
        input_stall=speed.input_stall,
        first_batch_seconds=0.0 if loaders.timed is None else loaders.timed.first,
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        loading=loading,
        started=started,
        argv=["has-dali", *sys.argv[1:]],
        environment=environment(),
    )
    report.write(options.out)
    return report


def _checkpoint_to_resume(options: RunOptions) -> Path | None:
    """The checkpoint to go on from; a folder that holds another run is left alone."""
    last = options.out / CHECKPOINTS / LAST
    if options.resume:
        if not last.is_file():
            raise FileNotFoundError(f"{last}: no checkpoint to resume from; leave --resume out to start anew")
        return last
    for found in (options.out / REPORT, last):
        if found.exists():
            raise FileExistsError(
                f"{found}: --out holds a run already; choose another --out, remove it, or go on with --resume"
            )
    return None


def _decoded(fitted: Any, images: Any, held_out: Any, threads: int | None) -> tuple[Any, Any, Any]:
    """The same data with every image decoded once, for all the loaders that will read it."""
    val = open_data(images.val, train=False, cache="decoded", threads=threads)
    train = open_data(fitted.train, train=True, cache="decoded", threads=threads)
    if held_out is not None:
        held_out = replace(held_out, val=open_data(held_out.val, train=False, cache="decoded", threads=threads))
    return replace(fitted, train=train, val=val), replace(images, val=val), held_out


def _memory_advice(phase: str, trainer: pl.Trainer, loader: Any) -> str:
    if phase == "evaluation":
        return (
            f"out of memory in the evaluation: lower loader.eval_batch_size (now {loader.eval_batch_size or 'as in'}"
            " training) and go on with --resume"
        )
    return (
        f"out of memory: raise trainer.accumulate_grad_batches (now {trainer.accumulate_grad_batches}; the same images"
        f" per step, batch norm over fewer), or lower loader.batch_size (now {loader.batch_size}) or"
        " loader.eval_batch_size"
    )


def _final_metrics(trainer: pl.Trainer, task: Task, images: Any, held_out: Any) -> dict[str, Evaluation]:
    """Metrics of the last weights and of those with the best validation accuracy, which rank 0 has on its disk."""
    found = {"last": evaluate(task, images, held_out, trainer)}
    best = next(one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint) and one.monitor)
    weights = None
    if trainer.is_global_zero and Path(best.best_model_path).is_file():
        checkpoint = torch.load(best.best_model_path, weights_only=True, map_location="cpu")
        if checkpoint["global_step"] != trainer.global_step:
            weights = checkpoint["state_dict"]
    weights = trainer.strategy.broadcast(weights)
    if weights is None:
        found["best"] = found["last"]
    else:
        task.load_state_dict(weights)
        found["best"] = evaluate(task, images, held_out, trainer)
    return found


def _callback(trainer: pl.Trainer, kind: Any) -> Any:
    return next(one for one in trainer.callbacks if isinstance(one, kind))


def _named(metrics: dict[str, float], paper_name: str | None) -> dict[str, float]:
    """The metrics, with top-1 also under the name that the paper's table has for it."""
    return {**metrics, paper_name: metrics["top1"]} if paper_name else metrics
