"""Commands about many or finished runs: ``sweep``, ``compare``, ``figure``, ``occlusion``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from has_dali.console import Parser, Terminal, atomic_file, check_writable, output_folder, write_json

_SWEEP_USAGE = """usage: has-dali sweep TASK --recipe NAME --data DIR [--seeds N] [--tables II,III,...] [--arms A,B,...]
                     [--jobs N] [--out DIR] [--GROUP.OPTION VALUE ...]

Trains every arm of the paper's tables (localisation: II to VI; classification: VIII) with each seed, at the scale of
the recipe, and prints them beside the paper's numbers. What is finished is not run again; interrupted runs resume.

  --seeds N   runs per arm (3)
  --tables    only these tables
  --arms      only these arms (see the folders below --out)
  --jobs N    runs at a time, each with its share of the cores (1)

Also --json FILE and --quiet.
"""
_SWEEP_WORDS = ("--seeds", "--tables", "--arms", "--jobs")


def sweep(argv: Sequence[str]) -> int:
    """``has-dali sweep TASK --recipe NAME --data DIR --seeds 3``: the ablation tables beside the paper's."""
    if not argv or asks_for_help(argv):
        Terminal().say(_SWEEP_USAGE)
        return 0 if argv else 2
    from has_dali.trainers.arguments import parse_run
    from has_dali.trainers.sweeps.sweep import sweep as run_sweep
    from has_dali.trainers.tasks import task_kind

    own, rest = taken(argv, _SWEEP_WORDS)
    options = parse_run("has-dali sweep", rest, rest[0], task_kind(rest[0]).settings)
    if options.json is not None:
        check_writable(options.json)
    if options.data is None:
        raise ValueError("--data DIR is missing: a sweep needs a data set")
    seeds, jobs = count("--seeds", own.get("--seeds", "3")), count("--jobs", own.get("--jobs", "1"))
    tables, arms = (
        [word.strip() for word in own[name].split(",")] if name in own else None for name in ("--tables", "--arms")
    )
    with output_folder(options.out):
        rows = run_sweep(options, options.data, seeds, tables, arms, jobs, Terminal(options.quiet))
    if options.json is not None:
        write_json(options.json, {"argv": ["has-dali", "sweep", *argv], "rows": [row.to_dict() for row in rows]})
    return 0


def compare(argv: Sequence[str]) -> int:
    """``has-dali compare RUN...``: paper value, ours, difference, seeds."""
    parser = Parser("has-dali compare", "Finished runs beside the paper and beside one another.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, or folders of such folders")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="last or best weights (last)")
    parser.add_argument("--metrics", metavar="NAME,...", help="only these metrics; all: every one (the main ones)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to FILE as Markdown")
    options = parser.parse_args(argv)
    for path in (options.json, options.markdown):
        if path is not None:
            check_writable(path)
    from has_dali.trainers.results.compare import compare as compared
    from has_dali.trainers.results.compare_tables import show, tables, to_markdown

    comparison = compared(options.runs, options.which)
    metrics = _shown_metrics(options.metrics, {line.metric for line in comparison.lines})
    show(Terminal(options.quiet), comparison, metrics)
    if options.markdown is not None:
        with atomic_file(options.markdown) as file:
            file.write(to_markdown(comparison, metrics).encode())
    if options.json is not None:
        found = [vars(table) for table in tables(comparison, metrics)]
        write_json(options.json, {"runs": options.runs, "which": options.which, "tables": found})
    return 0


def figure(argv: Sequence[str]) -> int:
    """``has-dali figure {filters,cam,failures,occlusion,strip} RUN...``: the paper's figures as PNG."""
    parser = Parser("has-dali figure", "Draw the paper's Figs 1, 2, 4-7 from finished runs.")
    kinds = ("filters", "cam", "failures", "occlusion", "strip", "curves", "arms")
    parser.add_argument("kind", choices=kinds, metavar="KIND", help=f"one of {', '.join(kinds)}")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs; the baseline first")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the data set (not for filters, curves, arms)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="PNG to write (KIND.png)")
    parser.add_argument("--count", type=int, default=8, metavar="N", help="images shown (8)")
    parser.add_argument("--metric", default="top1", metavar="NAME", help="curves: which of a report's curves (top1)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda (auto)")
    options = parser.parse_args(argv)
    out = options.out or Path(f"{options.kind}.png")
    for path in (out, options.json):
        if path is not None:
            check_writable(path)
    if not 1 <= options.count <= 100:
        raise ValueError(f"--count {options.count}: expected a whole number from 1 to 100")
    if options.data is None and options.kind not in ("filters", "curves", "arms"):
        raise ValueError(f"--data DIR is missing: the figure {options.kind} shows images")
    from has_dali.trainers.figures.draw import draw
    from has_dali.trainers.figures.style import save_png

    save_png(draw(options), out)
    Terminal(options.quiet).say(f"figure: {out}")
    if options.json is not None:
        write_json(options.json, {"kind": options.kind, "runs": options.runs, "figure": out})
    return 0


def occlusion(argv: Sequence[str]) -> int:
    """``has-dali occlusion RUN RUN --data DIR``: top-1 under occlusion, paired (paper, section 4.6)."""
    parser = Parser(
        "has-dali occlusion",
        "Accuracy of runs on occluded images, paired: boxes covered to 30, 50 and 70 %, or a list of occluded images.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs; the baseline first")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set, with boxes")
    parser.add_argument("--image-list", type=Path, metavar="FILE", help="occluded images: a line path,label for each")
    parser.add_argument("--classes", type=int, default=100, metavar="N", help="classes drawn (100)")
    parser.add_argument("--per-class", type=int, default=2, metavar="N", help="images drawn of each (2)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the images and the covers (0)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda (auto)")
    options = parser.parse_args(argv)
    if options.json is not None:
        check_writable(options.json)
    from has_dali.trainers.occlusion.answers import occlude
    from has_dali.trainers.occlusion.paired import tables

    rows = occlude(options)
    terminal = Terminal(options.quiet)
    for title, columns, lines in tables(rows):
        terminal.table(title, columns, lines)
    if options.json is not None:
        write_json(options.json, {"runs": options.runs, "seed": options.seed, "rows": [_plain(row) for row in rows]})
    return 0


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether the words are --help, or a task and --help: without a recipe there are no options to explain."""
    return len(argv) <= 2 and argv[-1] in ("-h", "--help")


def taken(argv: Sequence[str], names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options of our own with their values, and the words that are left for the recipe's parser."""
    found: dict[str, str] = {}
    rest = []
    words = iter(argv)
    for word in words:
        name, _, value = word.partition("=")
        if name in names:
            found[name] = value or next(words, "")
        else:
            rest.append(word)
    if not rest or rest[0].startswith("-"):
        raise ValueError("TASK is missing: classification or localisation comes first")
    return found, rest


def count(name: str, text: str) -> int:
    """A whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{f'{name} {text}'.rstrip()}: expected a whole number from 1")
    return int(text)


def _shown_metrics(chosen: str | None, known: set[str]) -> list[str] | None:
    """The metrics asked for; by default those that results are judged by, not what belongs to how they were found."""
    if chosen is not None:
        return None if chosen == "all" else chosen.split(",")
    beside = ("held_out_", "top1_max_box_acc", "top1_cam_box_acc", "max_box_acc_v2@")
    hidden = ("gt_known@0.5", "top1_loc@0.5", "cam_threshold", "max_box_acc_tau", "cam_box_acc")
    return sorted(name for name in known if name not in hidden and not name.startswith(beside)) or None


def _plain(row: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(row)
