"""Metrics of a network on a data set: what a run reports at its end and what ``has-dali eval`` prints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch

from has_dali.trainers.data import ALONE, Share, eval_loader, without_padding
from has_dali.trainers.task import Batch, Task

_MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass
class Evaluation:
    """What one evaluation found; accuracies are percentages."""

    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    """Trivial predictors on the same images: name -> metrics."""
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    per_image: dict[str, Any] = field(default_factory=dict)
    """Arrays by sample id: label, predicted class, and what the task adds."""


def gathered(value: Any, share: Share) -> list[Any]:
    """``value`` of every rank."""
    if share.world_size == 1:
        return [value]
    values: list[Any] = [None] * share.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def evaluate(
    task: Task, images: Any, held_out: Any, trainer: pl.Trainer | None = None, precision: str = "32-true"
) -> Evaluation:
    """All metrics of the task on the validation images.

    Args:
        task: the LightningModule, on its device.
        images: the data set.
        held_out: training images kept apart for choices, or None.
        trainer: whose processes share the work, and whose precision counts; None: this process alone.
        precision: as pytorch-lightning's Trainer has it, where there is no trainer.

    Raises:
        ValueError: the settings and the data do not fit.
    """
    task.check(images, held_out)
    share = ALONE if trainer is None else Share.of(trainer)
    before = task.training
    task.eval()
    dtype = _MIXED.get(precision)
    context: Any = torch.autocast(task.device.type, dtype) if dtype else contextlib.nullcontext()
    if trainer is not None:
        task.to(trainer.strategy.root_device)  # the end of a fit moves it to the CPU
        context = trainer.precision_plugin.forward_context()
    if share.world_size > 1:  # statistics of batch norm are each rank's own until somebody asks
        for buffer in task.buffers():
            torch.distributed.broadcast(buffer, 0)
    try:
        with torch.inference_mode(), context:
            return task.evaluate(images, held_out, share)
    finally:
        task.train(before)


def eval_batches(task: Task, source: Any, share: Share, **options: Any) -> Iterator[Batch]:
    """Evaluation batches of a source for one rank, real images alone, in the dtype of the task's weights."""
    dtype = next(task.parameters()).dtype
    for batch in eval_loader(source, task.settings, task.device, share, **options):
        batch = without_padding(batch, task.settings, share)
        if len(batch["id"]):
            yield {**batch, "image": batch["image"].to(dtype)}
