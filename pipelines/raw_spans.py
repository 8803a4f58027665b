"""Raw shards: decoded images that lie in memory-mapped files, by sample id. Loading them decodes nothing."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.arrays import CHANNELS, DecodedSource
from has_dali.pipelines.file_maps import FileMaps
from has_dali.pipelines.name_table import NameTable
from has_dali.pipelines.shard_index import ShardIndex, read_index
from has_dali.pipelines.sources import checked_ids, checked_labels, digest_of


class RawSource(DecodedSource):
    """RGB images of 8 bits, as byte ranges of files that are mapped into memory.

    Nothing is mapped before the first image is asked for; pickled, it maps the files anew.

    Args:
        files: paths of the files.
        sizes: (F,) integers, bytes of each file when it was indexed.
        file_of: (N,) integers, the file of each sample.
        offsets: (N,) integers, where its pixels start: (height, width, 3) uint8, contiguous.
        shapes: (N, 2) integers, its height and width.
        labels: one integer per sample; None: every label is -1.
        classes: class names, by label, where known.
        names: what a sample is called within its file.
        digests: checksums of the files, where known; part of the fingerprint.

    Raises:
        ValueError: no samples, an image outside its file, or arrays that do not fit together.
    """

    def __init__(
        self,
        files: Sequence[str],
        sizes: npt.ArrayLike,
        file_of: npt.ArrayLike,
        offsets: npt.ArrayLike,
        shapes: npt.ArrayLike,
        labels: npt.ArrayLike | None = None,
        classes: Sequence[str] = (),
        *,
        names: NameTable,
        digests: Sequence[str] = (),
    ) -> None:
        self.maps = FileMaps([os.fspath(file) for file in files], np.asarray(sizes, np.int64))
        self.file_of, self.offsets = np.asarray(file_of, np.int32), np.asarray(offsets, np.int64)
        self.shapes = np.array(shapes, np.int64)
        self.shapes.flags.writeable = False  # as those of every source, so that one compiled kernel serves all
        self.names, self.digests, self.classes = names, tuple(digests), tuple(classes)
        count = len(self.file_of)
        if not count:
            raise ValueError("data is empty: expected at least one image")
        if not (self.offsets.shape == (count,) == (len(names),)) or self.shapes.shape != (count, 2):
            raise ValueError("offsets, shapes, names: expected one for each entry of file_of")
        if self.sizes.shape != (len(self.files),):
            raise ValueError("sizes: expected one for each of the files")
        if self.file_of.min() < 0 or self.file_of.max() >= len(self.files):
            raise ValueError(f"file_of: expected 0 to {len(self.files) - 1}")
        ends = self.offsets + self.shapes.prod(axis=1) * CHANNELS
        wrong = (self.offsets < 0) | (ends > self.sizes[self.file_of]) | (self.shapes.min(axis=1) < 1)
        if wrong.any():
            raise ValueError(f"{self.name(int(wrong.argmax()))}: lies outside its file; pack the data again")
        self.labels = checked_labels(labels, count, "image")
        self._addresses: npt.NDArray[np.int64] | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the files."""
        return self.maps.files

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(F,) int64, bytes of each file when it was indexed."""
        return self.maps.sizes

    def __repr__(self) -> str:
        """Counts and bytes."""
        size = self.shapes.prod(axis=1).sum() * CHANNELS / 1e6
        return f"RawSource({len(self)} images in {len(self.files)} files, {len(self.classes)} classes, {size:.0f} MB)"

    @property
    def addresses(self) -> npt.NDArray[np.int64]:
        """(N,) int64, where each image starts in memory; maps the files.

        Raises:
            OSError: a file is missing, or of another size than when it was indexed; names it.
        """
        # No lock, which a fork could leave shut for ever: threads that come at once find the same addresses.
        found = self._addresses
        if found is None:
            found = self._addresses = self.maps.addresses()[self.file_of] + self.offsets
        return found

    def check(self, ids: npt.NDArray[np.int64]) -> None:
        """Raise OSError unless the files of these samples still have their size; start to read those on the disk.

        Reading a map of a file that was cut short would end the process.
        """
        files = self.file_of[ids]
        self.maps.check(np.unique(files).tolist())
        lengths = self.shapes[ids].prod(axis=1) * CHANNELS
        for span in zip(files.tolist(), self.offsets[ids].tolist(), lengths.tolist(), strict=True):
            self.maps.will_need(*span)

    def image(self, sample_id: int) -> npt.NDArray[np.uint8]:
        """One image, (H, W, 3) uint8: a read-only view that keeps its file mapped, whatever becomes of the source."""
        height, width = self.shapes[sample_id].tolist()
        file, start = int(self.file_of[sample_id]), int(self.offsets[sample_id])
        self.maps.check([file])
        return self.maps[file][start : start + height * width * CHANNELS].reshape(height, width, CHANNELS)

    def name(self, sample_id: int) -> str:
        """What errors call a sample: its file and its place there."""
        return f"{self.files[self.file_of[sample_id]]}: {self.names[sample_id]}"

    def select(self, ids: npt.ArrayLike) -> RawSource:
        """The samples ``ids``, (M,) integers, as a source of their own: ``ids[i]`` becomes sample i."""
        chosen = checked_ids(ids, len(self))
        return RawSource(
            self.files,
            self.sizes,
            self.file_of[chosen],
            self.offsets[chosen],
            self.shapes[chosen],
            self.labels[chosen],
            self.classes,
            names=self.names.select(chosen),
            digests=self.digests,
        )

    def fingerprint(self) -> str:
        """16 hex digits that change with the files' checksums, and with the place, size, label or order of samples."""
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        arrays = (self.sizes, self.file_of, self.offsets, np.ascontiguousarray(self.shapes), self.labels)
        return digest_of("\0".join(self.digests).encode(), *self.names.chunks(), *arrays)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the maps and what points into them: another process makes its own."""
        return {**self.__dict__, "_addresses": None}


def raw_source(folder: str | os.PathLike[str], index: ShardIndex | None = None) -> RawSource:
    """The images of a folder of raw shards, as ``has-dali pack --raw`` writes it.

    Args:
        folder: where the shards and ``index.npz`` are.
        index: the folder's index, or a part of it, where it was read and its shards were looked at already.

    Raises:
        OSError: there is no index, or a shard is missing or of another size.
        ValueError: the index is damaged, or of encoded images.
    """
    checked, index = index is not None, read_index(folder) if index is None else index
    if index.kind != "raw" or index.shapes is None:
        raise ValueError(f"{os.fspath(folder)}: holds encoded images; pack with --raw for raw ones")
    misfit = None if checked else index.misfit(folder)
    if misfit is not None:
        raise OSError(f"{misfit}; restore it, or pack again")
    files = [os.path.join(folder, name) for name in index.files]
    places = (files, index.sizes, index.file_of, index.offsets, index.shapes)
    return RawSource(*places, index.labels, index.classes, names=index.keys, digests=index.sha256)
