"""Checks of operator arguments at graph definition; every error names the operator, the argument and the remedy."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from nvidia.dali.data_node import DataNode

from has_dali.kernels import contract
from has_dali.kernels.cpu import MAX_CHANNELS
from has_dali.kernels.policy import HideAndSeek

MAX_SIDE = 65535


def check_node(name: str, argument: str, value: Any) -> None:
    """A DALI graph node."""
    if not isinstance(value, DataNode):
        raise TypeError(
            f"{name}: {argument}: expected a DALI DataNode, got {type(value).__name__}; pass an operator's output"
        )


def common_device(name: str, batches: Sequence[DataNode]) -> str:
    """The device that all batches are on, "cpu" or "gpu"."""
    devices = {batch.device for batch in batches}
    if len(devices) > 1:
        raise ValueError(f"{name}: images: expected all batches on one device, got {' and '.join(sorted(devices))}")
    return str(devices.pop())


def check_policy(name: str, policy: Any, *, optional: bool) -> None:
    """A HideAndSeek, or None where that means "hide nothing"."""
    if not (isinstance(policy, HideAndSeek) or (optional and policy is None)):
        wanted = "a has_dali.HideAndSeek" + (" or None" if optional else "")
        raise TypeError(
            f"{name}: policy: expected {wanted}, got {type(policy).__name__}; try HideAndSeek.preset('imagenet')"
        )


def with_p_hide(name: str, policy: HideAndSeek, p_hide: Any) -> HideAndSeek:
    """The policy with another hide probability."""
    try:
        return policy.with_(p_hide=p_hide)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def check_fills(name: str, fill_value: Any, count: int, *, several: bool) -> list[Any]:
    """One fill per batch; with several batches a list holds one entry per batch."""
    if several and isinstance(fill_value, Sequence):
        if len(fill_value) != count:
            raise ValueError(
                f"{name}: fill_value: expected one number or {count} entries, one per batch, got {len(fill_value)}"
            )
        fills = list(fill_value)
    else:
        fills = [fill_value] * count
    for fill in fills:
        try:
            contract.per_channel("fill_value", fill, np.size(fill))
        except (TypeError, ValueError):
            raise ValueError(f"{name}: fill_value={fill!r}: expected a finite number or one per channel") from None
    return fills


def check_layouts(name: str, layout: Any, count: int) -> list[str | None]:
    """One layout per batch; None where it is to be read from the batch."""
    layouts = [layout] * count if layout is None or isinstance(layout, str) else list(layout)
    if len(layouts) != count or not all(entry is None or (isinstance(entry, str) and entry) for entry in layouts):
        raise ValueError(f"{name}: layout={layout!r}: expected a name such as 'HWC', or {count} of them, one per batch")
    return layouts


def check_size(name: str, size: Any) -> tuple[int, int] | None:
    """(height, width) in pixels from a pair, one side or None."""
    if size is None:
        return None
    sides = list(size) if np.ndim(size) else [size, size]
    try:
        height, width = (operator.index(side) for side in sides)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: size={size!r}: expected (height, width) in whole pixels, one side, or None") from None
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"{name}: size={size!r}: expected sides from 1 to {MAX_SIDE} pixels")
    return height, width


def check_choice(name: str, argument: str, value: Any, choices: Sequence[Any]) -> None:
    """One of a few values."""
    if value not in choices:
        listed = " or ".join(str(choice) for choice in choices)
        raise ValueError(f"{name}: {argument}={value!s}: expected {listed}")


def check_constants(name: str, mean: Any, std: Any, fill_value: Any) -> tuple[int, int]:
    """Mean, std and fill agree on a channel count; returns the least and the most channels that they serve."""
    lengths = {np.size(value) for value in (mean, std, fill_value) if np.ndim(value) and np.size(value) != 1}
    channels = max(lengths, default=MAX_CHANNELS)
    if len(lengths) > 1 or not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(
            f"{name}: mean, std, fill_value: expected one number or one per channel (1 to {MAX_CHANNELS}) each"
        )
    try:
        contract.normalization(mean, std, fill_value, channels)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None
    return (channels if lengths else 1), channels
