"""Commands about speed: ``demo`` and ``bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from has_dali.console import Parser, Terminal, check_writable, output_folder, write_json


def demo(argv: Sequence[str]) -> int:
    """``has-dali demo [--data DIR] [--out DIR]``: the main job end to end, on a machine without a GPU too."""
    parser = Parser("has-dali demo", "Contact sheet, loader speeds and a short training with Hide-and-Seek.")
    parser.add_argument("--data", metavar="DIR", help="one folder of images per class (an embedded corpus)")
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where results go (demo)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measured turns of each loader (5)")
    parser.add_argument("--steps", type=int, default=40, metavar="N", help="training steps, at most 45 seconds (40)")
    options = parser.parse_args(argv)
    for name, least in (("rounds", 1), ("steps", 2)):
        if not least <= getattr(options, name) <= 10**6:
            raise ValueError(f"--{name} {getattr(options, name)}: expected a whole number from {least}")
    if options.json is not None:
        check_writable(options.json)
    from has_dali.pipelines.sources import open_source

    # Bad data is found before the imports that take seconds, and before the output folder is made.
    source = None if options.data is None else open_source(options.data)
    with output_folder(options.out):
        from has_dali.bench.demo import run_demo

        run_demo(source, options.out, Terminal(options.quiet), options.rounds, options.steps, options.json)
    return 0


_SCOPES = {"train": "what a training step costs beside its arithmetic", "arrays": "decoded images in memory to batches"}
_USAGE = """usage: has-dali bench train TASK --recipe NAME --data DIR [--rounds N] [--steps N] [--GROUP.OPTION VALUE]
       has-dali bench arrays DATA [--rounds N]

  train   has-dali train against a bare PyTorch loop, the loop without hiding, and one batch held in memory
  arrays  image_loader on decoded images against torchvision's DataLoader

Both take --json FILE and --quiet.
"""


def bench(argv: Sequence[str]) -> int:
    """``has-dali bench SCOPE``: ratios measured in turns; scopes are never mixed in one table."""
    if not argv or argv[0] in ("-h", "--help"):
        Terminal().say(_USAGE)
        return 0 if argv else 2
    scope, *rest = argv
    if scope not in _SCOPES:
        raise ValueError(f"bench {scope}: expected one of {', '.join(_SCOPES)}")
    if scope == "arrays":
        from has_dali.bench.array_loader import main

        return main(rest)
    return _bench_train(rest)


def _bench_train(argv: Sequence[str]) -> int:
    from has_dali.bench import train_step
    from has_dali.doctor import environment
    from has_dali.trainers.arguments import parse_run
    from has_dali.trainers.result_commands import asks_for_help, count, taken
    from has_dali.trainers.tasks import task_kind

    if not argv or asks_for_help(argv):
        Terminal().say(_USAGE)
        return 0 if argv else 2
    own, words = taken(argv, ("--rounds", "--steps"))
    rounds, steps = count("--rounds", own.get("--rounds", "7")), count("--steps", own.get("--steps", "30"))
    options = parse_run("has-dali bench train", words, words[0], task_kind(words[0]).settings)
    if options.json is not None:
        check_writable(options.json)
    if options.data is None:
        raise ValueError("--data DIR is missing: a step is timed on real images")
    terminal = Terminal(options.quiet)
    with terminal.progress("timing steps", rounds * len(train_step.LABELS)) as advance:
        report = train_step.measure(options, options.data, rounds, steps, advance)
    train_step.show(
        terminal, report, f"{options.task}, {options.recipe.name}: mean of {steps} steps, median of {rounds} turns"
    )
    if options.json is not None:
        result = {"environment": environment(), "argv": ["has-dali", "bench", "train", *argv], **report.to_dict()}
        write_json(options.json, result)
    return 0
