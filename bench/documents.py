"""Reading the JSON documents that benchmarks leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from has_dali.bench.results import VERSION, Result

_ENTRIES = ("version", "argv", "started", "seconds", "machine", "scope", "settings", "data", "tables", "bars")


def read_document(path: Path) -> dict[str, Any]:
    """The document that a benchmark wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is something else, or of another version.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error}); give a file that has-dali bench --json wrote") from None
    missing = [name for name in _ENTRIES if not isinstance(record, dict) or name not in record]
    if missing:
        raise ValueError(f"{path}: lacks {missing[0]!r}; give a file that has-dali bench SCOPE --json wrote")
    if record["version"] != VERSION:
        raise ValueError(
            f"{path}: version {record['version']!r}, this has-dali reads {VERSION}; measure again with one of them"
        )
    try:
        Result.from_dict(record)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: a table or bar is not as result_schema.json has it ({error!r})") from None
    return record
