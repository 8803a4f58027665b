"""How two runs differ in what they measured, on which machine, and with which versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from has_dali.bench.results import Result

FREE_SETTINGS = ("rounds", "quick")
"""How often and how long, not what."""
THREADS = "threads"
"""The setting and option whose default follows the number of cores."""


def free_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings of two documents that may differ: of machines with other cores, numbers of threads that follow them."""
    follow = _usable_cores(first) != _usable_cores(second) and not _gives_threads(first) and not _gives_threads(second)
    return (*FREE_SETTINGS, THREADS) if follow else FREE_SETTINGS


def job_differences(first: Result, second: Result, free: Sequence[str] = FREE_SETTINGS) -> list[str]:
    """How what was measured differs: settings, data, and what tables of one name hold.

    Args:
        free: settings that may differ.
    """
    found = list(_dict_differences("settings", first.settings, second.settings, free))
    old, new = first.data or {}, second.data or {}
    by = "fingerprint" if old.get("fingerprint") and new.get("fingerprint") else "images"
    if bool(old) != bool(new) or old.get(by) != new.get(by):
        found.append(f"data {by} {_brief(old.get(by))} against {_brief(new.get(by))}")
    for table in first.tables:
        other = next((one for one in second.tables if one.key == table.key), None)
        if other is None:
            continue
        for name in ("unit", "better", "baseline"):
            if getattr(table, name) != getattr(other, name):
                found.append(f"table {table.key}: {name} {getattr(table, name)} against {getattr(other, name)}")
        cores = [name for name in free if name == THREADS]
        found += _dict_differences(f"table {table.key}:", table.parameters, other.parameters, cores)
    return found


def machine_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """How the hardware differs, limits included; absolute figures compare only where it does not."""
    pairs: list[tuple[str, Any, Any]] = []
    for part, names in (("cpu", ("model", "usable_cores", "governor")), ("container", ("cpus", "memory_bytes"))):
        pairs += [(f"{part} {name}", first[part][name], second[part][name]) for name in names]
    gpus = [[(gpu.get("name"), gpu.get("power_limit_watts")) for gpu in machine["gpus"]] for machine in (first, second)]
    pairs.append(("gpus", gpus[0], gpus[1]))
    return [f"{name} {_brief(old)} against {_brief(new)}" for name, old, new in pairs if old != new]


def version_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """How the versions of Python and of the packages differ."""
    old = {"python": first["python"], **first["packages"]}
    new = {"python": second["python"], **second["packages"]}
    return list(_dict_differences("version of", old, new, ()))


def _usable_cores(document: Mapping[str, Any]) -> Any:
    return document["machine"]["cpu"]["usable_cores"]


def _gives_threads(document: Mapping[str, Any]) -> bool:
    """Whether the run was told its numbers of threads; else they follow the cores of its machine."""
    return any(word.partition("=")[0] == f"--{THREADS}" for word in document["argv"])


def _dict_differences(
    what: str, first: Mapping[str, Any], second: Mapping[str, Any], ignored: Sequence[str]
) -> Iterator[str]:
    for name in sorted(set(first) | set(second)):
        if name in ignored or first.get(name) == second.get(name):
            continue
        old, new = first.get(name), second.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _dict_differences(f"{what} {name}", old, new, [one for one in ignored if one == THREADS])
        else:
            yield f"{what} {name} {_brief(old)} against {_brief(new)}"


def _brief(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
