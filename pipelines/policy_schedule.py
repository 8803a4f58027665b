"""A policy that changes with the epoch, and the policies of several views of a sample."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from has_dali.kernels.contract import PLAN_BLOCK, as_u64
from has_dali.kernels.philox import philox4x32
from has_dali.kernels.policy import HideAndSeek

VIEW_BLOCK = PLAN_BLOCK + 768  # counter block of the seeds of views; orders, crops and masks take others

Values: TypeAlias = "Sequence[Any] | Callable[[int], Any] | None"

_FIELDS = ("p_hide", "p_apply", "patch_sizes")
_COMPARED = 256  # epochs for which functions are compared when a state is loaded
_SHOWN = 4


@dataclass(frozen=True)
class PolicySchedule:
    """A policy whose probabilities or patch sizes follow the epoch; accepted wherever ``image_loader`` takes a policy.

    Args:
        policy: what the other fields are in every epoch.
        p_hide: probability that a cell is hidden: a list with one value per epoch, whose last one holds on, or a
            function of the epoch that always gives the same value for it; None: the policy's.
        p_apply: probability that an image is augmented, likewise.
        patch_sizes: patch edges in pixels, likewise: a list of sizes or of tuples of them, or a function.

    Raises:
        ValueError, TypeError: a value is out of range or of the wrong kind; values of functions are checked when their
            epoch comes.

    Example:
        >>> schedule = PolicySchedule(HideAndSeek((16, 32)), p_hide=[0.1, 0.3, 0.5])
        >>> [schedule.at(epoch).p_hide for epoch in range(5)]
        [0.1, 0.3, 0.5, 0.5, 0.5]
    """

    policy: HideAndSeek
    p_hide: Values = None
    p_apply: Values = None
    patch_sizes: Values = None

    def __post_init__(self) -> None:
        if not isinstance(self.policy, HideAndSeek):
            raise TypeError(f"policy={self.policy!r}: expected a HideAndSeek")
        for name in _FIELDS:
            values = getattr(self, name)
            if values is None or callable(values):
                continue
            if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray)):
                raise TypeError(f"{name}={values!r}: expected a list with one value per epoch, or a function of it")
            if not len(values):
                raise ValueError(f"{name} is empty: expected at least one value; the last one holds on")
            # Tuples: a schedule is a frozen value, as its policy.
            object.__setattr__(self, name, tuple(_plain(self._changed(name, value, epoch), name)
                                                 for epoch, value in enumerate(values)))  # fmt: skip

    def at(self, epoch: int) -> HideAndSeek:
        """The policy of an epoch, from 0.

        Raises:
            ValueError, TypeError: a function gave what is no probability or size; names field and epoch.
        """
        policy = self.policy
        for name in _FIELDS:
            values = getattr(self, name)
            if values is not None:
                value = values(epoch) if callable(values) else values[min(epoch, len(values) - 1)]
                policy = policy.with_(**{name: _plain(self._changed(name, value, epoch), name)})
        return policy

    def to_dict(self) -> dict[str, Any]:
        """What tells this schedule from others, JSON-able: lists as they are, functions by their values.

        Functions count by their values in the first 256 epochs, or up to where they fail.
        """
        described: dict[str, Any] = {"policy": self.policy.to_dict()}
        for name in _FIELDS:
            values = getattr(self, name)
            if values is not None:
                described[name] = self._described(name) if callable(values) else _jsonable(values)
        return described

    def _described(self, name: str) -> str:
        function = getattr(self, name)
        values: list[Any] = []
        for epoch in range(_COMPARED):
            try:
                values.append(_jsonable(_plain(self._changed(name, function(epoch), epoch), name)))
            except Exception:  # a function made for fewer epochs; in an epoch of use it fails by itself
                break
        digest = hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
        start = ", ".join(json.dumps(value) for value in values[:_SHOWN])
        return f"function of the epoch: {start}, ... ({digest})"

    def _changed(self, name: str, value: Any, epoch: int) -> HideAndSeek:
        try:
            return self.policy.with_(**{name: value})
        except (ValueError, TypeError) as error:
            raise type(error)(f"{name} in epoch {epoch}: {error}") from None


Policy: TypeAlias = "HideAndSeek | PolicySchedule"


def policy_at(policy: Policy | None, epoch: int) -> HideAndSeek | None:
    """The policy of an epoch."""
    return policy.at(epoch) if isinstance(policy, PolicySchedule) else policy


def view_policy(policy: HideAndSeek, view: int) -> HideAndSeek:
    """The policy of one of several views of a sample: view 0 is the policy itself, others have seeds of their own.

    The seed of view v is two words of the Philox block (``VIEW_BLOCK``, 0, v) keyed by the policy's seed.
    """
    if view == 0:
        return policy
    words = philox4x32(np.uint64(VIEW_BLOCK), np.uint64(0), np.uint64(view), np.uint64(as_u64(policy.seed)))
    return policy.with_(seed=int(words[0]) << 32 | int(words[1]))


def _plain(policy: HideAndSeek, name: str) -> Any:
    """The checked value of one field: plain numbers."""
    return getattr(policy, name)


def _jsonable(value: Any) -> Any:
    return [_jsonable(part) for part in value] if isinstance(value, tuple) else value
