"""Which files a data argument names: shards by folder, file, list or pattern, and what kind of shards they are."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

PathLike: TypeAlias = "str | os.PathLike[str]"

_KINDS = {
    "tar": r"\.tar(\.(gz|bz2|xz|zst))?|\.tgz",  # the tar reader says what to do with compressed ones
    "tfrecord": r"\.tfrecords?|-\d{5}-of-\d{5}",
    "recordio": r"\.rec",
    "parquet": r"\.parquet",
}
KINDS = tuple(_KINDS)
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


def kind_of(name: PathLike) -> str | None:
    """The kind of shards, one of ``KINDS``, by the end of a file's name; None for other files."""
    name = os.fspath(name)
    return next((kind for kind, ending in _KINDS.items() if re.search(f"({ending})$", name, re.IGNORECASE)), None)


def is_pattern(data: PathLike) -> bool:
    """Whether ``data`` is a pattern such as ``train-{000..099}.tar`` or ``train-*.tar``, not the name of a file."""
    name = os.fspath(data)
    return (glob.has_magic(name) or any(_with_braces(name))) and not os.path.lexists(name)


def shard_files(data: PathLike | Sequence[PathLike], kind: str) -> list[str]:
    """The shards of a kind that ``data`` names: a folder, a file, a pattern, or a list of these, in their order.

    A folder's and a ``*`` pattern's shards are sorted by name; braces count up, or go through their words.

    Raises:
        OSError: a folder or file is missing, or holds no such shards.
        ValueError: a shard is named twice.
    """
    if isinstance(data, (str, os.PathLike)):
        files = _named(os.fspath(data), kind)
    else:
        files = [file for entry in data for file in _named(os.fspath(entry), kind)]
    if not files:
        raise ValueError("data is empty: expected at least one shard")
    twice = {os.path.abspath(file): file for file in files}
    if len(twice) < len(files):
        again = next(file for n, file in enumerate(files) if file in files[:n] or twice[os.path.abspath(file)] != file)
        raise ValueError(f"data: shard {again} is named twice; name each shard once")
    return files


def kinds_in(folder: PathLike) -> list[str]:
    """The kinds of shards that lie directly in a folder."""
    with os.scandir(folder) as entries:
        found = {kind_of(entry.name) for entry in entries if not entry.name.startswith(".") and entry.is_file()}
    return [kind for kind in KINDS if kind in found]


def expanded(pattern: str) -> list[str]:
    """The files that a pattern names; those of braces need not exist.

    Raises:
        FileNotFoundError: a ``*`` pattern matches nothing.
    """
    files = []
    for name in _braces(pattern):
        if glob.has_magic(name) and not os.path.lexists(name):
            found = sorted(file for file in glob.glob(name) if not os.path.isdir(file))
            if not found:
                raise FileNotFoundError(f"data={pattern!r}: no file matches; check the pattern and the folder")
            files += found
        else:
            files.append(name)
    return files


def _named(data: str, kind: str) -> list[str]:
    if is_pattern(data):
        files = expanded(data)
        return [file for file in files if kind_of(file) == kind] or files
    if not os.path.isdir(data):
        return [data]
    names = sorted(name for name in os.listdir(data) if kind_of(name) == kind and not name.startswith("."))
    if not names:
        raise FileNotFoundError(f"data={data!r}: the folder holds no {kind} files; expected some, or name the files")
    return [os.path.join(data, name) for name in names]


def _with_braces(pattern: str) -> Iterator[re.Match[str]]:
    """Brace groups that stand for several words: ``{a,b}`` or ``{1..3}``."""
    groups = re.finditer(r"\{([^{}]*)\}", pattern)
    return (group for group in groups if "," in group[1] or _RANGE.fullmatch(group[1]))


def _braces(pattern: str) -> list[str]:
    group = next(_with_braces(pattern), None)
    if group is None:
        return [pattern]
    before, after = pattern[: group.start()], _braces(pattern[group.end() :])
    return [before + word + rest for word in _words(group[1]) for rest in after]


def _words(inside: str) -> list[str]:
    counted = _RANGE.fullmatch(inside)
    if counted is None:
        return inside.split(",")
    first, last = counted.groups()
    padded = any(len(number.lstrip("-")) > 1 and number.lstrip("-")[0] == "0" for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + step, step)]
