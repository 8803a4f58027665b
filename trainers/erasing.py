"""Random Erasing, the paper's comparison peer (section 4.6): one rectangle per image, drawn per sample."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from has_dali.kernels.compiling import kernel
from has_dali.kernels.contract import PLAN_BLOCK, as_u64, threshold
from has_dali.kernels.philox import philox4x32

ATTEMPTS = 100
# Counter blocks of their own: attempt k draws from block ERASE_BLOCK + 1 + k, the coin from the first.
ERASE_BLOCK = PLAN_BLOCK + 2048


class RandomErasing:
    """Erase a rectangle of some images: the rule and the defaults of the authors' code, drawn as masks are.

    With probability ``p``, up to 100 tries draw a share of the area, uniform in ``area``, and an aspect ratio, uniform
    from ``aspect`` to its inverse (height over width); the first rectangle smaller than the image is placed uniformly.

    Args:
        p: probability that an image is erased.
        area: smallest and largest share of the image.
        aspect: smallest aspect ratio, at most 1.
        fill: (C,) values of erased pixels, in the batch's units.
        seed: with epoch and sample id it determines every draw.
    """

    def __init__(self, p: float, area: tuple[float, float], aspect: float, fill: tuple[float, ...], seed: int) -> None:
        self.p, self.area, self.aspect, self.fill, self.seed = p, area, aspect, fill, seed

    def boxes(self, ids: npt.NDArray[np.int64], epoch: int, height: int, width: int) -> npt.NDArray[np.int64]:
        """(N, 4): top, left, height, width of each image's rectangle; zeros where nothing is erased."""
        found = np.zeros((len(ids), 4), np.int64)
        seed, coin = np.uint64(as_u64(self.seed)), np.uint64(threshold(self.p))
        _draw(found, ids.astype(np.uint64), np.uint64(epoch), seed, coin, *self.area, self.aspect, height, width)
        return found

    def __call__(self, images: torch.Tensor, ids: torch.Tensor, epoch: int) -> torch.Tensor:
        """The batch (N, C, H, W) with its rectangles filled, in place."""
        height, width = images.shape[-2:]
        boxes = torch.from_numpy(self.boxes(ids.cpu().numpy(), epoch, height, width)).to(images.device)
        top, left, tall, wide = (boxes[:, k, None] for k in range(4))
        y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
        rows, columns = (y >= top) & (y < top + tall), (x >= left) & (x < left + wide)
        mask = rows[:, None, :, None] & columns[:, None, None, :]
        if not any(self.fill):
            return images.masked_fill_(mask, 0)
        fill = torch.tensor(self.fill, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
        return images.copy_(torch.where(mask, fill, images))


@kernel
def _draw(found, ids, epoch, seed, coin, low, high, aspect, height, width):  # type: ignore[no-untyped-def]
    unit = 2.0**-32
    for n in range(len(ids)):
        word, _, _, _ = philox4x32(np.uint64(ERASE_BLOCK), epoch, ids[n], seed)
        if word >= coin:
            continue
        for attempt in range(ATTEMPTS):
            w0, w1, w2, w3 = philox4x32(np.uint64(ERASE_BLOCK + 1 + attempt), epoch, ids[n], seed)
            area = height * width * (low + (high - low) * (w0 * unit))
            ratio = aspect + (1 / aspect - aspect) * (w1 * unit)
            tall, wide = np.int64(np.rint(math.sqrt(area * ratio))), np.int64(np.rint(math.sqrt(area / ratio)))
            if 0 < tall < height and 0 < wide < width:
                found[n, 0] = (w2 * np.uint64(height - tall + 1)) >> np.uint64(32)
                found[n, 1] = (w3 * np.uint64(width - wide + 1)) >> np.uint64(32)
                found[n, 2], found[n, 3] = tall, wide
                break
