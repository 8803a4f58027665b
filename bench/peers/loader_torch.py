"""Torch's DataLoader with torchvision's transforms and the usual Python Hide-and-Seek: Pillow, or its own decoder."""

from __future__ import annotations

import random
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from has_dali.bench import timing
from has_dali.bench.peers.loader_job import AREA, ASPECT, Job
from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.pil import opened_image

MEAN, STD = [value / 255 for value in IMAGENET_MEAN], [value / 255 for value in IMAGENET_STD]


def hide_patches(image: torch.Tensor, policy: HideAndSeek) -> torch.Tensor:
    """Hide-and-Seek on one normalised (C, H, W) image in the original authors' form: a Python loop over cells."""
    if random.random() >= policy.p_apply:
        return image
    size = random.choice(policy.patch_sizes)
    if size:
        height, width = image.shape[1:]
        for y in range(0, height, size):
            for x in range(0, width, size):
                if random.random() < policy.p_hide:
                    image[:, y : y + size, x : x + size] = 0
    return image


def hidden_batch(images: torch.Tensor, policy: HideAndSeek) -> torch.Tensor:
    """``hide_patches`` on every image of a batch, in place, for loaders that give their users whole batches."""
    for image in images:
        hide_patches(image, policy)
    return images


class TransformedImages(torch.utils.data.Dataset):
    """Files through ``transform``, then ``hide_patches``: the usual way to train with Hide-and-Seek."""

    def __init__(self, job: Job, transform: Callable[[str], torch.Tensor]) -> None:
        self.job, self.transform = job, transform

    def __len__(self) -> int:
        return len(self.job.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return hide_patches(self.transform(self.job.files[index]), self.job.policy), self.job.labels[index]


class PilTransform:
    """Pillow's decoder and filter, torchvision's transforms."""

    def __init__(self, size: int) -> None:
        from torchvision import transforms

        self.steps = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, scale=AREA, ratio=ASPECT, antialias=True),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __call__(self, file: str) -> torch.Tensor:
        with opened_image(file) as image:
            tensor: torch.Tensor = self.steps(image.convert("RGB"))
        return tensor


class TensorTransform:
    """torchvision's own decoder and its v2 transforms: uint8 tensors until the very end."""

    def __init__(self, size: int) -> None:
        from torchvision import io
        from torchvision.transforms import v2

        self.io = io
        self.steps = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=AREA, ratio=ASPECT, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __call__(self, file: str) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # announces each time that the decoders will move to torchcodec
            decoded = self.io.decode_image(self.io.read_file(file), self.io.ImageReadMode.RGB)
        tensor: torch.Tensor = self.steps(decoded)
        return tensor


@contextmanager
def pil_loader(job: Job) -> Iterator[Iterator[Any]]:
    """Torch's DataLoader over Pillow images."""
    with data_loader(TransformedImages(job, PilTransform(job.size)), job.batch_size, job.threads) as batches:
        yield batches


@contextmanager
def tensor_loader(job: Job) -> Iterator[Iterator[Any]]:
    """Torch's DataLoader over torchvision's own decoder."""
    with data_loader(TransformedImages(job, TensorTransform(job.size)), job.batch_size, job.threads) as batches:
        yield batches


@contextmanager
def data_loader(images: torch.utils.data.Dataset[Any], batch_size: int, workers: int) -> Iterator[Iterator[Any]]:
    """Batches of torch's DataLoader, epoch after epoch, by workers that stay."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more workers than cores
        loader = torch.utils.data.DataLoader(
            images,
            batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            worker_init_fn=start_worker,
            persistent_workers=workers > 0,
        )
        batches = ({"image": image, "label": label} for image, label in timing.endless(loader))
        try:
            yield batches
        finally:
            batches.close()


def start_worker(worker: int) -> None:
    """Leave Ctrl-C to the parent, which stops the workers, and seed Python's generator, which torch's seeds leave."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    random.seed(torch.initial_seed())
