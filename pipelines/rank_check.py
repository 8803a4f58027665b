"""That all processes of a job load the same data with the same settings, asked once before the first batch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

_SHOWN = 3
_NAMES = {"data": "data (fingerprint of files, labels and their order)"}


def check_ranks(loader: Any) -> None:
    """Compare this process's loader with those of all others; a collective call, so all of them must make it.

    Without ``torch.distributed``, or with one process, there is nothing to compare. Ranks whose data differ would take
    different numbers of steps, and wait for one another for ever, or see samples twice.

    Args:
        loader: has a length and ``state_dict``, as ``ImageLoader``; its device is used to reach the others.

    Raises:
        ValueError: seed, data, settings or the number of batches differ; raised by all processes alike, and names the
            first differences.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return
    state = loader.state_dict()
    facts = {"batches per epoch": len(loader), **{name: state[name] for name in ("data", "seed", "settings")}}
    device = getattr(loader, "device", torch.device("cpu"))
    everyone: list[Any] = [None] * distributed.get_world_size()
    # NCCL sends through the current device, which may still be another rank's.
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        distributed.all_gather_object(everyone, facts)
    found = rank_differences(everyone)
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ValueError(
            f"the processes' loaders differ: {'; '.join(found[:_SHOWN])}{more}; give every rank the same files and"
            " settings"
        )


def rank_differences(everyone: Sequence[Mapping[str, Any]]) -> list[str]:
    """In words, name by name: the first rank that has another value than rank 0."""
    flat = [_flat(facts) for facts in everyone]
    names = list(dict.fromkeys(name for facts in flat for name in facts))
    found = []
    for name in names:
        for rank, facts in enumerate(flat):
            ours, theirs = flat[0].get(name, "missing"), facts.get(name, "missing")
            if ours != theirs:
                found.append(f"{_NAMES.get(name, name)} is {theirs!r} on rank {rank}, {ours!r} on rank 0")
                break
    return found


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted name; those of the settings under their own names."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, "" if name == "settings" else f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
