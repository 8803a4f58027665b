"""One run of ``pack``: samples encoded ahead by threads, written in their order, shard after shard."""

from __future__ import annotations

import contextlib
import shutil
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from has_dali.pipelines.memory import gigabytes
from has_dali.pipelines.pack_images import BrokenImageError, Form, Member, content_of, encoded
from has_dali.pipelines.pack_manifest import Manifest, Packed, Skipped
from has_dali.pipelines.pack_shards import ShardWriter, shard_name, stored_bytes

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
        self._content = content_of(source)
        self._digits = max(_DIGITS, len(str(len(source) - 1)))

    def check_space(self, first: int) -> None:
        """Raise OSError if the disk is too small, as far as a few samples tell."""
        left = len(self._source) - first
        ids = sorted({first + (2 * i + 1) * left // (2 * _PROBES) for i in range(_PROBES)})
        sizes = [size for size in self._pool.map(self._size, ids) if size]
        need = int(np.mean(sizes) * left) if sizes else 0
        free = shutil.disk_usage(self._folder).free
        if need > free:
            raise OSError(
                f"{self._folder}: needs about {gigabytes(need)}, {gigabytes(free)} are free; make room, or lower"
                " --short-side or --quality"
            )

    def write(self, first: int, shard_bytes: int, advance: Callable[[int], None]) -> None:
        """Write the shards from sample ``first`` on."""
        writer, begin, skipped = None, first, list[Skipped]()
        try:
            # Closed at once after an error, which drops the work under way.
            with contextlib.closing(self._encoded(first)) as samples:
                for sample_id, member in samples:
                    if isinstance(member, Skipped):
                        skipped.append(member)
                        advance(1)
                        continue
                    files = self._files(sample_id, member)
                    size = sum(stored_bytes(len(content)) for content in files.values())
                    if writer is not None and writer.size + size > shard_bytes:
                        self._finish(writer, begin, sample_id, skipped)
                        writer, begin, skipped = None, sample_id, []
                    if writer is None:
                        writer = ShardWriter(self._folder, shard_name(len(self._manifest.shards)))
                    for name, content in files.items():
                        writer.add(name, content)
                    advance(1)
            if writer is not None:
                self._finish(writer, begin, len(self._source), skipped)
                writer = None
            elif skipped and self._manifest.shards:  # images that broke since the last shard was finished
                last = self._manifest.shards.pop()
                everything = (*last.skipped, *skipped)
                self._manifest.shards.append(Packed(last.shard, last.first, len(self._source), everything))
                self._manifest.write(self._folder)
        finally:
            if writer is not None:
                writer.drop()

    def _finish(self, writer: ShardWriter, first: int, end: int, skipped: list[Skipped]) -> None:
        # A broken image between two shards counts for the first of them.
        self._manifest.shards.append(Packed(writer.finish(), first, end, tuple(skipped)))
        self._manifest.write(self._folder)

    def _encoded(self, first: int) -> Generator[tuple[int, Member | Skipped], None, None]:
        """Samples in order, encoded ahead by the threads."""
        under_way: deque[tuple[int, Future[Member]]] = deque()
        ids = iter(range(first, len(self._source)))
        try:
            while True:
                while len(under_way) < self._ahead and (sample_id := next(ids, None)) is not None:
                    under_way.append((sample_id, self._pool.submit(self._member, sample_id)))
                if not under_way:
                    return
                sample_id, future = under_way.popleft()
                try:
                    result: Member | Skipped = future.result()
                except BrokenImageError as error:
                    result = self._broken(sample_id, str(error))
                yield sample_id, result
        finally:
            for _, future in under_way:
                future.cancel()

    def _broken(self, sample_id: int, reason: str) -> Skipped:
        name = self._source.name(sample_id)
        if not self._skipping:
            raise ValueError(f"{name}: {reason}; repair or remove it, or leave broken images out with --on-error skip")
        return Skipped(sample_id, name, reason)

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
