"""Arguments of ``image_loader`` that depend on one another: checked, and turned into a plan and a sampler."""

from __future__ import annotations

from typing import Any

import numpy as np

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.arrays import DecodedSource
from has_dali.pipelines.data import Opened
from has_dali.pipelines.plan import EvalPlan, PadPlan, ShortSidePlan, TrainPlan, WarpPlan
from has_dali.pipelines.policy_schedule import Policy, PolicySchedule
from has_dali.pipelines.sampler import BalancedSampler, Sampler, at_least
from has_dali.pipelines.spec import DTYPES, MAX_SIDE, BoxPlan

TRAIN_CROPS = ("random-resized", "short-side", "pad")
EVAL_CROPS = ("center", "warp")
ON_ERROR = ("raise", "skip")
SAMPLINGS = ("shuffle", "class-balanced")


def check_flags(**flags: object) -> None:
    """Truth values only: ``train='val'`` would train."""
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name}={value!r}: expected True or False")


def check_choices(train: bool, policy: Policy | None, dtype: str, sampling: str, steps: int | None) -> None:
    """What is hidden, how images are drawn, and in which form they come."""
    if policy is not None and not isinstance(policy, (HideAndSeek, PolicySchedule)):
        raise TypeError(
            f"policy={policy!r}: expected a HideAndSeek or None, such as HideAndSeek.preset('imagenet'), or a"
            " PolicySchedule"
        )
    if policy is not None and not train:
        raise ValueError("policy: evaluation hides nothing (train=False); leave policy out")
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: expected one of {_listed(DTYPES)}")
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling={sampling!r}: expected one of {_listed(SAMPLINGS)}")
    if sampling != "shuffle" and not train:
        raise ValueError(f"sampling={sampling!r}: evaluation takes every image once (train=False); leave sampling out")
    if steps is not None and sampling != "class-balanced":
        raise ValueError(f"steps={steps!r}: an epoch of sampling={sampling!r} is all images; leave steps out")


def checked_budget(on_error: str, error_budget: float) -> float | None:
    """The share of samples that may be broken; None: a broken one is an error."""
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error={on_error!r}: expected one of {_listed(ON_ERROR)}")
    try:
        budget = float(error_budget)
    except (TypeError, ValueError):
        raise TypeError(f"error_budget={error_budget!r}: expected a share of the data set, from 0 to 1") from None
    if not 0 <= budget <= 1:
        raise ValueError(f"error_budget={error_budget!r}: expected a share of the data set, from 0 to 1")
    return budget if on_error == "skip" else None


def checked_views(multi_view: int | None, policy: Policy | None) -> int | None:
    """How many views of a sample there are."""
    if multi_view is None:
        return None
    views = at_least("multi_view", multi_view, 1)
    if policy is None:
        raise ValueError(f"multi_view={views}: views differ in what is hidden only; give a policy, or leave it out")
    return views


def plan_for(
    train: bool,
    crop: str | None,
    *,
    seed: int,
    size: int,
    resize: int | None,
    padding: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    mirror: float,
) -> BoxPlan | EvalPlan:
    """The plan that the arguments of ``image_loader`` describe."""
    # Checked, even where another crop leaves them unused.
    random_resized = TrainPlan(seed, scale, ratio, mirror)
    border = at_least("padding", padding, 0, MAX_SIDE)
    crops = TRAIN_CROPS if train else EVAL_CROPS
    chosen = crops[0] if crop is None else crop
    if chosen not in crops:
        raise ValueError(f"crop={crop!r}: {'training' if train else 'evaluation'} takes one of {_listed(crops)}")
    if resize is not None and chosen in ("random-resized", "pad"):
        raise ValueError(
            f"resize={resize!r}: training crops at random (train=True); leave it out, or give crop='short-side'"
        )
    if resize is not None and chosen == "warp":
        raise ValueError(f"resize={resize!r}: crop='warp' shows the whole image; leave it out")
    short = round(size * 256 / 224) if resize is None else at_least("resize", resize, 1, 2 * MAX_SIDE)
    if chosen == "center":
        return EvalPlan(size, short)
    if chosen == "warp":
        return WarpPlan()
    if chosen == "short-side":
        return ShortSidePlan(seed, size, short, mirror)
    return PadPlan(seed, size, border, mirror) if chosen == "pad" else random_resized


def check_crop(plan: BoxPlan | EvalPlan, source: Opened) -> None:
    """Padded crops need images in memory that are large enough."""
    if not isinstance(plan, PadPlan):
        return
    if not isinstance(source, DecodedSource):
        raise ValueError("crop='pad': files are cropped while they are decoded, without a border; add cache='decoded'")
    everything = np.arange(len(source))
    plan(source.shapes, everything, np.zeros_like(everything))


def sampler_for(
    source: Opened, batch_size: int, sampling: str, steps: int | None, *, train: bool, **options: Any
) -> Sampler:
    """The sampler that the arguments of ``image_loader`` describe; ``options``: seed, rank, world_size."""
    if sampling == "shuffle":
        return Sampler(len(source), batch_size, train=train, **options)
    if steps is None:
        draws = at_least("batch_size", batch_size, 1) * at_least("world_size", options["world_size"], 1)
        steps = max(len(source) // draws, 1)
    return BalancedSampler(source.labels, batch_size, steps=steps, **options)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names))
