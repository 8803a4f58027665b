"""One run of ``pack``: samples encoded ahead by threads, written in their order, shard after shard."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from has_dali.pipelines.memory import gigabytes
from has_dali.pipelines.pack_images import BrokenImageError, Form, Member, content_of, encoded
from has_dali.pipelines.pack_manifest import Manifest, Packed, Skipped, wrong_shard
from has_dali.pipelines.pack_shards import ShardWriter, shard_name, stored_bytes, sync_folder
from has_dali.pipelines.shard_index import INDEX_NAME

_PROBES = 24  # images encoded to estimate the space needed
_DIGITS = 8  # of a key, at least


class PackRun:
    """Encodes samples ahead of the writer, and writes them.

    Args:
        source, form, folder, manifest: what becomes what, and where.
        skipping: leave broken images out.
        pool: threads that encode; ahead: images under way at most.
    """

    def __init__(
        self, source: Any, form: Form, folder: Path, manifest: Manifest, *, skipping: bool, pool: ThreadPoolExecutor,
        ahead: int,
    ) -> None:  # fmt: skip
        self._source, self._form, self._folder, self._manifest = source, form, folder, manifest
        self._skipping, self._pool, self._ahead = skipping, pool, ahead
        self._content, self._by_path = content_of(source), hasattr(source, "path")
        self._digits = max(_DIGITS, len(str(len(source) - 1)))

    def faulty(self, advance: Callable[[int], None]) -> dict[int, str]:
        """The numbers of finished shards that must be made again, and why; ``advance`` hears of the others.

        All shards are read, by the threads.

        Raises:
            OSError: a shard cannot be read, for another reason than that it is missing.
        """
        found, shards = {}, self._manifest.shards
        for number, fault in enumerate(self._pool.map(self._fault, shards)):
            if fault is None:
                advance(shards[number].end - shards[number].first)
            else:
                found[number] = fault
        return found

    def check_space(self, again: Collection[int]) -> None:
        """Raise OSError if the disk is too small, as far as a few samples tell.

        Args:
            again: shards that are made again; the room of the old ones becomes free, one after the other.
        """
        old = [self._manifest.shards[number] for number in again]
        ids = [n for packed in old for n in range(packed.first, packed.end)]
        ids += range(self._manifest.end, len(self._source))
        if not ids:
            return
        probes = sorted({ids[(2 * i + 1) * len(ids) // (2 * _PROBES)] for i in range(_PROBES)})
        sizes = [size for size in self._pool.map(self._size, probes) if size]
        need = int(np.mean(sizes) * len(ids)) if sizes else 0
        present = [path.stat().st_size for path in (self._folder / one.shard.name for one in old) if path.exists()]
        need = max(need - sum(present), 0) + max(present, default=0)  # an old one goes when its new one is finished
        free = shutil.disk_usage(self._folder).free
        if need > free:
            raise OSError(
                f"{self._folder}: needs about {gigabytes(need)}, {gigabytes(free)} are free; make room, or lower"
                " --short-side or --quality"
            )

    def write(self, first: int, shard_bytes: int, advance: Callable[[int], None]) -> None:
        """Write the shards from sample ``first`` on."""
        writer, begin, skipped, stamps = None, first, list[Skipped](), hashlib.sha256()
        try:
            # Closed at once after an error, which drops the work under way.
            with contextlib.closing(self._encoded(first, len(self._source))) as samples:
                for sample_id, stamp, member in samples:
                    if isinstance(member, Skipped):
                        skipped.append(member)
                        stamps.update(stamp)
                        advance(1)
                        continue
                    files = self._files(sample_id, member)
                    size = sum(stored_bytes(len(content)) for content in files.values())
                    if writer is not None and writer.size + size > shard_bytes:
                        # A broken image between two shards counts for the first of them.
                        self._finish(writer, begin, sample_id, skipped, stamps)
                        writer, begin, skipped, stamps = None, sample_id, [], hashlib.sha256()
                    if writer is None:
                        writer = ShardWriter(self._folder, shard_name(len(self._manifest.shards)))
                    stamps.update(stamp)
                    for name, content in files.items():
                        writer.add(name, content)
                    advance(1)
            if writer is not None:
                self._finish(writer, begin, len(self._source), skipped, stamps)
                writer = None
            elif skipped and self._manifest.shards:  # images that broke since the last shard was finished
                last = self._manifest.shards.pop()
                everything, end = (*last.skipped, *skipped), len(self._source)
                self._manifest.shards.append(
                    Packed(last.shard, last.first, end, everything, self._stamps(last.first, end))
                )
                self._manifest.write(self._folder)
        finally:
            if writer is not None:
                writer.drop()

    def write_again(self, number: int, advance: Callable[[int], None]) -> None:
        """Write a finished shard once more, with the same samples: unchanged images give the same bytes."""
        old = self._manifest.shards[number]
        writer, skipped, stamps = ShardWriter(self._folder, old.shard.name), list[Skipped](), hashlib.sha256()
        try:
            with contextlib.closing(self._encoded(old.first, old.end)) as samples:
                for sample_id, stamp, member in samples:
                    stamps.update(stamp)
                    if isinstance(member, Skipped):
                        skipped.append(member)
                    else:
                        for name, content in self._files(sample_id, member).items():
                            writer.add(name, content)
                    advance(1)
            self._finish(writer, old.first, old.end, skipped, stamps, number)
        finally:
            writer.drop()

    def _finish(
        self, writer: ShardWriter, first: int, end: int, skipped: list[Skipped], stamps: Any, number: int | None = None
    ) -> None:
        """Name a shard and enter it in the manifest, at the end or in the place of the one with that number."""
        index = self._folder / INDEX_NAME
        if index.exists():  # until now the folder was as it describes it
            index.unlink()
            sync_folder(self._folder)
        packed = Packed(writer.finish(), first, end, tuple(skipped), stamps.hexdigest() if self._by_path else "")
        if number is None:
            self._manifest.shards.append(packed)
        else:
            self._manifest.shards[number] = packed
        self._manifest.write(self._folder)

    def _fault(self, packed: Packed) -> str | None:
        """Why a finished shard must be made again, or None."""
        fault = wrong_shard(self._folder, packed.shard)
        if fault is None and packed.stamps and packed.stamps != self._stamps(packed.first, packed.end):
            fault = f"{self._folder / packed.shard.name}: images {packed.first} to {packed.end - 1} have changed since"
        return fault

    def _stamps(self, first: int, end: int) -> str:
        """What tells whether the files of some samples have changed; empty where there are none."""
        if not self._by_path:
            return ""
        digest = hashlib.sha256()
        for sample_id in range(first, end):
            digest.update(self._stamp(sample_id))
        return digest.hexdigest()

    def _stamp(self, sample_id: int) -> bytes:
        if not self._by_path:
            return b""
        try:
            status = os.stat(self._source.path(sample_id))
        except OSError:
            return b"none\n"
        return f"{status.st_size} {status.st_mtime_ns}\n".encode()

    def _encoded(self, first: int, end: int) -> Generator[tuple[int, bytes, Member | Skipped], None, None]:
        """Samples in order, encoded ahead by the threads, each with its file's stamp from before it was read."""
        under_way: deque[tuple[int, Future[tuple[bytes, Member | BrokenImageError]]]] = deque()
        ids = iter(range(first, end))
        try:
            while True:
                while len(under_way) < self._ahead and (sample_id := next(ids, None)) is not None:
                    under_way.append((sample_id, self._pool.submit(self._work, sample_id)))
                if not under_way:
                    return
                sample_id, future = under_way.popleft()
                stamp, result = future.result()
                if isinstance(result, BrokenImageError):
                    yield sample_id, stamp, self._broken(sample_id, str(result))
                else:
                    yield sample_id, stamp, result
        finally:
            for _, future in under_way:
                future.cancel()

    def _broken(self, sample_id: int, reason: str) -> Skipped:
        name = self._source.name(sample_id)
        if not self._skipping:
            raise ValueError(f"{name}: {reason}; repair or remove it, or leave broken images out with --on-error skip")
        return Skipped(sample_id, name, reason)

    def _work(self, sample_id: int) -> tuple[bytes, Member | BrokenImageError]:
        stamp = self._stamp(sample_id)
        try:
            return stamp, self._member(sample_id)
        except BrokenImageError as error:
            return stamp, error

    def _member(self, sample_id: int) -> Member:
        return encoded(self._content(sample_id), self._form)

    def _size(self, sample_id: int) -> int:
        """Bytes of a sample in its shard; 0 for a broken one."""
        try:
            return sum(stored_bytes(len(one)) for one in self._files(sample_id, self._member(sample_id)).values())
        except BrokenImageError:
            return 0

    def _files(self, sample_id: int, member: Member) -> dict[str, bytes]:
        key, label = f"{sample_id:0{self._digits}}", int(self._source.labels[sample_id])
        files = {f"{key}.{member.extension}": member.content}
        return files if label < 0 else {**files, f"{key}.cls": str(label).encode()}
