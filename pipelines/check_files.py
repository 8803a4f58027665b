"""Files that hold many images, compared with their checksums: packed shards, and the records of TFRecords."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from has_dali.pipelines.pack_shards import file_digest

_TFRECORD = re.compile(r"\.tfrecords?$|-\d{5}-of-\d{5}$")


def checked_files(source: Any) -> list[int]:
    """The numbers, within ``source.files``, of those files that have checksums."""
    files = getattr(source, "files", ())
    digests = getattr(source, "digests", ())
    return [number for number, path in enumerate(files) if digests or _TFRECORD.search(path)]


def file_findings(source: Any, number: int) -> list[tuple[str, str]]:
    """What is wrong with a file: a name and the reason for each fault."""
    path = source.files[number]
    try:
        if source.digests:
            wrong = file_digest(Path(path)) != source.digests[number]
            return [(path, "its bytes have changed since it was packed (SHA-256 differs from the index)")][: int(wrong)]
        return [(f"{path}: record {record}", fault) for record, fault in _broken_records(path)]
    except (OSError, ValueError) as error:
        return [(path, str(error))]


def _broken_records(path: str) -> Iterator[tuple[int, str]]:
    from has_dali.pipelines.tfrecords import broken_records

    return broken_records(path)
