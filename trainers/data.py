"""The loaders of a run, from its settings: what DALI or memory gives, to one rank of a trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from has_dali.kernels.threads import available_cores
from has_dali.pipelines.loader import Batch, ImageLoader, image_loader
from has_dali.pipelines.rank_check import check_ranks
from has_dali.trainers.batches import ProgressiveLoader, TimedBatches
from has_dali.trainers.datasets import LabeledImages
from has_dali.trainers.settings import Settings


@dataclass(frozen=True)
class Share:
    """This process among those that work together.

    Args:
        rank: from 0.
        world_size: number of processes.
        on_this_machine: how many of them share its cores.
        accumulation: batches per optimiser step.
    """

    rank: int = 0
    world_size: int = 1
    on_this_machine: int = 1
    accumulation: int = 1

    @classmethod
    def of(cls, trainer: Any) -> Share:
        """The share of this process of a trainer."""
        return cls(trainer.global_rank, trainer.world_size, trainer.num_devices, trainer.accumulate_grad_batches)

    def batch_size(self, settings: Settings) -> int:
        """Images of one batch of this process.

        Raises:
            ValueError: the images of an optimiser step cannot be divided evenly.
        """
        total = settings.loader.batch_size
        images, rest = divmod(total, self.world_size * self.accumulation)
        if rest or not images:
            raise ValueError(
                f"loader.batch_size={total}: expected a multiple of {self.world_size} processes x {self.accumulation}"
                " accumulation steps; change it, trainer.devices or trainer.accumulate_grad_batches"
            )
        return images


ALONE = Share()


class ImageData(pl.LightningDataModule):
    """Training and evaluation batches of labelled images.

    Args:
        images: the data.
        settings: all knobs; the policy of "has" goes to the loader, which hides at no cost.
        seed: of order, crops and masks.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(self, images: LabeledImages, settings: Settings, seed: int) -> None:
        super().__init__()
        self.images, self.settings, self.seed = images, settings, seed
        self.timed: TimedBatches | None = None
        self.validating: TimedBatches | None = None
        policy = settings.hide.policy(seed)
        self.policy = policy if settings.hide.method == "has" else None

    def train_dataloader(self) -> TimedBatches:
        """Batches of one rank; made anew by every fit."""
        trainer: Any = self.trainer
        rows = self.settings.loader.sizes
        if rows and rows[-1][0] >= trainer.max_epochs:
            raise ValueError(f"loader.sizes: {rows[-1]} never begins in trainer.max_epochs={trainer.max_epochs}")

        def make(size: int) -> ImageLoader:
            return self.train_loader(size, Share.of(trainer), trainer.strategy.root_device)

        loader = ProgressiveLoader(make, rows) if rows else make(self.settings.loader.size)
        check_ranks(loader)
        self.timed = TimedBatches(loader, lambda: trainer.current_epoch)
        return self.timed

    def val_dataloader(self) -> TimedBatches:
        """The validation set, each image once over all ranks, with padding of id -1; nothing hidden."""
        trainer: Any = self.trainer
        share = Share.of(trainer)
        loader = eval_loader(self.images.val, self.settings, trainer.strategy.root_device, share)
        check_ranks(loader)
        self.validating = TimedBatches(loader)
        return self.validating

    def reports(self) -> dict[str, dict[str, Any]]:
        """What this rank's loaders of the last fit handed out and could not load: "train", "val", as far as made."""
        made = {"train": self.timed, "val": self.validating}
        return {part: loader.report() for part, loader in made.items() if loader is not None}

    def train_loader(self, size: int, share: Share = ALONE, device: Any = "cpu") -> ImageLoader:
        """Training batches of one rank at an image side."""
        loader = self.settings.loader
        balanced = loader.sampling == "class-balanced"
        if balanced != (loader.steps is not None):
            raise ValueError(
                f"loader.steps={loader.steps}: loader.sampling=class-balanced needs it, and nothing else takes it"
            )
        return image_loader(
            self.images.train,
            share.batch_size(self.settings),
            train=True,
            policy=self.policy,
            size=size,
            seed=self.seed,
            rank=share.rank,
            world_size=share.world_size,
            crop=loader.crop,
            resize=loader.resize if loader.crop == "short-side" else None,
            padding=loader.padding,
            scale=_pair("scale", loader.scale),
            ratio=_pair("ratio", loader.ratio),
            mirror=loader.mirror,
            sampling=loader.sampling,
            steps=None if loader.steps is None else loader.steps * share.accumulation,
            fill_value=self.settings.hide.image_fill,
            **_common(self.settings, device, share),
        )


def eval_loader(
    source: Any,
    settings: Settings,
    device: Any,
    share: Share = ALONE,
    crop: str = "center",
    size: int | None = None,
    batch_size: int | None = None,
) -> ImageLoader:
    """Evaluation batches in order, each image once; id -1: padding with several ranks, or a file skipped.

    Args:
        source: images, by sample id.
        settings: mean, std and sizes.
        device: where the batches go.
        share: this process among those that evaluate together.
        crop: "center", or "warp": the whole image at ``size``.
        size: side of the images; None: ``eval_size``.
        batch_size: images per batch on this rank; None: the setting, or what a training batch has.
    """
    loader = settings.loader
    images = batch_size or loader.eval_batch_size or share.batch_size(settings)
    return image_loader(
        source,
        min(images, len(source)),
        train=False,
        size=size or loader.eval_size or loader.size,
        rank=share.rank,
        world_size=share.world_size,
        crop=crop,
        resize=loader.eval_resize if crop == "center" else None,
        **_common(settings, device, share),
    )


def without_padding(batch: Batch, settings: Settings, share: Share) -> Batch:
    """A batch of ``eval_loader`` without the images of id -1.

    One process alone that skips nothing has none, and need not wait for the device to tell.
    """
    if share.world_size == 1 and settings.loader.on_error == "raise":
        return batch
    real = batch["id"] >= 0
    return {name: values[real] for name, values in batch.items()}


def _common(settings: Settings, device: Any, share: Share) -> dict[str, Any]:
    loader = settings.loader
    return {
        "device": torch.device(device) if loader.device is None else loader.device,
        "threads": loader.threads or max(available_cores() // share.on_this_machine, 1),
        "mean": loader.mean,
        "std": loader.std,
        "dtype": loader.dtype,
        "channels_last": settings.model.channels_last,
        "prefetch": loader.prefetch,
        "cache": loader.cache,
        "on_error": loader.on_error,
        "error_budget": loader.error_budget,
    }


def _pair(name: str, values: list[float]) -> tuple[float, float]:
    if len(values) != 2:
        raise ValueError(f"loader.{name}={values}: expected two numbers, smallest and largest")
    return values[0], values[1]
