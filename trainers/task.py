"""What the tasks share as LightningModules: optimiser, schedule, randomness, checks, settings in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from has_dali.trainers.hiding import BatchHiding, mixed_seed
from has_dali.trainers.schedule import Schedule
from has_dali.trainers.settings import OptimSettings, Settings, differences

CHECKPOINT_KEY = "has_dali"
CHECKPOINT_VERSION = 1
Batch = Mapping[str, torch.Tensor]


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite; training stops before the weights take it in."""


class Task(pl.LightningModule):
    """One task of the paper: a network, its loss, and how it is optimised.

    Every random choice of a step (dropout, the draws of methods on batches) is seeded from (seed, epoch, step, rank),
    so a resumed run repeats the uninterrupted one and no generator state is saved.

    Args:
        name: the task's name on the command line.
        model: the network; moved to channels_last and compiled here if the settings say so.
        settings: all knobs.
        seed: of weights, order, masks and dropout.
        epochs: length of the run, for the schedule.
        recipe: name of the recipe, for checkpoints.
    """

    def __init__(
        self, name: str, model: nn.Module, settings: Settings, seed: int, epochs: int, recipe: str | None = None
    ) -> None:
        super().__init__()
        self.name, self.settings, self.seed, self.recipe = name, settings, seed, recipe
        self.model = model.to(memory_format=torch.channels_last) if settings.model.channels_last else model
        self.schedule = Schedule(settings.optim, epochs)
        self.hiding = BatchHiding(settings.hide, seed)
        self.context: dict[str, Any] = {}
        """What else a checkpoint must share with its continuation, beside settings: the trainer's, the data's."""
        if settings.model.compile:
            # In place, so names in checkpoints stay the same; a shape that changes is compiled anew, not made general.
            self.model.compile(dynamic=False)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a training batch; each task's own."""
        raise NotImplementedError

    def check(self, images: Any, held_out: Any) -> None:
        """Refuse settings that evaluation could not work with: asked before training, not after it.

        Args:
            images: the data set.
            held_out: training images kept apart for choices, or None.

        Raises:
            ValueError, OSError: a setting is out of range, or does not fit the data.
        """

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """One step: hide, forward, loss, check."""
        loss = self.loss(batch)
        # One wait per step for a single number, before backward: the weights never take a NaN in. By then the device
        # has the whole forward pass behind it, and the host issues the backward pass faster than it is worked off.
        value = float(loss.detach())
        if value != value or value in (float("inf"), float("-inf")):
            ids = ", ".join(map(str, batch["id"].tolist()))
            raise NonFiniteLossError(
                f"the loss is {value} in epoch {self.current_epoch}, batch {batch_idx}; lower optim.lr or look at the"
                f" images. Sample ids: {ids}"
            )
        self.last_loss = value
        return loss

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Learning rate, weight decay and the seed of this step."""
        step = self.current_epoch + batch_idx / self.trainer.num_training_batches
        lr, weight_decay = self.schedule(step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = lr
            if group["decays"]:
                group["weight_decay"] = weight_decay
        number = batch_idx * self.trainer.world_size + self.global_rank
        seed_generators(self.device, mixed_seed(self.seed, self.current_epoch, number))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD or AdamW over one or two groups of parameters."""
        return build_optimizer(self.model, self.settings.optim)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Settings go with the weights, so that ``eval`` needs nothing else and ``--resume`` can compare."""
        checkpoint[CHECKPOINT_KEY] = {
            "version": CHECKPOINT_VERSION,
            "task": self.name,
            "recipe": self.recipe,
            "seed": self.seed,
            "epochs": self.schedule.epochs,
            "precision": str(self.trainer.precision),
            "context": self.context,
            "settings": self.settings.to_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other settings by naming the first difference.

        Raises:
            ValueError: the checkpoint is of another task, seed or settings.
        """
        saved = checkpoint_header(checkpoint, "the checkpoint")
        ours = {"task": self.name, "seed": self.seed, "epochs": self.schedule.epochs}
        found = differences(ours, {name: saved[name] for name in ours})
        found += differences(resumable(self.settings.to_dict()), resumable(saved["settings"]))
        found += differences(self.context, saved["context"])
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise ValueError(
                f"the checkpoint is of another run: {found[0]} in the checkpoint{more}; resume with the same recipe and"
                " options, or start anew in another --out"
            )


def checkpoint_header(checkpoint: Any, name: str) -> dict[str, Any]:
    """What ``Task`` wrote into a checkpoint.

    Raises:
        ValueError: it is no checkpoint of this project, or of another version.
    """
    header = checkpoint.get(CHECKPOINT_KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(header, dict):
        raise ValueError(f"{name}: expected a checkpoint of has-dali train, got another one; check --ckpt")
    if header.get("version") != CHECKPOINT_VERSION:
        raise ValueError(f"{name}: version {header.get('version')!r}, expected {CHECKPOINT_VERSION}; train it anew")
    return header


# What may differ between a run and its continuation: it changes no batch and no step; of what happens to broken files,
# so that a run that one of them stopped can go on without it.
_FREE = {
    "loader": ("device", "threads", "prefetch", "eval_batch_size", "cache", "on_error", "error_budget"),
    "model": ("compile",),
}


def resumable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a continued run must share with its beginning."""
    return {
        group: {name: value for name, value in values.items() if name not in _FREE.get(group, ())}
        for group, values in settings.items()
    }


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed what a step on ``device`` draws from.

    ``torch.manual_seed`` seeds every kind of device and, where CUDA has not been used, formats the call's stack for
    later: half a millisecond of each step on a CPU.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def build_optimizer(model: nn.Module, optim: OptimSettings) -> torch.optim.Optimizer:
    """The optimiser; parameters of one dimension (biases, normalisation) get a group of their own."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [
        {"params": weights, "decays": True},
        {"params": others, "decays": optim.decay_norm_and_bias, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    options: dict[str, Any] = {"lr": optim.lr, "weight_decay": optim.weight_decay}
    if parameters[0].is_cuda:
        options["fused"] = True
    if optim.optimizer == "adamw":
        return torch.optim.AdamW(groups, **options)
    return torch.optim.SGD(groups, momentum=optim.momentum, nesterov=optim.nesterov, **options)
