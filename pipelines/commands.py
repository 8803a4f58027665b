"""Commands about data: ``show`` and ``mean``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from has_dali.console import Parser, Terminal, atomic_file, check_writable, json_text, write_json
from has_dali.kernels.contract import IMAGENET_MEAN
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import contact_sheet
from has_dali.pipelines.sources import IMAGE_EXTENSIONS, FileSource, open_source


def show(argv: Sequence[str]) -> int:
    """``has-dali show DATA --preset NAME --out sheet.png``: contact sheet of any images with any policy."""
    parser = Parser("has-dali show", "Draw a contact sheet: rows are images, columns are patch sizes and epochs.")
    parser.add_argument("data", metavar="DATA", help="folder of images, or of one folder per class")
    parser.add_argument("--out", type=Path, default=Path("sheet.png"), metavar="FILE", help="PNG to write (sheet.png)")
    parser.add_argument("--images", type=int, default=4, metavar="N", help="rows, spread evenly over the data (4)")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="columns that show the policy itself (3)")
    parser.add_argument("--size", type=int, default=224, metavar="PIXELS", help="edge of the centre crop shown (224)")
    parser.add_argument("--fill", default="mean", metavar="R,G,B", help="colour of hidden pixels (the ImageNet mean)")
    add_policy_options(parser)
    options = parser.parse_args(argv)
    for name in ("images", "epochs", "size"):
        if not 1 <= getattr(options, name) <= 4096:
            raise ValueError(f"--{name} {getattr(options, name)}: expected a whole number from 1 to 4096")
    policy = policy_from(options)
    fill = IMAGENET_MEAN if options.fill == "mean" else _colour(options.fill)
    for path in (options.out, options.json):
        if path is not None:
            check_writable(path)
    source = open_images(options.data)
    rows = evenly_spaced(source, options.images)
    layout = contact_sheet.columns(policy, options.epochs)
    hidden = write_sheet(options.out, rows, layout, fill, options.size)
    terminal = Terminal(options.quiet)
    show_hidden(terminal, layout, hidden, options.out)
    if options.json is not None:
        result = {"policy": policy.to_dict(), "sheet": options.out, "columns": column_records(layout, hidden)}
        write_json(options.json, result)
    return 0


def mean(argv: Sequence[str]) -> int:
    """``has-dali mean DATA``: mean and standard deviation over all pixels of all images, as JSON."""
    parser = Parser(
        "has-dali mean", "Per-channel mean and std over all pixels of all images; every pixel weighs the same."
    )
    parser.add_argument("data", metavar="DATA", help="folder of training images, or of one folder per class")
    options = parser.parse_args(argv)
    if options.json is not None:
        check_writable(options.json)
    source = open_images(options.data)
    from has_dali.pipelines.statistics import pixel_statistics

    terminal = Terminal(options.quiet)
    with terminal.progress("adding up pixels", len(source)) as advance:
        result = pixel_statistics(source_files(source), advance).to_dict()
    terminal.say(json_text(result))
    if options.json is not None:
        write_json(options.json, result)
    return 0


def open_images(data: str) -> FileSource:
    """The images of a folder of class folders, or, for tools that need no labels, of a plain folder."""
    if os.path.isdir(data) and os.access(data, os.R_OK):
        names = sorted(entry.name for entry in os.scandir(data) if entry.is_file())
        flat = [os.path.join(data, name) for name in names if name.lower().endswith(IMAGE_EXTENSIONS)]
        if flat and not any(entry.is_dir() for entry in os.scandir(data)):
            return FileSource(flat)
    return open_source(data)


def source_files(source: FileSource) -> list[str]:
    """Every file of a source, in the order of the sample ids."""
    return [source.path(sample_id) for sample_id in range(len(source))]


def evenly_spaced(source: FileSource, count: int) -> list[tuple[int, str]]:
    """(sample id, file) of ``count`` images spread over the source, or of all when there are fewer."""
    count = min(count, len(source))
    ids = [(2 * i + 1) * len(source) // (2 * count) for i in range(count)]
    return [(sample_id, source.path(sample_id)) for sample_id in ids]


def write_sheet(
    out: Path,
    rows: Sequence[tuple[int, str]],
    layout: Sequence[contact_sheet.Column],
    fill: Sequence[float],
    size: int = 224,
) -> list[float]:
    """Draw a sheet into the PNG ``out``; returns the hidden fraction of each column."""
    sheet, hidden = contact_sheet.render(rows, layout, fill, size)
    with atomic_file(out) as file:
        sheet.save(file, format="PNG", optimize=True)
    return hidden


def column_records(layout: Sequence[contact_sheet.Column], hidden: Sequence[float]) -> list[dict[str, Any]]:
    """The columns of a sheet for a JSON report."""
    return [
        {"column": column.title, "epoch": column.epoch, "hidden_fraction": fraction}
        for column, fraction in zip(layout, hidden, strict=True)
    ]


def show_hidden(terminal: Terminal, layout: Sequence[contact_sheet.Column], hidden: Sequence[float], out: Path) -> None:
    """Print the hidden fraction of each column and where the sheet is."""
    rows = [[column.title, f"{fraction:.1%}"] for column, fraction in zip(layout, hidden, strict=True) if column.policy]
    terminal.table("Hidden pixels", ["column", "hidden"], rows)
    terminal.say(f"contact sheet: {out}")


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """Options that describe a policy."""
    group = parser.add_argument_group("policy (a preset, changed by the other options)")
    group.add_argument("--preset", metavar="NAME", help=f"one of {', '.join(HideAndSeek.presets())}")
    group.add_argument("--patch-sizes", metavar="S,S,...", help="patch edges in pixels; 0 leaves an image whole")
    group.add_argument("--p-hide", type=float, metavar="P", help="probability that a cell is hidden")
    group.add_argument("--p-apply", type=float, metavar="P", help="probability that an image is augmented at all")
    group.add_argument(
        "--seed", type=int, metavar="N", help="64-bit integer; with epoch and sample id it gives the mask"
    )


def policy_from(options: argparse.Namespace) -> HideAndSeek:
    """The policy that the options of ``add_policy_options`` describe."""
    names = ("p_hide", "p_apply", "seed")
    changes: dict[str, Any] = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.patch_sizes is not None:
        changes["patch_sizes"] = _patch_sizes(options.patch_sizes)
    return HideAndSeek.preset(options.preset, **changes) if options.preset else HideAndSeek(**changes)


def _patch_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise ValueError(f"--patch-sizes {text}: expected whole pixels separated by commas, such as 16,32") from None


def _colour(text: str) -> tuple[float, ...]:
    try:
        colour = tuple(float(part) for part in text.split(","))
    except ValueError:
        colour = ()
    if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
        raise ValueError(f"--fill {text}: expected three numbers from 0 to 255 separated by commas, or the word mean")
    return colour
