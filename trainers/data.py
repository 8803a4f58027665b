"""The loaders of a run, from its settings: what DALI or memory gives, to one rank of a trainer."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from has_dali.pipelines.loader import ImageLoader, image_loader
from has_dali.trainers.batches import ProgressiveLoader, TimedBatches
from has_dali.trainers.datasets import LabeledImages
from has_dali.trainers.settings import LoaderSettings, Settings


class ImageData(pl.LightningDataModule):
    """Training and evaluation batches of labelled images.

    Args:
        images: the data.
        settings: all knobs; the policy of "has" goes to the loader, which hides at no cost.
        seed: of order, crops and masks.
    """

    def __init__(self, images: LabeledImages, settings: Settings, seed: int) -> None:
        super().__init__()
        self.images, self.settings, self.seed = images, settings, seed
        self.timed: TimedBatches | None = None
        policy = settings.hide.policy(seed)
        self.policy = policy if settings.hide.method == "has" else None

    def train_dataloader(self) -> TimedBatches:
        """Batches of one rank; made anew by every fit."""
        trainer: Any = self.trainer
        rows = self.settings.loader.sizes
        accumulation = trainer.accumulate_grad_batches

        def make(size: int) -> ImageLoader:
            device = trainer.strategy.root_device
            return self.train_loader(size, trainer.world_size, trainer.global_rank, accumulation, device)

        loader = ProgressiveLoader(make, rows) if rows else make(self.settings.loader.size)
        self.timed = TimedBatches(loader, lambda: trainer.current_epoch)
        return self.timed

    def val_dataloader(self) -> TimedBatches:
        """The validation set, each image once over all ranks, nothing hidden."""
        trainer: Any = self.trainer
        loader = self.settings.loader
        per_rank = loader.eval_batch_size or self._per_rank(trainer.world_size, trainer.accumulate_grad_batches)
        rank, world_size = trainer.global_rank, trainer.world_size
        device = trainer.strategy.root_device
        return TimedBatches(eval_loader(self.images.val, self.settings, device, per_rank, rank, world_size))

    def train_loader(
        self, size: int, world_size: int = 1, rank: int = 0, accumulation: int = 1, device: Any = "cpu"
    ) -> ImageLoader:
        """Training batches of one rank at an image side."""
        loader = self.settings.loader
        balanced = loader.sampling == "class-balanced"
        if balanced != (loader.steps is not None):
            raise ValueError(
                f"loader.steps={loader.steps}: loader.sampling=class-balanced needs it, and nothing else takes it"
            )
        return image_loader(
            self.images.train,
            self._per_rank(world_size, accumulation),
            train=True,
            policy=self.policy,
            size=size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            crop=loader.crop,
            resize=loader.resize if loader.crop == "short-side" else None,
            padding=loader.padding,
            scale=_pair("scale", loader.scale),
            ratio=_pair("ratio", loader.ratio),
            mirror=loader.mirror,
            sampling=loader.sampling,
            steps=None if loader.steps is None else loader.steps * accumulation,
            fill_value=self.settings.hide.image_fill,
            **_common(loader, device, self.settings.model.channels_last),
        )

    def _per_rank(self, world_size: int, accumulation: int) -> int:
        total = self.settings.loader.batch_size
        share, rest = divmod(total, world_size * accumulation)
        if rest or not share:
            raise ValueError(
                f"loader.batch_size={total}: expected a multiple of {world_size} processes x {accumulation}"
                " accumulation steps; change it, trainer.devices or trainer.accumulate_grad_batches"
            )
        return share


def eval_loader(
    source: Any,
    settings: Settings,
    device: Any,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    crop: str = "center",
    size: int | None = None,
) -> ImageLoader:
    """Evaluation batches in order, each image once.

    Args:
        source: images, by sample id.
        settings: mean, std and sizes.
        device: where the batches go.
        batch_size: images per batch on this rank.
        rank: this process.
        world_size: number of processes.
        crop: "center", or "warp": the whole image at ``size``.
        size: side of the images; None: ``eval_size``.
    """
    loader = settings.loader
    side = size or loader.eval_size or loader.size
    return image_loader(
        source,
        min(batch_size, len(source)),
        train=False,
        size=side,
        rank=rank,
        world_size=world_size,
        crop=crop,
        resize=loader.eval_resize if crop == "center" else None,
        **_common(loader, device, settings.model.channels_last),
    )


def _common(loader: LoaderSettings, device: Any, channels_last: bool) -> dict[str, Any]:
    return {
        "device": torch.device(device) if loader.device is None else loader.device,
        "threads": loader.threads,
        "mean": loader.mean,
        "std": loader.std,
        "dtype": loader.dtype,
        "channels_last": channels_last,
        "prefetch": loader.prefetch,
        "cache": loader.cache,
    }


def _pair(name: str, values: list[float]) -> tuple[float, float]:
    if len(values) != 2:
        raise ValueError(f"loader.{name}={values}: expected two numbers, smallest and largest")
    return values[0], values[1]
