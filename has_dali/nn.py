"""Hide-and-Seek as torch modules: feature maps and images (N, C, H, W), sequences (N, C, T); active in training only.

The operation is registered with torch as ``has_dali::hide``, with a fake implementation for ``torch.compile`` and a
backward pass: the gradient is zero where values were hidden.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from has_dali.device_functional import dense
from has_dali.functional import hide
from has_dali.kernels.contract import as_u64
from has_dali.kernels.policy import HideAndSeek
from has_dali.random_keys import LARGEST_KEY, keys_of_rank, process_rank


@torch.library.custom_op("has_dali::hide", mutates_args=())
def _hide(
    batch: torch.Tensor,
    sample_ids: torch.Tensor,
    epoch: int,
    patch_sizes: list[int],
    p_hide: float,
    p_apply: float,
    seed: int,
    random_offset: bool,
    fill: list[float],
    layout: str,
) -> torch.Tensor:
    policy = HideAndSeek(tuple(patch_sizes), p_hide, p_apply, seed, random_offset)
    return hide(dense(batch.detach()), policy, sample_ids, epoch, fill=fill, layout=layout)


@_hide.register_fake
def _(batch: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty_like(dense(batch))


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, sample_ids, *rest = inputs
    ctx.save_for_backward(sample_ids)
    ctx.rest = rest


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    (sample_ids,) = ctx.saved_tensors
    *policy, fill, layout = ctx.rest
    return _hide(gradient, sample_ids, *policy, [0.0] * len(fill), layout), *[None] * 9


_hide.register_autograd(_backward, setup_context=_save_for_backward)


class _HideAndSeekModule(nn.Module):
    """What both modules share; ``layout`` is theirs."""

    layout = "NCHW"

    def __init__(self, policy: HideAndSeek, fill: float | str = 0.0, momentum: float = 0.01) -> None:
        super().__init__()
        if not isinstance(policy, HideAndSeek):
            raise TypeError(f"{type(self).__name__}: policy: expected a HideAndSeek, got {type(policy).__name__}")
        if isinstance(fill, str) and fill != "running_mean":
            raise ValueError(f"{type(self).__name__}: fill={fill!r}: expected a number or 'running_mean'")
        if not 0 < momentum <= 1:
            raise ValueError(f"{type(self).__name__}: momentum={momentum!r}: expected a number above 0, at most 1")
        self.policy, self.fill, self.momentum = policy, fill, momentum
        self.running_mean: torch.Tensor
        self.register_buffer("running_mean", torch.zeros(0) if fill == "running_mean" else None)

    def forward(self, batch: torch.Tensor, sample_ids: torch.Tensor | None = None, epoch: int = 0) -> torch.Tensor:
        """``batch`` with hidden cells in training, ``batch`` itself in evaluation.

        Args:
            batch: floats, in the module's layout.
            sample_ids: (N,) int64 keys of the masks; None: drawn from torch's default generator, apart on every rank.
            epoch: with ``sample_ids``, makes the masks of each epoch differ.
        """
        if not self.training:
            return batch
        if batch.ndim != len(self.layout):
            raise ValueError(
                f"{type(self).__name__}: expected {len(self.layout)} dimensions ({self.layout}),"
                f" got {tuple(batch.shape)}"
            )
        if sample_ids is None:
            sample_ids = keys_of_rank(torch.randint(LARGEST_KEY, (batch.shape[0],)), process_rank())
        policy = self.policy
        seed = as_u64(policy.seed)
        seed = seed - 2**64 if seed >= 2**63 else seed  # the operator's integers are signed; the bits are the same
        return _hide(
            batch, sample_ids, epoch, list(policy.patch_sizes), policy.p_hide, policy.p_apply, seed,
            policy.random_offset, self._fill(batch), self.layout,
        )  # fmt: skip

    def _fill(self, batch: torch.Tensor) -> list[float]:
        channels = batch.shape[1]
        if not isinstance(self.fill, str):
            return [float(self.fill)] * channels
        mean = batch.detach().float().mean(dim=[axis for axis in range(batch.ndim) if axis != 1])
        if self.running_mean.numel() == 0:
            self.running_mean = mean
        else:
            self.running_mean = self.running_mean.lerp(mean, self.momentum)
        return self.running_mean.tolist()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(prefix + "running_mean")
        if saved is not None and self.running_mean is not None:
            self.running_mean = torch.empty_like(saved)  # its length is known only from the first batch on
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """The policy and the fill."""
        return f"{self.policy}, fill={self.fill!r}"


class HideAndSeek2d(_HideAndSeekModule):
    """Hide cells of images or feature maps (N, C, H, W), all channels of a cell at once (paper, section 4.3.4).

    Args:
        policy: what is hidden; patch sizes are in pixels of the map that comes in.
        fill: value of hidden units: a number, or "running_mean", a running mean of each channel (the paper does
            not say which; a plain mask, as in the authors' code, gives 0).
        momentum: of the running mean.

    Example:
        >>> from has_dali import HideAndSeek
        >>> conv1 = nn.Sequential(nn.Conv2d(3, 96, 11, 4, 2), nn.ReLU(), HideAndSeek2d(HideAndSeek.preset("conv1-5")))
        >>> conv1(torch.rand(2, 3, 224, 224)).shape
        torch.Size([2, 96, 55, 55])
    """

    layout = "NCHW"


class HideAndSeek1d(_HideAndSeekModule):
    """Hide segments of feature sequences (N, C, T), all features of a segment at once (paper, section 3.2).

    Args:
        policy: what is hidden; a patch size is the length of a segment in time steps.
        fill: value of hidden steps, as for ``HideAndSeek2d``.
        momentum: of the running mean.
    """

    layout = "NCT"
