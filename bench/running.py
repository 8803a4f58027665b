"""One scope from its command line to its files: everything that all scopes share."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from has_dali.bench.scope_options import count
from has_dali.console import Parser, Terminal, atomic_file, check_writable, write_json


class Scope(NamedTuple):
    """Where a scope lives, what it takes and what it measures."""

    module: str
    takes: str
    """What its optional DATA is: "images", one folder per class; "arrays", decoded images; "" it takes none."""
    help: str


SCOPES = {
    "op": Scope("has_dali.bench.scopes.op", "", "hiding, alone and fused with normalising, on decoded batches"),
    "loader": Scope("has_dali.bench.scopes.loader", "images", "image files to normalised training batches"),
    "train": Scope("has_dali.bench.scopes.train", "images", "what a training step costs beside its arithmetic"),
    "startup": Scope("has_dali.bench.scopes.startup", "images", "import, build and first batch, kernels cached or not"),
    "scale": Scope(
        "has_dali.bench.scopes.scale", "images", "images/s and memory over threads, batch, patch and image size"
    ),
    "pack": Scope("has_dali.bench.scopes.pack", "images", "the same images as files, packed, and as raw shards"),
    "arrays": Scope("has_dali.bench.scopes.arrays", "arrays", "decoded images in memory to batches"),
    "kernel": Scope("has_dali.bench.scopes.kernel", "", "the CUDA kernels on a GPU, by events"),
}


_COMMON: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--markdown", {"type": Path, "metavar": "FILE", "help": "write the tables to FILE as Markdown"}),
    ("--plot", {"type": Path, "metavar": "FILE", "help": "draw the tables; FILE ends in .png or .svg"}),
    ("--rounds", {"metavar": "N", "help": "measured turns of each contender"}),
    ("--quick", {"action": "store_true", "help": "fewer and shorter turns"}),
)


def load_scope(name: str) -> ModuleType:
    """The module of a scope.

    Raises:
        ValueError: there is no such scope.
    """
    if name not in SCOPES:
        raise ValueError(f"bench {name}: expected one of {', '.join(SCOPES)}, all, compare or --suggest")
    return importlib.import_module(SCOPES[name].module)


def scope_options(name: str, module: Any, argv: Sequence[str]) -> argparse.Namespace:
    """The options of a scope: its own ``parse``, or the common ones and those that it adds.

    Raises:
        ValueError: an option is out of range.
        SystemExit: one is unknown, or --help.
    """
    if hasattr(module, "parse"):
        parsed: argparse.Namespace = module.parse(argv)
        return parsed
    parser = Parser(f"has-dali bench {name}", SCOPES[name].help[:1].upper() + SCOPES[name].help[1:] + ".")
    module.add_options(parser)
    for option, keywords in _COMMON:
        with contextlib.suppress(argparse.ArgumentError):  # a scope may describe it in its own words
            parser.add_argument(option, **keywords)
    return parser.parse_args(argv)


def run_scope(name: str, argv: Sequence[str]) -> int:
    """Measure one scope; print it and write the files that the options name.

    Raises:
        ValueError, OSError: an option or a path is bad; found before anything is measured.
    """
    module = load_scope(name)
    options = scope_options(name, module, argv)
    files = {kind: getattr(options, kind, None) for kind in ("json", "markdown", "plot")}
    for path in files.values():
        if path is not None:
            check_writable(path)
    if files["plot"] is not None:
        from has_dali.bench.charts import check_suffix  # matplotlib may be missing: before the work, too

        check_suffix(files["plot"])
    if isinstance(getattr(options, "rounds", None), str):
        count("--rounds", options.rounds, 1)
    terminal = Terminal(options.quiet)
    _measure(module, ["has-dali", "bench", name, *argv], options, terminal, files)
    return 0


def _measure(
    module: Any, argv: Sequence[str], options: argparse.Namespace, terminal: Terminal, files: dict[str, Path | None]
) -> None:
    from has_dali.bench import machine, rendering
    from has_dali.bench.plots import plot_files
    from has_dali.bench.results import document

    started, begin, before = datetime.now(timezone.utc), time.perf_counter(), machine.state()
    result = module.run(options, terminal)
    seconds = time.perf_counter() - begin
    rendering.show(terminal, result)
    if files["json"] is not None:
        stamp = started.isoformat(timespec="seconds")
        write_json(files["json"], document(result, machine.tidy_argv(argv), stamp, seconds, machine.described(before)))
    if files["markdown"] is not None:
        with atomic_file(files["markdown"]) as file:
            file.write(rendering.markdown(result).encode())
    if files["plot"] is not None:
        for path, plot in plot_files(result, files["plot"]).items():
            plot.draw(path)
