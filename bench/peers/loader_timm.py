"""timm's loader, the usual one of ImageNet trainers: uint8 batches from workers, normalised where they are used."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from has_dali.bench import timing
from has_dali.bench.peers.loader_job import AREA, ASPECT, Job
from has_dali.bench.peers.loader_torch import MEAN, STD, hidden_batch
from has_dali.pipelines.pil import opened_image


class PilFiles(torch.utils.data.Dataset):
    """Files as timm's ImageDataset gives them; timm sets ``transform``."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.transform: Callable[[Any], Any] | None = None

    def __len__(self) -> int:
        return len(self.job.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        assert self.transform is not None
        with opened_image(self.job.files[index]) as image:
            return self.transform(image.convert("RGB")), self.job.labels[index]


@contextmanager
def loader(job: Job) -> Iterator[Iterator[Any]]:
    """``create_loader`` with its prefetcher; its RandomErasing cannot hide a grid, so ``hidden_batch`` follows."""
    from timm.data import create_loader

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more workers than cores
        made = create_loader(
            PilFiles(job),
            (3, job.size, job.size),
            job.batch_size,
            is_training=True,
            scale=AREA,
            ratio=ASPECT,
            color_jitter=None,  # 0.0 would still run a ColorJitter, which changes nothing
            interpolation="bilinear",
            mean=tuple(MEAN),
            std=tuple(STD),
            num_workers=job.threads,
            device=torch.device("cpu"),
            use_prefetcher=True,
        )
        batches = ({"image": hidden_batch(image, job.policy), "label": label} for image, label in timing.endless(made))
        try:
            yield batches
        finally:
            batches.close()
