"""What a loader's images are, apart from where they come from: all that decides pixel values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.plan import EvalPlan, PadPlan, ShortSidePlan, TrainPlan, WarpPlan

DTYPES = ("float32", "float16")
MAX_SIDE = 65535  # as has_dali.arguments has it for DALI, which this module does without

BoxPlan: TypeAlias = TrainPlan | PadPlan | ShortSidePlan | WarpPlan
"""Plans whose boxes are whole pixels: (shapes, keys, epochs) -> (start, shape, flips)."""


@dataclass(frozen=True)
class ImageSpec:
    """Plan, policy and form of a loader's images; mean, std and fill in pixel units, 0..255."""

    plan: BoxPlan | EvalPlan
    policy: HideAndSeek | None
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fill_value: float | tuple[float, ...] | None
    dtype: str
    channels_last: bool
    antialias: bool
