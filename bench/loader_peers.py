"""The loaders that are compared: ours, and what a user would pick instead. All do the same job on the same files.

The job: shuffled files, random resized crop (area 0.08-1, aspect 3/4-4/3), 224 x 224 with an antialiased linear
filter, mirror, normalise, float32 NCHW torch tensors with labels; and Hide-and-Seek where the name says so. The
decode ceiling stops after decoding the crop box: no loader that decodes with this decoder can be faster.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from has_dali.bench import timing
from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.pil import opened_image

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Job:
    """What every peer gets."""

    files: tuple[str, ...]
    labels: tuple[int, ...]
    policy: HideAndSeek
    batch_size: int
    threads: int
    size: int = 224


@dataclass(frozen=True)
class Peer:
    """One loader: ``open(job)`` gives an endless iterator of batches.

    ``hides``: applies Hide-and-Seek. ``delivers``: gives finished batches ({"image", "label"}), not just work.
    ``stays_open``: it is idle between its turns, so it need not be closed and opened again.
    """

    label: str
    open: Callable[[Job], AbstractContextManager[Iterator[Any]]]
    hides: bool = False
    delivers: bool = True
    stays_open: bool = True


@contextmanager
def has_dali_loader(job: Job, policy: HideAndSeek | None) -> Iterator[Iterator[Any]]:
    """This project's loader."""
    from has_dali.pipelines import image_loader

    loader = image_loader(
        job.files,
        job.batch_size,
        train=True,
        policy=policy,
        size=job.size,
        device="cpu",
        threads=job.threads,
        labels=job.labels,
    )
    yield timing.endless(loader)


def _cropped(job: Job) -> tuple[Any, Any]:
    """Decoded crop boxes and labels from DALI's reader and the decoder that draws crops itself."""
    encoded, label = fn.readers.file(
        files=list(job.files), labels=list(job.labels), random_shuffle=True, name="files", seed=1
    )
    images = fn.decoders.image_random_crop(
        encoded, random_area=list(AREA), random_aspect_ratio=list(ASPECT), output_type=types.RGB, seed=2
    )
    return images, label


def _pipeline(job: Job) -> Pipeline:
    return Pipeline(job.batch_size, job.threads, None, prefetch_queue_depth=2)


@contextmanager
def dali_operators(job: Job) -> Iterator[Iterator[Any]]:
    """DALI's own operators, as its ResNet example has them, with DALI's own PyTorch iterator."""
    pipeline = _pipeline(job)
    with pipeline:
        images, label = _cropped(job)
        images = fn.resize(images, size=[job.size, job.size], interp_type=types.INTERP_LINEAR, antialias=True)
        images = fn.crop_mirror_normalize(
            images,
            dtype=types.FLOAT,
            output_layout="CHW",
            mirror=fn.random.coin_flip(seed=3),
            mean=list(IMAGENET_MEAN),
            std=list(IMAGENET_STD),
        )
        pipeline.set_outputs(images, label)
    iterator = DALIGenericIterator([pipeline], ["image", "label"], size=-1)

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        for (batch,) in iterator:
            yield {"image": batch["image"], "label": batch["label"].squeeze(-1).long()}

    yield batches()


@contextmanager
def decode_ceiling(job: Job) -> Iterator[Iterator[Any]]:
    """Read, decode the crop box, and nothing else."""
    pipeline = _pipeline(job)
    with pipeline:
        pipeline.set_outputs(*_cropped(job))
    pipeline.build()

    def batches() -> Iterator[Any]:
        while True:
            yield pipeline.run()

    yield batches()


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


class PilImages(torch.utils.data.Dataset):
    """Files through Pillow and torchvision's transforms, then ``hide_patches``: the usual way to train with HaS."""

    def __init__(self, job: Job) -> None:
        from torchvision import transforms

        self.job = job
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(job.size, scale=AREA, ratio=ASPECT, antialias=True),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([m / 255 for m in IMAGENET_MEAN], [s / 255 for s in IMAGENET_STD]),
            ]
        )

    def __len__(self) -> int:
        return len(self.job.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with opened_image(self.job.files[index]) as image:
            tensor = self.transform(image.convert("RGB"))
        return hide_patches(tensor, self.job.policy), self.job.labels[index]


def start_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it stops the workers
    random.seed(torch.initial_seed())


@contextmanager
def torchvision_loader(job: Job) -> Iterator[Iterator[Any]]:
    """Torch's DataLoader with one worker per core."""
    loader = torch.utils.data.DataLoader(
        PilImages(job),
        job.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=job.threads,
        worker_init_fn=start_worker,
    )
    batches = ({"image": image, "label": label} for image, label in timing.endless(loader))
    try:
        yield batches
    finally:
        batches.close()


OURS, OURS_PLAIN, DALI, TORCHVISION, CEILING = "has_dali", "has_dali_plain", "dali", "torchvision", "ceiling"

PEERS = {
    CEILING: Peer("decode the crop box, nothing else", decode_ceiling, delivers=False),
    OURS: Peer("has_dali, with HaS", lambda job: has_dali_loader(job, job.policy), hides=True),
    OURS_PLAIN: Peer("has_dali, without HaS", lambda job: has_dali_loader(job, None)),
    DALI: Peer("DALI's own operators, without HaS", dali_operators),
    # Its workers go on decoding ahead while others are measured: close it after each turn.
    TORCHVISION: Peer("torchvision DataLoader, Python HaS", torchvision_loader, hides=True, stays_open=False),
}
