"""Commands about data sets: ``pack`` and ``check``."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from has_dali.console import Parser, Terminal, check_writable, write_json
from has_dali.pipelines.array_files import cifar_kind
from has_dali.pipelines.commands import open_images
from has_dali.pipelines.data import open_data
from has_dali.pipelines.sources import IMAGE_EXTENSIONS

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def pack(argv: Sequence[str]) -> int:
    """``has-dali pack SRC OUT``: any source into tar shards with an index."""
    parser = Parser(
        "has-dali pack",
        "Write images into tar shards with an index: shrunk once, read by the loaders, by WebDataset and by tar."
        " Run again after an interruption, it keeps the finished shards; those of image files with another size or"
        " time than then are made again. Run has-dali check first: damaged JPEGs that can still be decoded are packed.",
    )
    parser.add_argument("source", metavar="SRC", help="folder of one folder per class, shards, records, or a list")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, new or of an interrupted run")
    parser.add_argument(
        "--short-side",
        type=int,
        default=256,
        metavar="PIXELS",
        help="shrink larger images to it; 0 copies the files that the loaders read (256)",
    )
    parser.add_argument("--quality", type=int, default=90, metavar="N", help="of JPEGs, 1 to 95 (90)")
    parser.add_argument("--raw", action="store_true", help="store pixels, for loading without decoding")
    parser.add_argument("--split", choices=("train", "val"), help="of CIFAR and parquet files named by split (train)")
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
    terminal = Terminal(options.quiet)
    split = checked_split(options.source, options.split)
    source = open_any(options.source, split)
    _say_split(terminal, options.source, source, split)
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
    parser.add_argument(
        "--split", choices=("train", "val", "all"), help="of CIFAR and parquet files named by split (train)"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (the usable cores)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all findings: name, id, finding, detail")
    options = parser.parse_args(argv)
    for path in (options.json, options.csv):
        if path is not None:
            check_writable(path)
    terminal = Terminal(options.quiet)
    report = _checked(options, terminal)
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


def _checked(options: Any, terminal: Terminal) -> Any:
    """The report on what DATA names; files of it that cannot be opened are findings."""
    from has_dali.pipelines.check_containers import open_what_can_be
    from has_dali.pipelines.checking import CheckReport, Finding, check_steps
    from has_dali.pipelines.checking import check as check_source

    split = checked_split(options.data, options.split)
    faults: list[Finding] = []
    try:
        source = open_any(options.data, split)
        _say_split(terminal, options.data, source, split)
    except (OSError, ValueError) as error:
        if split and isinstance(error, FileNotFoundError):  # the split is missing
            raise
        source, faults = open_what_can_be(options.data, error)
    if source is None:
        return CheckReport(0, 0, tuple(faults))
    with terminal.progress("checking", check_steps(source)) as advance:
        report = check_source(source, jobs=options.jobs, advance=advance)
    return dataclasses.replace(report, findings=tuple(sorted((*faults, *report.findings))))


def checked_split(data: str, split: str | None) -> str | None:
    """The part of DATA that is to be taken: "train", "val" or "all"; None where it is not stored in parts.

    Raises:
        ValueError: ``split`` asks for a part of what has none, or for all of CIFAR, whose parts are sets of their own.
    """
    from has_dali.pipelines.check_containers import HUB, stored_as_parquet

    folder = data.removeprefix(HUB)
    cifar = os.path.isdir(folder) and cifar_kind(folder) is not None
    if not cifar and not (os.path.isdir(folder) and os.access(folder, os.R_OK) and stored_as_parquet(folder)):
        if split is not None:
            raise ValueError(f"--split {split}: {data} is no folder of CIFAR or parquet files; leave it out")
        return None
    if cifar and split == "all":
        raise ValueError("--split all: CIFAR's sets are taken one by one; give train or val")
    return split or "train"


def _say_split(terminal: Terminal, data: str, source: Any, split: str | None) -> None:
    """What was taken of a set that is stored in parts."""
    files = [os.path.basename(file) for file in source.maps.titles] if split and hasattr(source, "maps") else []
    names = f" from {files[0]}" + (f" to {files[-1]}" if len(files) > 1 else "") if files else ""
    if split:
        terminal.say(f"{data}: --split {split}: {len(source)} images{names}")


def open_any(data: str, split: str | None = None) -> Any:
    """The source that DATA names; also a plain folder of images, without labels."""
    if os.path.isdir(data) and os.access(data, os.R_OK):
        with os.scandir(data) as found:
            entries = list(found)
        flat = any(entry.is_file() and entry.name.lower().endswith(IMAGE_EXTENSIONS) for entry in entries)
        if flat and not any(entry.is_dir() for entry in entries):
            return open_images(data)
    if split == "all":
        from has_dali.pipelines.check_containers import HUB
        from has_dali.pipelines.parquet import parquet_source

        return parquet_source(data.removeprefix(HUB), train=None)
    return open_data(data, train=split != "val")


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
