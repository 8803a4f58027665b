"""Commands about data sets: ``pack`` and ``check``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from has_dali.console import Parser, Terminal, check_writable, write_json
from has_dali.pipelines.commands import open_images
from has_dali.pipelines.data import open_data
from has_dali.pipelines.sources import IMAGE_EXTENSIONS

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def pack(argv: Sequence[str]) -> int:
    """``has-dali pack SRC OUT``: any source into tar shards with an index."""
    parser = Parser(
        "has-dali pack",
        "Write images into tar shards with an index: shrunk once, read by the loaders, by WebDataset and by tar."
        " Run again after an interruption, it keeps the finished shards.",
    )
    parser.add_argument("source", metavar="SRC", help="folder of one folder per class, shards, records, or a list")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, new or of an interrupted run")
    parser.add_argument(
        "--short-side", type=int, default=256, metavar="PIXELS", help="shrink larger images to it; 0 copies files (256)"
    )
    parser.add_argument("--quality", type=int, default=90, metavar="N", help="of JPEGs, 1 to 95 (90)")
    parser.add_argument("--raw", action="store_true", help="store pixels, for loading without decoding")
    parser.add_argument("--shard-size", default="256MB", metavar="SIZE", help="bytes of a shard, at most (256MB)")
    parser.add_argument("--jobs", type=int, metavar="N", help="threads (the usable cores)")
    parser.add_argument(
        "--on-error", choices=("raise", "skip"), default="raise", help="leave broken images out with skip (raise)"
    )
    options = parser.parse_args(argv)
    if options.json is not None:
        check_writable(options.json)
    from has_dali.pipelines.packing import SKIPPED_NAME
    from has_dali.pipelines.packing import pack as pack_source

    size = parsed_size("--shard-size", options.shard_size)
    source = open_any(options.source)
    terminal = Terminal(options.quiet)
    with terminal.progress("packing", len(source)) as advance:
        report = pack_source(
            source,
            options.out,
            short_side=options.short_side,
            quality=options.quality,
            raw=options.raw,
            shard_bytes=size,
            jobs=options.jobs,
            on_error=options.on_error,
            advance=advance,
        )
    kept = f", {report.kept} of them kept from an earlier run" if report.kept else ""
    terminal.say(
        f"{options.out}: {report.images} images in {report.shards} shards{kept}, {report.bytes / 1e6:,.1f} MB,"
        f" {report.seconds:.1f} s"
    )
    if report.skipped:
        terminal.say(f"{len(report.skipped)} broken images left out: {options.out / SKIPPED_NAME}")
    if options.json is not None:
        write_json(options.json, report.to_dict())
    return 0


def check(argv: Sequence[str]) -> int:
    """``has-dali check DATA``: everything read and decoded; exit code 1 if anything is broken."""
    parser = Parser(
        "has-dali check",
        "Read and decode every image: broken, suspicious and duplicate ones are listed; exit code 1 if any is broken.",
    )
    parser.add_argument("data", metavar="DATA", help="folder of images or of one folder per class, shards, or records")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (the usable cores)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all findings: name, id, finding, detail")
    options = parser.parse_args(argv)
    for path in (options.json, options.csv):
        if path is not None:
            check_writable(path)
    from has_dali.pipelines.checking import check as check_source
    from has_dali.pipelines.checking import check_steps

    source = open_any(options.data)
    terminal = Terminal(options.quiet)
    with terminal.progress("checking", check_steps(source)) as advance:
        report = check_source(source, jobs=options.jobs, advance=advance)
    if options.csv is not None:
        report.write_csv(options.csv)
    examples = {finding.kind: finding for finding in reversed(report.findings)}
    rows = [
        [kind, str(count), f"{examples[kind].name}: {examples[kind].detail}"] for kind, count in report.counts.items()
    ]
    if rows:
        terminal.table("Findings", ["finding", "count", "first one"], rows, left=True)
    shards = f" and the checksums of {report.files} files" if report.files else ""
    terminal.say(f"{report.images} images{shards} checked: {report.broken} broken")
    if options.csv is not None and rows:
        terminal.say(f"all findings: {options.csv}")
    if options.json is not None:
        found = {"images": report.images, "files": report.files, "findings": report.counts}
        write_json(options.json, {**found, "broken": report.broken})
    return 1 if report.broken else 0


def open_any(data: str) -> Any:
    """The source that DATA names; also a plain folder of images, without labels."""
    if os.path.isdir(data) and os.access(data, os.R_OK):
        with os.scandir(data) as found:
            entries = list(found)
        flat = any(entry.is_file() and entry.name.lower().endswith(IMAGE_EXTENSIONS) for entry in entries)
        if flat and not any(entry.is_dir() for entry in entries):
            return open_images(data)
    return open_data(data, train=True)


def parsed_size(option: str, text: str) -> int:
    """Bytes from a number with a unit, such as 256MB or 1.5GiB.

    Raises:
        ValueError: it is something else, or less than a byte.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?B)?", text.strip().upper())
    size = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if size < 1:
        raise ValueError(f"{option} {text}: expected bytes with a unit, such as 256MB or 1GiB")
    return size
