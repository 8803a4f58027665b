"""What a loader's state holds beside its position: which data, and the settings that decide what the batches are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from has_dali.pipelines.plan import EvalPlan, PadPlan, ShortSidePlan, TrainPlan, WarpPlan
from has_dali.pipelines.sampler import MAX_EPOCH, BalancedSampler, Sampler, at_least
from has_dali.pipelines.sources import digest_of
from has_dali.pipelines.spec import ImageSpec

STATE_VERSION = 2

_CROPS: dict[type, str] = {
    TrainPlan: "random-resized",
    ShortSidePlan: "short-side",
    PadPlan: "pad",
    EvalPlan: "center",
    WarpPlan: "warp",
}
_SHOWN = 3
_MISSING = "missing"
_HINTS = {
    "global_batch": " (batch_size * world_size)",
    "data": " (other files, labels, sizes or order)",
}


def settings_of(spec: ImageSpec, sampler: Sampler) -> dict[str, Any]:
    """All that decides a loader's batches beside seed and data, JSON-able.

    Left out is what changes no value of them: device, threads, prefetch, memory format, how many processes share a
    global batch, and what happens to broken files (so that a run that one stopped can go on without it).
    """
    plan: dict[str, Any] = dataclasses.asdict(spec.plan)
    plan.pop("seed", None)
    name = _CROPS.get(type(spec.plan), type(spec.plan).__name__)
    policy = spec.policy if spec.policy is None else spec.policy.to_dict()
    settings: dict[str, Any] = {"train": sampler.train, "global_batch": sampler.global_batch, "crop": name, **plan}
    settings |= {"size": spec.size, "policy": policy, "multi_view": spec.views}
    settings |= {field: getattr(spec, field) for field in ("mean", "std", "fill_value", "dtype", "antialias")}
    balanced = isinstance(sampler, BalancedSampler)
    settings |= {"sampling": "class-balanced" if balanced else "shuffle", "steps": len(sampler) if balanced else None}
    plain: dict[str, Any] = json.loads(json.dumps(settings))  # as it is read back: lists instead of tuples
    return plain


def state_of(seed: int, epoch: int, samples: int, data: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A loader's state, JSON-able."""
    return {
        "version": STATE_VERSION,
        "seed": seed,
        "epoch": epoch,
        "samples": samples,
        "data": data,
        "settings": dict(settings),
        "fingerprint": fingerprint(data, settings),
    }


def fingerprint(data: str, settings: Mapping[str, Any]) -> str:
    """16 hex digits of the data's fingerprint and the settings."""
    return digest_of(json.dumps([data, settings], sort_keys=True).encode())


def check_state(state: Mapping[str, Any], seed: int, data: str, settings: Mapping[str, Any]) -> tuple[int, int]:
    """Epoch and samples of a state that belongs to this seed, data and settings.

    Raises:
        ValueError, TypeError: it does not; names the first differences, the version's before all others.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected a dict that state_dict() gave, got {type(state).__name__}")
    if state.get("version") != STATE_VERSION:
        raise ValueError(
            f"state: version is {state.get('version')!r}, this loader's is {STATE_VERSION}; it cannot be used here,"
            " begin an epoch with set_epoch() instead"
        )
    saved = {name: state.get(name, _MISSING) for name in ("seed", "data", "settings")}
    found = [*_differences("", saved, {"seed": seed, "data": data, "settings": settings})]
    if not found and state.get("fingerprint") != fingerprint(data, settings):
        found = ["the fingerprint does not belong to the rest of it"]
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ValueError(f"state: {'; '.join(found[:_SHOWN])}{more}; use the data and settings that it was saved with")
    epoch = at_least("state['epoch']", state.get("epoch", -1), 0, MAX_EPOCH)
    return epoch, at_least("state['samples']", state.get("samples", -1), 0)


def _differences(name: str, saved: Any, ours: Any) -> Iterator[str]:
    """In words, setting by setting; those of a policy under names such as ``policy.p_hide``."""
    if isinstance(saved, Mapping) and isinstance(ours, Mapping):
        prefix = f"{name}." if name not in ("", "settings") else ""
        for part in {**ours, **saved}:
            yield from _differences(prefix + part, saved.get(part, _MISSING), ours.get(part, _MISSING))
    elif saved != ours:
        yield f"{name} is {_shown(saved)}, this loader's is {_shown(ours)}{_HINTS.get(name, '')}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
