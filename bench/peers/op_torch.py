"""Hide-and-Seek as torch users write it: the original authors' loop, a mask for the whole batch, and that compiled."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any, TypeAlias

from has_dali.bench.harness import Contender, Step, Unavailable
from has_dali.bench.peers.op_check import checker
from has_dali.bench.peers.op_job import FUSED, Buffers, OpJob, over_batches
from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    import torch

Apply: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
Reused: TypeAlias = "Iterator[torch.Tensor] | None"
"""Memory that results are written to, one after the other; None: every result gets new memory."""


def contenders(job: OpJob, buffers: Buffers) -> list[Contender]:
    """The loop, the eager mask and the compiled mask."""
    check = checker(job, buffers, "NCHW", lambda tensor: tensor.numpy())
    form = "fused" if job.kind == FUSED else "in place"

    def peer(key: str, label: str, make: Callable[[Reused], Apply]) -> Contender:
        layout = "NHWC" if job.kind == FUSED else "NCHW"
        return Contender(
            key, label,
            lambda: over_batches(make(reused(job, buffers)), lambda: tensors(buffers, layout, job.kind != FUSED)),
            check, requires=("torch",), units=job.batch, extra={"form": form, "layout": layout},
        )  # fmt: skip

    compiled = Contender(
        "torch_compile", "torch.compile of the mask", lambda: _compiled(job, buffers), check,
        requires=("torch",), units=job.batch, extra={"form": form, "layout": "NHWC"},
    )  # fmt: skip
    return [
        peer("python_loop", "Python loop over cells (original authors' form)", lambda out: loop(job, out)),
        peer("torch_eager", "torch, eager: coins, upsampling, masked_fill_", lambda out: eager(job, out=out)),
        compiled,
    ]


def tensors(buffers: Buffers, layout: str, as_nchw: bool = True) -> list[torch.Tensor]:
    """Pristine batches that lie in memory as ``layout`` says; ``as_nchw``: (N, C, H, W) whatever the layout."""
    import torch

    made = [torch.from_numpy(batch) for batch in buffers.batches(layout)]
    return [tensor.permute(0, 3, 1, 2) for tensor in made] if as_nchw and layout == "NHWC" else made


def reused(job: OpJob, buffers: Buffers) -> Reused:
    """The memory that results of a fused job go to, the same as ours; of another job, None."""
    import torch

    return cycle([torch.from_numpy(output) for output in buffers.outputs()]) if job.kind == FUSED else None


def normalizer(job: OpJob, device: str = "cpu", layout: str = "NCHW", out: Reused = None) -> Apply:
    """Uint8 (N, H, W, C) to normalised (N, C, H, W) that lies in memory as ``layout``, in the usual three steps."""
    import torch

    dtype = getattr(torch, job.output_dtype)
    mean, std = (
        torch.tensor(values, dtype=dtype, device=device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    order = torch.contiguous_format if layout == "NCHW" else torch.channels_last

    def normalize(batch: torch.Tensor) -> torch.Tensor:
        planar = batch.permute(0, 3, 1, 2)
        made = planar.to(dtype, memory_format=order) if out is None else next(out).copy_(planar)
        return made.sub_(mean).div_(std)

    return normalize


def after_normalizing(job: OpJob, apply: Apply, device: str = "cpu", layout: str = "NCHW", out: Reused = None) -> Apply:
    """``apply``, after normalisation where the job asks for it."""
    if job.kind != FUSED:
        return apply
    normalize = normalizer(job, device, layout, out)
    return lambda batch: apply(normalize(batch))


def loop(job: OpJob, out: Reused = None) -> Apply:
    """One slice assignment per hidden cell, one draw of Python's generator per cell."""
    policy, fill = job.policy, job.fill

    def hide_cells(batch: torch.Tensor) -> torch.Tensor:
        height, width = batch.shape[2:]
        for image in batch:
            size = random.choice(policy.patch_sizes)
            for y in range(0, height, size):
                for x in range(0, width, size):
                    if random.random() < policy.p_hide:
                        image[:, y : y + size, x : x + size] = fill
        return batch

    return after_normalizing(job, hide_cells, out=out)


