"""DALI's own operators, with and without Hide-and-Seek, and the two ceilings that no loader built on them can pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from has_dali.bench.peers.loader_job import AREA, ASPECT, Job
from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD
from has_dali.kernels.policy import HideAndSeek

if TYPE_CHECKING:
    from nvidia.dali import Pipeline

_FAR_AWAY = 1e6  # where the boxes of visible cells lie: outside every image


@contextmanager
def operators(job: Job) -> Iterator[Iterator[Any]]:
    """Without Hide-and-Seek, as DALI's ResNet example has them."""
    yield _batches(job, hides=False)


@contextmanager
def operators_with_erase(job: Job) -> Iterator[Iterator[Any]]:
    """The same, then one ``fn.erase`` with a box per hidden cell."""
    yield _batches(job, hides=True)


@contextmanager
def decode_ceiling(job: Job) -> Iterator[Iterator[Any]]:
    """Read, decode the crop box, and nothing else."""
    pipeline = _pipeline(job)
    with pipeline:
        pipeline.set_outputs(*_cropped(*_read(job)))
    yield _runs(pipeline)


@contextmanager
def read_ceiling(job: Job) -> Iterator[Iterator[Any]]:
    """Read the files into memory, and nothing else."""
    pipeline = _pipeline(job)
    with pipeline:
        pipeline.set_outputs(*_read(job, dont_use_mmap=True))  # a mapped file is not read until someone looks
    yield _runs(pipeline)


def _batches(job: Job, *, hides: bool) -> Iterator[Any]:
    """With DALI's own PyTorch iterator."""
    from nvidia.dali import fn, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    pipeline = _pipeline(job)
    with pipeline:
        images, label = _cropped(*_read(job))
        images = fn.resize(images, size=[job.size, job.size], interp_type=types.INTERP_LINEAR, antialias=True)
        images = fn.crop_mirror_normalize(
            images,
            dtype=types.FLOAT,
            output_layout="CHW",
            mirror=fn.random.coin_flip(seed=3),
            mean=list(IMAGENET_MEAN),
            std=list(IMAGENET_STD),
        )
        if hides:
            images = erased(images, job.policy, job.size, seed=4)
        pipeline.set_outputs(images, label)
    iterator = DALIGenericIterator([pipeline], ["image", "label"], size=-1)
    return ({"image": batch["image"], "label": batch["label"].squeeze(-1).long()} for (batch,) in iterator)


def erased(images: Any, policy: HideAndSeek, size: int, seed: int) -> Any:
    """Hide-and-Seek from stock operators: one box for every cell that there can be, those of visible cells far away."""
    from nvidia.dali import fn, types

    sizes = [patch for patch in policy.patch_sizes if patch]
    if not sizes:
        return images
    side = -(-size // min(sizes))
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2)
    cell = fn.random.uniform(values=[float(patch) for patch in policy.patch_sizes], seed=seed)
    coins = {"dtype": types.UINT8, "shape": [len(cells), 1]}
    away = (1 - fn.random.coin_flip(probability=policy.p_hide, seed=seed + 1, **coins)) + (cell < 1.0)
    if policy.p_apply < 1:
        away = away + (1 - fn.random.coin_flip(probability=policy.p_apply, seed=seed + 2, dtype=types.UINT8))
    corners = types.Constant(cells.astype(np.float32)) * cell + away * _FAR_AWAY
    extents = types.Constant(np.ones((len(cells), 2), np.float32)) * cell
    boxes = {"anchor": fn.reshape(corners, shape=[-1]), "shape": fn.reshape(extents, shape=[-1])}
    return fn.erase(images, axis_names="HW", fill_value=0.0, **boxes)


def _pipeline(job: Job) -> Pipeline:
    from nvidia.dali import Pipeline

    return Pipeline(job.batch_size, job.threads, None, prefetch_queue_depth=job.prefetch)


def _read(job: Job, dont_use_mmap: bool = False) -> tuple[Any, Any]:
    from nvidia.dali import fn

    encoded, label = fn.readers.file(
        files=list(job.files),
        labels=list(job.labels),
        random_shuffle=True,
        name="files",
        seed=1,
        dont_use_mmap=dont_use_mmap,
    )
    return encoded, label


def _cropped(encoded: Any, label: Any) -> tuple[Any, Any]:
    """Decoded crop boxes, by the decoder that draws them itself."""
    from nvidia.dali import fn, types

    images = fn.decoders.image_random_crop(
        encoded, random_area=list(AREA), random_aspect_ratio=list(ASPECT), output_type=types.RGB, seed=2
    )
    return images, label


def _runs(pipeline: Pipeline) -> Iterator[Any]:
    pipeline.build()
    while True:
        yield pipeline.run()
