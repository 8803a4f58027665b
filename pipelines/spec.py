"""What a loader's images are, apart from where they come from: all that decides pixel values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.plan import EvalPlan, PadPlan, ShortSidePlan, TrainPlan, WarpPlan
from has_dali.pipelines.policy_schedule import Policy, policy_at, view_policy

DTYPES = ("float32", "float16")
MAX_SIDE = 65535  # as has_dali.arguments has it for DALI, which this module does without

BoxPlan: TypeAlias = TrainPlan | PadPlan | ShortSidePlan | WarpPlan
"""Plans whose boxes are whole pixels: (shapes, keys, epochs) -> (start, shape, flips)."""


@dataclass(frozen=True)
class ImageSpec:
    """Plan, policy and form of a loader's images; mean, std and fill in pixel units, 0..255.

    ``views``: None: one image per sample; k: k images that differ in what is hidden, (N, k, 3, size, size).
    """

    plan: BoxPlan | EvalPlan
    policy: Policy | None
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fill_value: float | tuple[float, ...] | None
    dtype: str
    channels_last: bool
    antialias: bool
    views: int | None = None

    def policies(self, epoch: int) -> tuple[HideAndSeek | None, ...]:
        """What is hidden in each view of a sample in an epoch."""
        policy = policy_at(self.policy, epoch)
        return tuple(None if policy is None else view_policy(policy, view) for view in range(self.views or 1))
