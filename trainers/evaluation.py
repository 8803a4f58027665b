"""Metrics of a network on a data set: what a run reports at its end and what ``has-dali eval`` prints."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch

from has_dali.trainers.data import eval_loader
from has_dali.trainers.task import Task

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


@dataclass(frozen=True)
class Ranks:
    """This process among those that evaluate together."""

    rank: int = 0
    world_size: int = 1

    def gathered(self, value: Any) -> list[Any]:
        """``value`` of every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
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
    ranks = Ranks() if trainer is None else Ranks(trainer.global_rank, trainer.world_size)
    before = task.training
    task.eval()
    dtype = _MIXED.get(precision)
    context: Any = torch.autocast(task.device.type, dtype) if dtype else contextlib.nullcontext()
    if trainer is not None:
        task.to(trainer.strategy.root_device)  # the end of a fit moves it to the CPU
        context = trainer.precision_plugin.forward_context()
    try:
        with torch.inference_mode(), context:
            return task.evaluate(images, held_out, ranks)
    finally:
        task.train(before)


def eval_batches(task: Task, source: Any, ranks: Ranks, **options: Any) -> Any:
    """Evaluation batches of a source for one rank."""
    loader = task.settings.loader
    size = loader.eval_batch_size or max(loader.batch_size // ranks.world_size, 1)
    return eval_loader(source, task.settings, task.device, size, ranks.rank, ranks.world_size, **options)
