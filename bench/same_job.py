"""Do two loaders do the same job? Asked of every peer before its speed counts; who does not is void."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from has_dali.bench.harness import Verdict
from has_dali.kernels.policy import HideAndSeek

_SIGMAS = 5.0
# Crops of a few hundred images differ by chance; another normalisation differs by more than this.
_MEAN_TOLERANCE, _STD_RATIO = 0.5, 1.4
# Brightness varies from crop to crop, the difference between two channels less: swapped ones move it by 0.7.
_CONTRAST_TOLERANCE = 0.35


@dataclass(frozen=True)
class Check:
    """What some batches of a loader look like."""

    dtype: str
    shape: tuple[int, ...]
    label_dtype: str
    hidden: float
    """Fraction of pixels whose channels are all exactly 0."""
    visible_mean: tuple[float, ...]
    """Of each channel."""
    visible_std: tuple[float, ...]
    """Of each channel."""
    one_mask: bool
    """All images of a batch hide the same pixels, in every batch of which a part is hidden."""
    one_image: bool
    """All images of a batch look the same where nothing is hidden, in every batch."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def inspect(batches: Sequence[dict[str, torch.Tensor]]) -> Check:
    """Measure some batches of one loader."""
    images = torch.cat([batch["image"] for batch in batches])
    hidden = (images == 0).all(dim=1)
    visible = images.permute(0, 2, 3, 1)[~hidden].float()
    masks = hidden.split([len(batch["image"]) for batch in batches])
    parted = [mask for mask in masks if len(mask) > 1 and 0 < mask.float().mean() < 1]
    several = [(batch["image"], mask) for batch, mask in zip(batches, masks, strict=True) if len(mask) > 1]
    first = batches[0]
    return Check(
        str(first["image"].dtype).removeprefix("torch."),
        tuple(first["image"].shape),
        str(first["label"].dtype).removeprefix("torch."),
        float(hidden.float().mean()),
        tuple(visible.mean(dim=0).tolist()),
        tuple(visible.std(dim=0).tolist()),
        bool(parted) and all(bool((mask == mask[:1]).all()) for mask in parted),
        bool(several) and all(_one_image(made, mask) for made, mask in several),
    )


def _one_image(images: torch.Tensor, hidden: torch.Tensor) -> bool:
    """Whether each of (N, C, H, W) images equals the next where both are visible, and any pixel is."""
    both = ~(hidden[1:] | hidden[:-1])
    differ = (images[1:] != images[:-1]).any(dim=1) & both
    return bool(both.any()) and not bool(differ.any())


def difference(check: Check, policy: HideAndSeek | None, images: int, batch_size: int, size: int) -> str | None:
    """Why a loader does not do the job, or None when it does."""
    expected = {"dtype": "float32", "shape": (batch_size, 3, size, size), "label_dtype": "int64"}
    for name, value in expected.items():
        if getattr(check, name) != value:
            return f"{name} is {getattr(check, name)}, expected {value}"
    mean, variance = (0.0, 0.0) if policy is None else hidden_moments(policy, size)
    # Visible pixels that happen to equal the mean are rare; 0.1 % covers them.
    bound = _SIGMAS * math.sqrt(variance / images) + 1e-3
    if abs(check.hidden - mean) > bound:
        return f"hides {check.hidden:.1%} of the pixels, expected {mean:.1%} +- {bound:.1%}"
    if policy is not None and check.one_mask:
        return "hides the same pixels of every image of a batch"
    if check.one_image:
        return "gives the same image again and again"
    return None


def disagreement(check: Check, ours: Check) -> str | None:
    """Why the visible pixels cannot come from the same files and normalisation, or None; channel by channel."""
    for channel, (mean, std) in enumerate(zip(check.visible_mean, check.visible_std, strict=True)):
        our_mean, our_std = ours.visible_mean[channel], ours.visible_std[channel]
        if not abs(mean - our_mean) <= _MEAN_TOLERANCE:
            return f"visible pixels of channel {channel} have mean {mean:.2f}, ours {our_mean:.2f}"
        if not our_std / _STD_RATIO < std < our_std * _STD_RATIO:
            return f"visible pixels of channel {channel} have std {std:.2f}, ours {our_std:.2f}"
        contrast, our_contrast = mean - check.visible_mean[0], our_mean - ours.visible_mean[0]
        if abs(contrast - our_contrast) > _CONTRAST_TOLERANCE:
            return (
                f"visible pixels of channel {channel} lie {contrast:+.2f} from channel 0, ours {our_contrast:+.2f}:"
                " are channels swapped?"
            )
    return None


class Judge:
    """Judges all loaders of a job: against the job, then against the first one, which is ours.

    One judge serves all contenders of a job, or nothing is compared with ours.

    Args:
        policy: what a loader that hides must hide.
        batch_size: images per batch.
        size: height and width of an image.
    """

    def __init__(self, policy: HideAndSeek, batch_size: int, size: int) -> None:
        self.policy, self.batch_size, self.size = policy, batch_size, size
        self.first: Check | None = None

    def verdict(self, batches: Sequence[dict[str, torch.Tensor]], *, hides: bool) -> Verdict:
        """Whether some batches of a loader are the job's.

        Args:
            batches: at least one, each {"image", "label"}.
            hides: the loader says that it applies the policy.
        """
        check = inspect(batches)
        policy = self.policy if hides else None
        reason = difference(check, policy, len(batches) * self.batch_size, self.batch_size, self.size)
        if reason is None and self.first is not None:
            reason = disagreement(check, self.first)
        if reason is None and self.first is None:
            self.first = check
        return Verdict(reason, check.to_dict())


def hidden_moments(policy: HideAndSeek, size: int) -> tuple[float, float]:
    """Mean and variance of the hidden fraction of one ``size`` x ``size`` image under a policy."""
    first = second = 0.0
    for patch_size in policy.patch_sizes:
        if not patch_size:
            continue
        edges = [min(patch_size, size - start) / size for start in range(0, size, patch_size)]
        within = policy.p_hide * (1 - policy.p_hide) * sum(edge * edge for edge in edges) ** 2
        first += policy.p_hide / len(policy.patch_sizes)
        second += (within + policy.p_hide**2) / len(policy.patch_sizes)
    mean = policy.p_apply * first
    return mean, policy.p_apply * second - mean * mean
