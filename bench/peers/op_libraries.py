"""What other libraries offer instead: one box of half the area, or many holes that cover as much.

None of these draws a grid of independent cells. Each is set so that it hides the same share of the pixels, with the
same fill, and its label says what it does; what a library's box or holes cost is all that is compared.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from has_dali.bench.harness import Contender, Unavailable
from has_dali.bench.peers.op_check import checker
from has_dali.bench.peers.op_has_dali import stacked
from has_dali.bench.peers.op_holes import coarse_dropout, grid_dropout
from has_dali.bench.peers.op_job import FUSED, PIXEL_FILL, Buffers, OpJob, over_batches
from has_dali.bench.peers.op_torch import Apply, Reused, after_normalizing, reused, tensors
from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    import torch

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network for a newer version
_ASPECT = (0.6, 1 / 0.6)
"""Height over width of the box; at half the area one that is twice as long as wide would not fit the image."""


def contenders(job: OpJob, buffers: Buffers) -> list[Contender]:
    """torchvision, timm, Kornia and Albumentations."""
    return [
        _on_tensors(job, buffers, "torchvision", "torchvision v2 RandomErasing: one box an image", torchvision_erasing),
        _on_tensors(job, buffers, "timm", "timm RandomErasing: one box an image", timm_erasing),
        _on_tensors(job, buffers, "kornia", "Kornia RandomErasing: one box an image", kornia_erasing, "out of place"),
        _albumentations(job, buffers, "grid_dropout", "Albumentations GridDropout: one hole per cell"),
        _albumentations(job, buffers, "coarse_dropout", "Albumentations CoarseDropout: overlapping holes"),
    ]


def _on_tensors(job: OpJob, buffers: Buffers, module: str, label: str, make: Any, form: str = "in place") -> Contender:
    layout = "NHWC" if job.kind == FUSED else "NCHW"
    return Contender(
        f"{module}_erasing", label,
        lambda: over_batches(make(job, reused(job, buffers)), lambda: tensors(buffers, layout, job.kind != FUSED)),
        checker(job, buffers, "NCHW", lambda tensor: tensor.numpy()),
        requires=("torch", module), units=job.batch,
        extra={"form": "fused" if job.kind == FUSED else form, "layout": layout},
    )  # fmt: skip


def torchvision_erasing(job: OpJob, out: Reused = None) -> Apply:
    """``RandomErasing`` of torchvision v2 on every image, since a batch would get one box."""
    from torchvision.transforms import v2

    share = job.policy.p_hide
    erase = v2.RandomErasing(p=1.0, scale=(share, share), ratio=_ASPECT, value=job.fill, inplace=True)

    def erase_each(batch: torch.Tensor) -> torch.Tensor:
        for image in batch:
            erase(image)
        return batch

    return after_normalizing(job, erase_each, out=out)


def timm_erasing(job: OpJob, out: Reused = None) -> Apply:
    """``RandomErasing`` of timm as its loader calls it: on a normalised batch, which it fills with 0."""
    from timm.data.random_erasing import RandomErasing

    if job.fill != 0:
        raise Unavailable("fills with 0 only: made for batches that are normalised")
    share = job.policy.p_hide
    erase = RandomErasing(1.0, share, share, *_ASPECT, mode="const", device="cpu")
    return after_normalizing(job, erase, out=out)


def kornia_erasing(job: OpJob, out: Reused = None) -> Apply:
    """``RandomErasing`` of Kornia on the batch."""
    import kornia.augmentation

    if job.kind != FUSED and job.dtype != "float32":
        raise Unavailable("takes batches of floats only")
    share = job.policy.p_hide
    erase = kornia.augmentation.RandomErasing(scale=(share, share), ratio=_ASPECT, value=job.fill, p=1.0)
    return after_normalizing(job, erase, out=out)


def _albumentations(job: OpJob, buffers: Buffers, name: str, label: str) -> Contender:
    def work() -> Any:
        transform = albumentations_transform(job, name)
        if job.kind != FUSED:
            return lambda batch: [transform(image=image)["image"] for image in batch]
        import torch

        out = reused(job, buffers)
        assert out is not None
        return lambda batch: torch.stack([transform(image=image)["image"] for image in batch], out=next(out))

    layout = "NCHW" if job.kind == FUSED else "NHWC"
    return Contender(
        name, label, lambda: over_batches(work(), lambda: list(buffers.batches("NHWC"))),
        checker(job, buffers, layout, stacked), requires=("albumentations", "torch"), units=job.batch,
        extra={"form": "fused" if job.kind == FUSED else "out of place", "layout": "NHWC"},
    )  # fmt: skip


def albumentations_transform(job: OpJob, name: str) -> Any:
    """The transform of one image; fused, it hides bytes first, which is cheaper than floats, then normalises."""
    import albumentations
    import cv2

    cv2.setNumThreads(job.threads)
    share, fill = job.policy.p_hide, PIXEL_FILL if job.kind == FUSED else job.fill
    choices = []
    for patch in job.policy.patch_sizes:
        if name == "grid_dropout":
            cells, ratio, _ = grid_dropout(job.size, patch, share)
            one = albumentations.GridDropout(ratio=ratio, holes_number_xy=(cells, cells), fill=fill, p=1.0)
        else:
            holes, _ = coarse_dropout(job.size, patch, share)
            one = albumentations.CoarseDropout((holes, holes), (patch, patch), (patch, patch), fill=fill, p=1.0)
        choices.append(one)
    hide = choices[0] if len(choices) == 1 else albumentations.OneOf(choices, p=1.0)
    if job.kind != FUSED:
        return hide
    from albumentations.pytorch import ToTensorV2

    mean, std = (tuple(value / 255 for value in values) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return albumentations.Compose([hide, albumentations.Normalize(mean, std, 255.0), ToTensorV2()])
