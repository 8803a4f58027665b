"""Where the images of a set of shards lie: scanned one shard after the other, or taken from the cache."""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.flat_files import alone, flat_size, write_flat
from has_dali.pipelines.index_cache import (
    Arrays,
    cache_folder,
    cache_key,
    file_stamps,
    index_path,
    load_index,
    save_index,
    settled,
)
from has_dali.pipelines.name_table import NameBuilder, NameTable
from has_dali.pipelines.spans import SpanSource

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FileSpans:
    """The images of one shard.

    Args:
        offsets: (N,) where their bytes start.
        lengths: (N,) how many there are.
        labels: (N,) -1 where there is none.
        names: what they are called in their shard.
        pieced: images whose bytes do not lie together in the shard, by their number; offset and length count for
            nothing there.
    """

    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    names: NameTable
    pieced: Mapping[int, bytes] = field(default_factory=dict)


class SpanBuilder:
    """The images of one shard as they are found."""

    def __init__(self) -> None:
        self._numbers = array("q")
        self._names = NameBuilder()

    def add(self, offset: int, length: int, label: int, name: bytes) -> None:
        """One image."""
        self._numbers.extend((offset, length, label))
        self._names.append(name)

    def spans(self) -> FileSpans:
        """All of them."""
        offsets, lengths, labels = np.frombuffer(self._numbers, np.int64).reshape(-1, 3).T if self._numbers else _NONE
        return FileSpans(offsets.copy(), lengths.copy(), labels.copy(), self._names.table())


_NONE = np.empty((3, 0), np.int64)


def indexed_source(
    kind: str, files: Sequence[str], scan: Callable[[str, int], FileSpans], options: str = ""
) -> SpanSource:
    """The images of some shards as a source.

    The result of the scan is cached, and holds until a shard changes (see ``index_cache.stamp_of``). Of processes that
    come at once, one scans.

    Args:
        kind: a word for the cache.
        files: the shards.
        scan: finds the images of a shard, given its path and its size.
        options: what else the scan's result depends on.

    Raises:
        OSError: a shard is missing or unreadable.
        ValueError: the shards hold no image, or some images have labels and others none; what ``scan`` raises.
    """
    key = cache_key(kind, files, options)
    stored = _cached(key, file_stamps(files))
    if stored is None:
        with alone(lambda: index_path(key)):
            begun = time.time_ns()
            stamps = file_stamps(files)
            stored = _cached(key, stamps)  # another process may have scanned meanwhile
            if stored is None:
                _LOG.info("indexing %d %s file(s) from %s on", len(files), kind, files[0])
                found = [scan(file, size) for file, size in zip(files, stamps[:, 0].tolist(), strict=True)]
                stored = {"stamps": stamps, **_put_together(files, found)}
                stored["flats"] = _write_pieced(key, found, stored)
                if settled(stamps, begun):
                    save_index(key, stored)
    flats = stored["flats"]  # (K, 2): a shard, and the bytes of what was pieced together from it
    return SpanSource(
        [*files, *(str(_flat_path(key, shard)) for shard in flats[:, 0].tolist())],
        np.concatenate([stored["stamps"][:, 0], flats[:, 1]]),
        stored["file_of"],
        stored["offsets"],
        stored["lengths"],
        stored["labels"],
        names=NameTable.from_arrays(stored, "names"),
        titles=[*files, *(files[shard] for shard in flats[:, 0].tolist())],
    )


def _cached(key: str, stamps: npt.NDArray[np.int64]) -> Arrays | None:
    stored = load_index(key)
    fits = stored is not None and np.array_equal(stored["stamps"], stamps) and _flats_fit(key, stored["flats"])
    return stored if fits else None


def _put_together(files: Sequence[str], found: Sequence[FileSpans]) -> Arrays:
    counts = [len(spans.offsets) for spans in found]
    parts = ("offsets", "lengths", "labels")
    names = _joined([spans.names for spans in found])
    arrays = {name: np.concatenate([getattr(spans, name) for spans in found]) for name in parts}
    arrays["file_of"] = np.repeat(np.arange(len(files), dtype=np.int32), counts)
    _check(files, arrays, names)
    return {**arrays, **names.arrays("names")}


def _write_pieced(key: str, found: Sequence[FileSpans], arrays: Arrays) -> npt.NDArray[np.int64]:
    """Put images in pieces into flat files in the cache, one for each shard that has some; see ``flats`` above."""
    flats: list[tuple[int, int]] = []
    first = 0
    for shard, spans in enumerate(found):
        at = 0
        for number, image in sorted(spans.pieced.items()):
            sample = first + number
            arrays["file_of"][sample] = len(found) + len(flats)
            arrays["offsets"][sample], arrays["lengths"][sample] = at, len(image)
            at += len(image)
        if spans.pieced:
            write_flat(_flat_path(key, shard), [image for _, image in sorted(spans.pieced.items())], at)
            flats.append((shard, at))
        first += len(spans.offsets)
    return np.array(flats, np.int64).reshape(-1, 2)


def _flats_fit(key: str, flats: npt.NDArray[np.int64]) -> bool:
    return all(flat_size(_flat_path(key, shard)) == size for shard, size in flats.tolist())


def _flat_path(key: str, shard: int) -> Path:
    return cache_folder() / "flat" / f"{key}-{shard}.bin"


def _check(files: Sequence[str], stored: dict[str, npt.NDArray], names: NameTable) -> None:
    if not len(names):
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        raise ValueError(f"data: {files[0]}{more}: no images inside; expected at least one")
    for what, wrong in (("no label", stored["labels"] < 0), ("an empty image", stored["lengths"] == 0)):
        if wrong.any() and not (what == "no label" and wrong.all()):
            sample = int(wrong.argmax())
            raise ValueError(f"{files[stored['file_of'][sample]]}: {names[sample]}: {what}, unlike others; add it")


def _joined(tables: Sequence[NameTable]) -> NameTable:
    starts = np.cumsum([0, *(len(table.data) for table in tables)])
    offsets = [table.offsets[1:] + start for table, start in zip(tables, starts.tolist(), strict=False)]
    return NameTable(np.concatenate([t.data for t in tables]), np.concatenate([np.zeros(1, np.int64), *offsets]))
