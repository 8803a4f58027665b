"""Labels of sequences: one class each, several (multi-hot), or one per time step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.sequence_source import SequenceSource
from has_dali.pipelines.sources import checked_labels, digest_of

KINDS = ("class", "multi-hot", "frames")
NONE = -1
"""The label of what has none: padding, and sequences without labels."""


@dataclass(frozen=True)
class SequenceLabels:
    """Labels by sample id.

    Args:
        kind: one of ``KINDS``.
        values: "class": (N,) int64; "multi-hot": (N, K) float32; "frames": N arrays (T,) int64 or (T, K) float32.
    """

    kind: str
    values: Any

    def fingerprint(self) -> str:
        """16 hex digits of all labels."""
        if self.kind == "frames":
            return digest_of(*(part for value in self.values for part in (str(value.shape).encode(), value)))
        return digest_of(self.kind.encode(), self.values)

    def batch(self, ids: npt.NDArray[np.int64], indices: list[npt.NDArray[np.int64]], steps: int) -> npt.NDArray:
        """Labels of a batch; of padding -1, or all 0 where there are several per sample.

        Args:
            ids: (N,), -1 for padding.
            indices: the time steps that each sample shows.
            steps: of the batch, at least as many as any sample shows; the rest is padding.
        """
        shown = np.maximum(ids, 0)
        if self.kind != "frames":
            found = self.values[shown]
            found[ids < 0] = NONE if self.kind == "class" else 0
            return found
        first = self.values[0]
        padding = NONE if first.ndim == 1 else 0
        labels = np.full((len(ids), steps, *first.shape[1:]), padding, first.dtype)
        for row, sample_id, chosen in zip(labels, ids.tolist(), indices, strict=True):
            if sample_id >= 0:
                row[: len(chosen)] = self.values[sample_id][chosen]
        return labels


def checked_sequence_labels(labels: Any, kind: str | None, source: SequenceSource) -> SequenceLabels:
    """Labels as ``sequence_loader`` takes them.

    Raises:
        ValueError, TypeError: they do not fit the sequences, or could be of two kinds.
    """
    count = len(source)
    if labels is None:
        if kind not in (None, "class"):
            raise ValueError(f"label_kind={kind!r}: there are no labels")
        return SequenceLabels("class", checked_labels(source.folder_labels, count, "sequence"))
    if source.folder_labels is not None:
        raise ValueError("labels: the class folders give them; leave labels out")
    if kind is None:
        kind = _kind(labels, source)
    if kind not in KINDS:
        raise ValueError(f"label_kind={kind!r}: expected one of {', '.join(map(repr, KINDS))}")
    if len(labels) != count:
        raise ValueError(f"labels: expected {count}, one per sequence, got {len(labels)}")
    if kind == "class":
        return SequenceLabels(kind, checked_labels(np.asarray(labels), count, "sequence"))
    if kind == "multi-hot":
        return SequenceLabels(kind, _multi_hot(labels, count))
    return SequenceLabels(kind, [_frames(labels[n], n, labels[0], source) for n in range(count)])


def _kind(labels: Any, source: SequenceSource) -> str:
    entries = [np.shape(entry) for entry in labels]
    if all(shape == () for shape in entries):
        return "class"
    if isinstance(labels, np.ndarray) and labels.ndim == 2 and labels.dtype.kind == "f":
        return "multi-hot"
    lengths = [shape[0] if shape else -1 for shape in entries]
    fits: dict[str, Callable[[], bool]] = {
        "multi-hot": lambda: len({shape for shape in entries if len(shape) == 1}) == 1 and len(set(entries)) == 1,
        "frames": lambda: lengths == [source.frames(n) for n in range(len(source))][: len(lengths)],
    }
    found = [name for name, test in fits.items() if test()]
    if len(found) != 1:
        state = "could be multi-hot or one per time step" if found else "are of no known kind"
        raise ValueError(f"labels: {state}; say which with label_kind= (class, multi-hot or frames)")
    return found[0]


def _multi_hot(labels: Any, count: int) -> npt.NDArray[np.float32]:
    try:
        values = np.asarray(labels, np.float32)
    except (TypeError, ValueError):
        values = np.empty(0, np.float32)
    if values.ndim != 2 or values.shape[0] != count or not np.isfinite(values).all():
        raise ValueError(f"labels: expected ({count}, classes) finite numbers for multi-hot, got {np.shape(labels)}")
    return values


def _frames(values: Any, number: int, first: Any, source: SequenceSource) -> npt.NDArray:
    array = np.asarray(values)
    wanted = source.frames(number)
    if array.dtype.kind not in "fiub" or array.ndim not in (1, 2) or len(array) != wanted:
        raise ValueError(
            f"labels[{number}]: expected one label for each of the {wanted} time steps of {source.name(number)},"
            f" got shape {array.shape} of {array.dtype}"
        )
    if array.shape[1:] != np.shape(first)[1:]:
        raise ValueError(f"labels[{number}]: expected as many classes as in labels[0], got shape {array.shape}")
    return np.ascontiguousarray(array, np.int64 if array.ndim == 1 else np.float32)
