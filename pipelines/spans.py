"""Encoded images that lie inside larger files: members of tar shards, records. A sample is a range of bytes."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.file_maps import FileMaps
from has_dali.pipelines.name_table import NameTable
from has_dali.pipelines.sources import checked_ids, checked_labels, digest_over


class SpanSource:
    """Encoded images with labels, by sample id, as byte ranges of memory-mapped files.

    Nothing is mapped before the first ``contents``; pickled, it maps the files anew.

    Args:
        files: paths of the files.
        sizes: (F,) integers, bytes of each file when it was indexed.
        file_of: (N,) integers, the file of each sample.
        offsets: (N,) integers, where its bytes start.
        lengths: (N,) integers, how many there are.
        labels: one integer per sample; None: every label is -1.
        classes: class names, by label, where known.
        names: what a sample is called within its file.
        titles: what errors call the files, where the paths would tell a user nothing.
        digests: checksums of the files, where an index holds them; part of the fingerprint.

    Raises:
        ValueError, TypeError: no samples, a range outside its file, or arrays that do not fit together.
    """

    def __init__(
        self,
        files: Sequence[str],
        sizes: npt.ArrayLike,
        file_of: npt.ArrayLike,
        offsets: npt.ArrayLike,
        lengths: npt.ArrayLike,
        labels: npt.ArrayLike | None = None,
        classes: Sequence[str] = (),
        *,
        names: NameTable,
        titles: Sequence[str] = (),
        digests: Sequence[str] = (),
    ) -> None:
        self.maps = FileMaps([os.fspath(file) for file in files], np.asarray(sizes, np.int64), titles)
        self.file_of = np.asarray(file_of, np.int32)
        self.offsets, self.lengths = np.asarray(offsets, np.int64), np.asarray(lengths, np.int64)
        self.names, self.digests, self.classes = names, tuple(digests), tuple(classes)
        count = len(self.file_of)
        if not count:
            raise ValueError("data is empty: expected at least one image")
        if not (self.offsets.shape == self.lengths.shape == self.file_of.shape == (count,) == (len(names),)):
            raise ValueError("offsets, lengths, names: expected one for each entry of file_of")
        if self.maps.sizes.shape != (len(self.files),) or len(self.maps.titles) != len(self.files):
            raise ValueError("sizes, titles: expected one for each of the files")
        if self.file_of.min() < 0 or self.file_of.max() >= len(self.files):
            raise ValueError(f"file_of: expected 0 to {len(self.files) - 1}")
        ends = self.offsets + self.lengths
        outside = (self.offsets < 0) | (self.lengths < 0) | (ends > self.maps.sizes[self.file_of])
        if outside.any():
            raise ValueError(f"{self.name(int(outside.argmax()))}: lies outside its file; index the data again")
        self.labels = checked_labels(labels, count, "image")

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the files."""
        return self.maps.files

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.file_of)

    def __repr__(self) -> str:
        """Counts and bytes."""
        size = int(self.lengths.sum()) / 1e6
        return f"SpanSource({len(self)} images in {len(self.files)} files, {len(self.classes)} classes, {size:.0f} MB)"

    def name(self, sample_id: int) -> str:
        """What errors call a sample: its file and its place there."""
        return f"{self.maps.titles[self.file_of[sample_id]]}: {self.names[sample_id]}"

    def contents(self, ids: npt.ArrayLike) -> list[npt.NDArray[np.uint8]]:
        """The encoded images of a batch: read-only views of the files, uint8 (length,) each.

        Raises:
            OSError: a file is missing, or of another size than when it was indexed; names it.
        """
        chosen = np.asarray(ids, np.int64)
        files = self.file_of[chosen]
        self.maps.check(np.unique(files).tolist())
        spans = list(zip(files.tolist(), self.offsets[chosen].tolist(), self.lengths[chosen].tolist(), strict=True))
        # All at once, or each page that is not in memory would be waited for by itself: a batch that lies on the disk
        # comes in a third of the time. Where it is in memory, this costs 2 microseconds an image.
        for span in spans:
            self.maps.will_need(*span)
        return [self.maps[file][offset : offset + length] for file, offset, length in spans]

    def select(self, ids: npt.ArrayLike) -> SpanSource:
        """The samples ``ids``, (M,) integers, as a source of their own: sample ``ids[i]`` becomes sample i."""
        chosen = checked_ids(ids, len(self))
        return self._with(
            file_of=self.file_of[chosen],
            offsets=self.offsets[chosen],
            lengths=self.lengths[chosen],
            labels=self.labels[chosen],
            names=self.names.select(chosen),
        )

    def _with(self, **changes: Any) -> SpanSource:
        fields = {
            "files": self.files,
            "sizes": self.maps.sizes,
            "titles": self.maps.titles,
            **{
                name: getattr(self, name)
                for name in ("file_of", "offsets", "lengths", "labels", "classes", "names", "digests")
            },
        }
        return SpanSource(**{**fields, **changes})

    def fingerprint(self) -> str:
        """16 hex digits that change with names, order, labels or sizes, with the files' checksums where known.

        Names of files count relative to the folder they share; contents are not read.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        titles = NameTable.of(self.maps.titles)
        root = titles.shared_prefix().rfind(os.fsencode(os.sep)) + 1
        parts: list[bytes | npt.NDArray] = ["\0".join(self.digests).encode()]
        parts += [self.maps.sizes, self.file_of, self.offsets, self.lengths, self.labels]
        return digest_over(itertools.chain(titles.chunks(skip=root), self.names.chunks(), parts))
