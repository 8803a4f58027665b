"""A LightningDataModule over ``image_loader``: rank, world size and device come from the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

from has_dali.kernels.threads import available_cores
from has_dali.pipelines.epoch_batches import EpochBatches
from has_dali.pipelines.image_batches import ImageLoader
from has_dali.pipelines.loader import image_loader
from has_dali.pipelines.policy_schedule import Policy
from has_dali.pipelines.rank_check import check_ranks

_FROM_TRAINER = ("rank", "world_size", "train", "policy")


class ImageDataModule(pl.LightningDataModule):
    """Training, validation and test batches of images: dicts with ``image``, ``label`` and ``id``.

    Lightning's checkpoints hold the training loader's state: ``trainer.fit(..., ckpt_path=...)`` goes on at the batch
    that the checkpoint was written after, in the middle of an epoch too, and on another number of processes if
    ``batch_size`` times their number stays the same. The epoch is the trainer's. Labels of -1 in evaluation over
    several processes are padding. Processes whose data or settings differ are told so before the first batch.

    Args:
        train: what ``image_loader`` takes as data.
        val: for validation; None: there is none.
        test: for testing; None: there is none.
        batch_size: images per batch on each rank.
        eval_batch_size: the same in evaluation; None: ``batch_size``.
        policy: what to hide in training, or a schedule over epochs.
        size: height and width of the images.
        device: where batches go; None: the trainer's.
        threads: decoding threads of each process; None: its share of this machine's cores.
        train_options: more arguments of ``image_loader`` for training, such as {"crop": "short-side"}.
        eval_options: the same for validation and test.
        options: the same for all of them, such as seed, mean, std or dtype.

    Raises:
        TypeError: an option is one that the trainer decides.
        ValueError: when loaders are made, on all ranks: their data or settings differ; names what.

    Example:
        >>> import numpy as np
        >>> from has_dali import HideAndSeek
        >>> from has_dali.pipelines import ArraySource
        >>> images = ArraySource.from_images(np.zeros((8, 40, 40, 3), np.uint8), labels=[0, 1] * 4)
        >>> data = ImageDataModule(images, images, batch_size=4, policy=HideAndSeek((8,)), size=32)
        >>> [tuple(batch["image"].shape) for batch in data.train_dataloader()]
        [(4, 3, 32, 32), (4, 3, 32, 32)]
    """

    def __init__(
        self,
        train: Any,
        val: Any = None,
        test: Any = None,
        *,
        batch_size: int,
        eval_batch_size: int | None = None,
        policy: Policy | None = None,
        size: int = 224,
        device: Any = None,
        threads: int | None = None,
        train_options: Mapping[str, Any] | None = None,
        eval_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.data = {"train": train, "val": val, "test": test}
        self.policy = policy
        self._batch_sizes = batch_size, eval_batch_size or batch_size
        self._common = {"size": size, **options}
        self._own = {True: dict(train_options or {}), False: dict(eval_options or {})}
        self._device, self._threads = device, threads
        for name in _FROM_TRAINER:
            if name in options or any(name in own for own in self._own.values()):
                raise TypeError(f"{name}: the trainer decides it, or it is an argument of its own; leave it out")
        if val is None:  # Lightning takes a hook that is there for data that is there
            self.val_dataloader = None  # type: ignore[assignment, method-assign]
        if test is None:
            self.test_dataloader = None  # type: ignore[assignment, method-assign]

    def train_dataloader(self) -> EpochBatches:
        """Training batches of this rank, in the trainer's epoch; made anew by every fit."""
        trainer: Any = self.trainer
        return EpochBatches(self._loader("train"), None if trainer is None else lambda: trainer.current_epoch)

    def val_dataloader(self) -> ImageLoader:
        """Validation batches of this rank."""
        return self._loader("val")

    def test_dataloader(self) -> ImageLoader:
        """Test batches of this rank."""
        return self._loader("test")

    def _loader(self, part: str) -> ImageLoader:
        train = part == "train"
        trainer: Any = self.trainer
        rank, world_size, local, device = 0, 1, 1, self._device or "auto"
        if trainer is not None:
            rank, world_size, local = trainer.global_rank, trainer.world_size, trainer.num_devices
            device = self._device or trainer.strategy.root_device
        options = {**self._common, **self._own[train]}
        loader = image_loader(
            self.data[part],
            self._batch_sizes[not train],
            train=train,
            policy=self.policy if train else None,
            rank=rank,
            world_size=world_size,
            device=device,
            threads=self._threads or max(available_cores() // local, 1),
            **options,
        )
        if trainer is not None:
            check_ranks(loader)
        return loader
