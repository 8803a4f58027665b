"""Sets of shards or records of which some cannot be opened: these are findings, the others are checked."""

from __future__ import annotations

import os
from typing import Any

from has_dali.pipelines.check_images import BROKEN
from has_dali.pipelines.checking import Finding
from has_dali.pipelines.data import open_data
from has_dali.pipelines.parquet import parquet_folder
from has_dali.pipelines.shard_index import INDEX_NAME
from has_dali.pipelines.shard_names import expanded, is_pattern, kind_of, kinds_in, shard_files

HUB = "hf:"


def open_what_can_be(data: str, error: OSError | ValueError) -> tuple[Any | None, list[Finding]]:
    """What is left of a set that could not be opened as one, and what is wrong with the rest.

    Args:
        data: shards or records, as ``open_data`` takes them.
        error: why they could not be opened.

    Returns:
        A source of the files that can be opened, or None, and a finding for each of the others.

    Raises:
        OSError, ValueError: ``error``, where it is about no single file, or ``data`` is of another kind.
    """
    files = container_files(data)
    if not files:
        raise error
    good, faults, alike = list[str](), list[Finding](), True
    for file in files:
        try:
            open_data(file, train=True)
        except (OSError, ValueError) as fault:
            faults.append(Finding(-1, BROKEN, file, _detail(fault, file)))
            alike = alike and str(fault) == str(error)
        else:
            good.append(file)
    if not good:
        if len(files) > 1 and alike:  # of their index, such as an old version
            raise error
        return None, faults
    try:
        source = open_data(good, train=True)
    except (OSError, ValueError) as fault:  # they do not fit together
        if not faults:
            raise error from None
        return None, [*faults, Finding(-1, BROKEN, data, _detail(fault, data))]
    return source, faults or [Finding(-1, BROKEN, data, _detail(error, data))]


def container_files(data: str) -> list[str]:
    """The files of shards or records that ``data`` names; empty where it names something else, or nothing there."""
    name = data.removeprefix(HUB)
    if os.path.isdir(name):
        return _in_folder(name)
    files = expanded(name) if is_pattern(name) else [name]
    kinds = {kind_of(file) for file in files}
    return files if len(kinds) == 1 and None not in kinds and any(map(os.path.lexists, files)) else []


def stored_as_parquet(folder: str) -> bool:
    """Whether ``open_data`` reads a folder as parquet files."""
    return parquet_folder(folder) is not None and kinds_in(folder) in ([], ["parquet"])


def _in_folder(folder: str) -> list[str]:
    if stored_as_parquet(folder):
        return shard_files(parquet_folder(folder) or folder, "parquet")
    with os.scandir(folder) as entries:
        nested = any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)
    kinds = kinds_in(folder)
    if len(kinds) != 1 or (nested and not os.path.exists(os.path.join(folder, INDEX_NAME))):
        return []
    return shard_files(folder, kinds[0])


def _detail(error: OSError | ValueError, name: str) -> str:
    text = (error.strerror or str(error)).lower() if isinstance(error, OSError) and error.errno else str(error)
    return text.removeprefix(f"{name}: ")
