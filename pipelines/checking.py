"""``check``: every image of a source read and decoded before a training does, and what is wrong with it.

Decoding happens in other processes, so that a file over which a decoder crashes or hangs is a finding and not the end.
Files of records and packed shards are compared with their checksums as well.
"""

from __future__ import annotations

import csv
import importlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from has_dali.console import atomic_file
from has_dali.kernels.threads import available_cores
from has_dali.pipelines.arrays import DecodedSource
from has_dali.pipelines.check_files import checked_files, file_findings
from has_dali.pipelines.check_images import BROKEN, SUSPICIOUS, Inspected, Place, inspect_place, pixel_findings
from has_dali.pipelines.check_pool import Crash, run_apart
from has_dali.pipelines.sampler import at_least
from has_dali.pipelines.sources import digest_of

DUPLICATE = "duplicate"
KINDS = (BROKEN, *SUSPICIOUS, DUPLICATE)
_DIGEST_WORDS = 2  # 64-bit words of a checksum that are kept per image


@dataclass(frozen=True, order=True)
class Finding:
    """Something about an image, or about a file of many (``sample_id`` -1)."""

    sample_id: int
    kind: str
    name: str
    detail: str


@dataclass(frozen=True)
class CheckReport:
    """What ``check`` found.

    Args:
        images: looked at.
        files: whose checksums were compared.
        findings: in the order of sample ids.
    """

    images: int
    files: int
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind; kinds without any are left out."""
        counted = Counter(finding.kind for finding in self.findings)
        return {kind: counted[kind] for kind in KINDS if counted[kind]}

    @property
    def broken(self) -> int:
        """How many images and files are broken."""
        return self.counts.get(BROKEN, 0)

    def write_csv(self, path: Path) -> None:
        """Write the findings: name, id, finding, detail; the id of a file of many images is empty."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["name", "id", "finding", "detail"])
        for finding in self.findings:
            number = "" if finding.sample_id < 0 else finding.sample_id
            rows.writerow([finding.name, number, finding.kind, finding.detail])
        with atomic_file(path) as file:
            file.write(text.getvalue().encode(errors="surrogateescape"))


def check(source: Any, *, jobs: int | None = None, advance: Callable[[int], None] = lambda steps: None) -> CheckReport:
    """Read and decode all images of a source.

    Args:
        source: a source, as ``open_data`` gives it.
        jobs: processes that decode; the usable cores by default.
        advance: called with the number of steps just finished; ``check_steps`` says how many there are.

    Raises:
        ValueError: ``jobs`` is out of range.
        RuntimeError: the processes cannot be started, or fail whatever they are given.
    """
    processes = available_cores() if jobs is None else at_least("jobs", jobs, 1)
    digests = np.zeros((len(source), _DIGEST_WORDS), np.uint64)
    readable = np.zeros(len(source), bool)
    findings = []
    decoded = isinstance(source, DecodedSource)
    for sample_id, seen in _pixels(source, processes) if decoded else _files(source, processes):
        findings += [Finding(sample_id, kind, source.name(sample_id), detail) for kind, detail in seen.findings]
        if seen.digest:
            digests[sample_id] = np.frombuffer(seen.digest, np.uint64)
            readable[sample_id] = True
        advance(1)
    files = checked_files(source)
    with ThreadPoolExecutor(processes) as pool:
        for found in pool.map(lambda file: file_findings(source, file), files):
            findings += [Finding(-1, BROKEN, name, detail) for name, detail in found]
            advance(1)
    findings += _duplicates(source, digests, readable)
    return CheckReport(len(source), len(files), tuple(sorted(findings)))


def check_steps(source: Any) -> int:
    """How many steps ``check`` reports for a source."""
    return len(source) + len(checked_files(source))


def _files(source: Any, processes: int) -> Iterator[tuple[int, Inspected]]:
    """Encoded images, in other processes."""
    for module in ("PIL.Image", "nvidia.dali"):  # that one is missing is no fault of the images
        importlib.import_module(module)
    places = (_place(source, sample_id) for sample_id in range(len(source)))
    for sample_id, result in run_apart(inspect_place, places, min(processes, len(source))):
        if isinstance(result, Crash):
            result = Inspected(((BROKEN, f"the decoder crashed or hung ({result.reason})"),))
        yield sample_id, result


def _place(source: Any, sample_id: int) -> Place:
    if hasattr(source, "offsets"):
        path = source.files[source.file_of[sample_id]]
        offset, length = int(source.offsets[sample_id]), int(source.lengths[sample_id])
        return Place(path, offset, length, source.names[sample_id])
    path = source.path(sample_id)
    return Place(path, 0, None, path)


def _pixels(source: DecodedSource, threads: int) -> Iterator[tuple[int, Inspected]]:
    """Decoded images: nothing can crash."""

    def look(sample_id: int) -> Inspected:
        try:
            image = source.image(sample_id)
        except OSError as error:
            return Inspected(((BROKEN, str(error)),))
        digest = bytes.fromhex(digest_of(np.array(image.shape), image)) * 2
        return Inspected(tuple(pixel_findings(image)), digest)

    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(source), 1024):
            ids = range(first, min(first + 1024, len(source)))
            yield from zip(ids, pool.map(look, ids), strict=True)


def _duplicates(source: Any, digests: np.ndarray, readable: np.ndarray) -> Iterator[Finding]:
    """Images with the bytes of an earlier one."""
    ids = np.flatnonzero(readable)
    order = ids[np.lexsort((ids, digests[ids, 1], digests[ids, 0]))]
    same = (digests[order][1:] == digests[order][:-1]).all(axis=1)
    first = 0
    for place in range(1, len(order)):
        if not same[place - 1]:
            first = place
            continue
        original, copy = int(order[first]), int(order[place])
        label = "" if source.labels[original] == source.labels[copy] else ", with another label"
        detail = f"same bytes as {source.name(original)} (id {original}){label}"
        yield Finding(copy, DUPLICATE, source.name(copy), detail)
