"""Decoded images in memory to batches: our loader, and torch's DataLoader as torchvision's CIFAR10 is usually fed.

The job: pad by 4, crop, mirror, normalise, Hide-and-Seek with the paper's CIFAR policy, batches of 128 float32 tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from PIL import Image

from has_dali.bench import timing
from has_dali.bench.peers.loader_torch import data_loader, hide_patches
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.arrays import ArraySource

SIZE, PADDING, BATCH_SIZE = 32, 4, 128
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # of the paper's CIFAR code, 0..1

Batches = Iterator[dict[str, torch.Tensor]]


@contextmanager
def ours(source: ArraySource, policy: HideAndSeek, threads: int) -> Iterator[Batches]:
    """This project's loader."""
    from has_dali.pipelines import image_loader

    loader = image_loader(
        source,
        BATCH_SIZE,
        train=True,
        policy=policy,
        size=SIZE,
        crop="pad",
        padding=PADDING,
        device="cpu",
        threads=threads,
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
    )
    yield timing.endless(loader)


class PilArrays(torch.utils.data.Dataset):
    """Images in memory through Pillow and torchvision's transforms, as its CIFAR10 does, then ``hide_patches``."""

    def __init__(self, source: ArraySource, policy: HideAndSeek) -> None:
        from torchvision import transforms

        self.data = source.pixels.reshape(-1, SIZE, SIZE, 3)
        self.targets = source.labels.tolist()
        self.policy = policy
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(SIZE, PADDING),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        tensor = self.transform(Image.fromarray(self.data[index]))
        return hide_patches(tensor, self.policy), self.targets[index]


def torchvision_loader(source: ArraySource, policy: HideAndSeek, workers: int) -> AbstractContextManager[Iterator[Any]]:
    """Torch's DataLoader; its workers stay from epoch to epoch."""
    return data_loader(PilArrays(source, policy), BATCH_SIZE, workers)
