"""What a batch goes through between loader and network: the methods that hide on finished batches.

Hide-and-Seek on the image is the loader's work and costs nothing here; what the paper compares it with is done here.
All draws are functions of (seed, epoch, sample id), as the masks of Hide-and-Seek are.
"""

from __future__ import annotations

import numpy as np
import torch

from has_dali import hide
from has_dali.kernels.contract import IMAGENET_MEAN, PLAN_BLOCK, as_u64
from has_dali.kernels.philox import philox4x32
from has_dali.kernels.policy import HideAndSeek
from has_dali.trainers.erasing import RandomErasing
from has_dali.trainers.settings import HideSettings

# Counter block of the seeds of other generators; masks and plans take others.
_SEED_BLOCK = PLAN_BLOCK + 1024
_LAST_EPOCH = 2**32 - 1  # the draws of testing count down from here, where no training arrives


class BatchHiding:
    """Callable for normalised batches (N, C, H, W): pixel dropout, Random Erasing, or the batch as it is.

    Args:
        settings: the method; "none", "has" and "conv1" leave batches alone.
        seed: of the draws.
    """

    def __init__(self, settings: HideSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.policy = settings.policy(seed) if settings.method == "pixel-dropout" else None
        self.erasing = None
        if settings.method == "random-erasing":
            p = 0.5 if settings.p_hide is None else settings.p_hide
            # "legacy": the authors' code writes the means of the 0..1 scale into normalised images.
            fill = tuple(value / 255 for value in IMAGENET_MEAN) if settings.erase_fill == "legacy" else (0.0, 0.0, 0.0)
            self.erasing = RandomErasing(p, (settings.area[0], settings.area[1]), settings.aspect, fill, seed)

    def __call__(self, images: torch.Tensor, ids: torch.Tensor, epoch: int, training: bool) -> torch.Tensor:
        """The batch as the network sees it; the input may be changed in place.

        Args:
            images: (N, C, H, W) normalised, so that 0 is the mean.
            ids: (N,) int64 sample ids.
            epoch: with the ids and the seed it determines every draw; while testing, the number of the view.
            training: while testing only pixel dropout with at="traintest" acts.
        """
        if self.policy is not None and (training or self.settings.at == "traintest"):
            return self._dropped(images, self.policy, ids, epoch if training else _LAST_EPOCH - epoch)
        if self.erasing is not None and training:
            return self.erasing(images, ids, epoch)
        return images

    def _dropped(self, images: torch.Tensor, policy: HideAndSeek, ids: torch.Tensor, epoch: int) -> torch.Tensor:
        """Cells of one pixel hidden (paper, section 4.3.2), and what stays scaled up as dropout does."""
        count, channels, height, width = images.shape
        if self.settings.per_channel:
            flat = images.reshape(count, 1, channels * height, width)  # a coin per value: channels as more rows
            images = hide(flat, policy, ids, epoch).reshape(images.shape)
        else:
            images = hide(images, policy, ids, epoch, out=images)
        return images.div_(1 - policy.p_hide) if self.settings.rescale and policy.p_hide < 1 else images


def mixed_seed(seed: int, epoch: int, number: int) -> int:
    """A 64-bit seed that differs for every (seed, epoch, number): two words of one Philox block."""
    words = philox4x32(np.uint64(_SEED_BLOCK), np.uint64(epoch), np.uint64(as_u64(number)), np.uint64(as_u64(seed)))
    return int(words[0]) << 32 | int(words[1])