def eager(job: OpJob, device: str = "cpu", layout: str = "NCHW", out: Reused = None) -> Apply:
    """A mask of the batch, then one call that fills."""
    draw = mask_of(job, device)
    return after_normalizing(job, lambda batch: batch.masked_fill_(draw(batch), job.fill), device, layout, out)


def mask_of(job: OpJob, device: str = "cpu") -> Apply:
    """(N, 1, H, W) masks of a batch, True = hidden: coins per cell, made as large as the image.

    ``repeat_interleave`` of booleans was the fastest way to upsample (uint8, S = 8, 64 images, one core: 4.3 k images/s
    with the fill, against 3.4 k with ``interpolate``). Mixed sizes need an index per pixel.
    """
    import torch

    sizes, p_hide = job.policy.patch_sizes, job.policy.p_hide
    if len(sizes) == 1:
        size = sizes[0]

        def one_size(batch: torch.Tensor) -> torch.Tensor:
            count, _, height, width = batch.shape
            cells = (-(-height // size), -(-width // size))
            coins = torch.rand(count, 1, *cells, device=device) < p_hide
            return coins.repeat_interleave(size, 2).repeat_interleave(size, 3)[..., :height, :width]

        return one_size
    choices, cells = torch.tensor(sizes, device=device), -(-job.size // min(sizes))

    def mixed(batch: torch.Tensor) -> torch.Tensor:
        count, _, height, width = batch.shape
        coins = torch.rand(count, cells * cells, device=device) < p_hide
        edges = choices[torch.randint(len(choices), (count,), device=device)][:, None]
        rows, columns = (torch.arange(side, device=device) // edges for side in (height, width))
        index = rows[:, :, None] * cells + columns[:, None, :]
        return coins.gather(1, index.view(count, -1)).view(count, 1, height, width)

    return mixed


@contextmanager
def _compiled(job: OpJob, buffers: Buffers) -> Iterator[Step]:
    """The eager function, compiled by the C++ compiler while it opens.

    Channels-last batches are what its code is fastest on (uint8, S = 8: 5.8 k images/s against 4.6 k). Of mixed sizes
    and of the fused job the mask is drawn outside: compiled, its draws are repeated for every pixel (mixed, float32:
    0.6 k against 3.1 k) or every channel (fused: 0.5 k against 1.6 k).
    """
    import torch

    if not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        raise Unavailable("no C++ compiler is found: install g++")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns where there is no CUDA
    torch.compiler.reset()  # the tables before this one have filled the cache of specialisations
    draw = mask_of(job)
    normalize = normalizer(job) if job.kind == FUSED else None

    def whole(batch: torch.Tensor) -> torch.Tensor:
        return batch.masked_fill_(draw(batch), job.fill)

    def filled(batch: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        planar = batch if normalize is None else normalize(batch)
        return planar.masked_fill_(mask, job.fill)

    inside, out = len(job.policy.patch_sizes) == 1 and job.kind != FUSED, reused(job, buffers)
    chosen: Any = whole if inside else filled
    # The copy becomes part of the loop that computes: what it writes is the memory that it was given.
    compiled: Any = torch.compile(
        chosen if out is None else lambda target, *inputs: target.copy_(chosen(*inputs)), dynamic=False
    )

    def work(batch: torch.Tensor) -> torch.Tensor:
        if inside:
            return compiled(batch)
        target = () if out is None else (next(out),)
        return compiled(*target, batch, draw(batch if normalize is None else batch.permute(0, 3, 1, 2)))

    with over_batches(work, lambda: tensors(buffers, "NHWC", job.kind != FUSED)) as step:
        yield step
