"""SPDL: FFmpeg decodes, crops and scales in threads of this process, without Python's lock."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from has_dali.bench.harness import Unavailable
from has_dali.bench.peers.loader_job import AREA, ASPECT, Job
from has_dali.bench.peers.loader_torch import hidden_batch
from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD

_REMEDY = "spdl.io does not load ({}); it needs FFmpeg's libraries, such as Debian's libavfilter and libavdevice"
_QUEUED_BATCHES = 2


@contextmanager
def loader(job: Job) -> Iterator[Iterator[Any]]:
    """Threads decode image by image; one more thread makes batches of them."""
    try:
        from spdl import io
        from spdl.pipeline import PipelineBuilder

        io.demux_config()  # the extension that needs FFmpeg is loaded on first use
    except (ImportError, OSError, RuntimeError) as error:
        raise Unavailable(_REMEDY.format(str(error).partition('. "')[0])) from None
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    scale = 1 / torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)

    def decode(index: int) -> tuple[Any, int]:
        packets = io.demux_image(job.files[index])
        frames = io.decode_packets(packets, filter_desc=crop_filter(packets.width, packets.height, job.size))
        return frames, job.labels[index]

    def batch(samples: Sequence[tuple[Any, int]]) -> dict[str, torch.Tensor]:
        pixels = io.to_torch(io.convert_frames([frames for frames, _ in samples]))
        images = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        images = hidden_batch(images.sub_(mean).mul_(scale), job.policy)
        return {"image": images, "label": torch.tensor([label for _, label in samples])}

    pipeline = (
        PipelineBuilder()
        .add_source(_order(len(job.files)))
        .pipe(decode, concurrency=job.threads)
        .aggregate(job.batch_size)
        .pipe(batch)
        .add_sink(_QUEUED_BATCHES)
        .build(num_threads=job.threads + 1)
    )
    with pipeline.auto_stop():
        yield iter(pipeline)


def _order(files: int) -> Iterator[int]:
    while True:
        yield from random.sample(range(files), files)


def crop_filter(width: int, height: int, size: int) -> str:
    """FFmpeg's filter for one random resized crop and mirror; its scaler widens the kernel when it shrinks."""
    left, top, w, h = random_crop(width, height)
    mirror = "hflip," if random.random() < 0.5 else ""
    crop = f"crop=w={w}:h={h}:x={left}:y={top}:exact=1"
    return f"{crop},scale=w={size}:h={size}:flags=bilinear,{mirror}format=pix_fmts=rgb24"


def random_crop(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width, height by torchvision's rule; its own implementation draws tensors, which costs more."""
    for _ in range(10):
        area = width * height * random.uniform(*AREA)
        aspect = math.exp(random.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, width - w), random.randint(0, height - h), w, h
    w = min(width, round(height * ASPECT[1]))
    h = min(height, round(width / ASPECT[0]))
    return (width - w) // 2, (height - h) // 2, w, h
