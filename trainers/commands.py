"""Commands that train and evaluate: ``train``, ``eval``, ``recipes``; heavy imports wait until a command needs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from has_dali.console import Parser, Terminal, check_writable, output_folder, write_json
from has_dali.trainers.result_commands import asks_for_help

_USAGE = "usage: has-dali train TASK --recipe NAME --data DIR [--out DIR] [--GROUP.OPTION VALUE ...]"


def train(argv: Sequence[str]) -> int:
    """``has-dali train TASK --recipe NAME --data DIR``: one run; every setting of the recipe is an option."""
    if not argv:
        raise ValueError("TASK is missing: classification or localisation (see has-dali train --help)")
    if asks_for_help(argv):
        return _explain_train()
    task = argv[0]
    from has_dali.trainers.arguments import parse_run
    from has_dali.trainers.tasks import task_kind

    options = parse_run("has-dali train", argv, task, task_kind(task).settings)
    if options.json is not None:
        check_writable(options.json)
    terminal = Terminal(options.quiet)
    if options.recipe.data == "toy" and options.data is None:
        from has_dali.trainers.sweeps.toy_run import run_toy

        with output_folder(options.out):
            result = run_toy(options, terminal)
    else:
        if options.data is None:
            raise ValueError(f"--data DIR is missing: the recipe {options.recipe.name} needs a data set")
        from has_dali.trainers.results.tables import show_report
        from has_dali.trainers.run import train as run_training

        with output_folder(options.out):
            report = run_training(options, options.data)
        if report is None:
            return 0
        show_report(terminal, report.to_dict(), options.out)
        result = report.to_dict()
    if options.json is not None:
        write_json(options.json, result)
    return 0


def evaluate(argv: Sequence[str]) -> int:
    """``has-dali eval TASK --ckpt FILE --data DIR``: the metrics of a checkpoint."""
    parser = Parser("has-dali eval", "Metrics of a checkpoint; its settings come from the checkpoint itself.")
    parser.add_argument("task", metavar="TASK", help="classification or localisation")
    parser.add_argument("--ckpt", type=Path, required=True, metavar="FILE", help="checkpoint of has-dali train")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda (auto)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="GROUP.OPTION=VALUE",
        help="change a setting, such as cam.crops=one",
    )
    options = parser.parse_args(argv)
    if options.json is not None:
        check_writable(options.json)
    from has_dali.trainers.results.tables import show_metrics
    from has_dali.trainers.saved import evaluate_checkpoint

    found = evaluate_checkpoint(options.task, options.ckpt, options.data, options.device, options.set)
    terminal = Terminal(options.quiet)
    show_metrics(terminal, f"{options.task}: {options.ckpt}", {"value": found.metrics}, found.baselines)
    if options.json is not None:
        result = {"metrics": found.metrics, "baselines": found.baselines, "curves": found.curves}
        write_json(options.json, {"task": options.task, "ckpt": options.ckpt, "data": options.data, **result})
    return 0


def recipes(argv: Sequence[str]) -> int:
    """``has-dali recipes [TASK]``: the recipes and what they are for; ``--models``: the networks."""
    parser = Parser("has-dali recipes", "The recipes that has-dali train knows, by task.")
    parser.add_argument("task", nargs="?", metavar="TASK", help="show those of one task")
    parser.add_argument("--models", action="store_true", help="list the networks instead")
    options = parser.parse_args(argv)
    if options.json is not None:
        check_writable(options.json)
    terminal = Terminal(options.quiet)
    result: dict[str, Any]
    if options.models:
        from has_dali.trainers.models import model_names

        result = {"models": list(model_names())}
        terminal.say("\n".join(result["models"]))
    else:
        from has_dali.trainers.recipe_files import all_recipes

        chosen = [recipe for recipe in all_recipes() if options.task in (None, recipe.task)]
        if not chosen:
            raise ValueError(f"task {options.task!r}: there is no recipe for it; has-dali recipes lists all")
        rows = [[recipe.task, recipe.name, recipe.help] for recipe in chosen]
        terminal.table("Recipes: has-dali train TASK --recipe NAME", ["task", "recipe", "what it is"], rows, left=True)
        result = {"recipes": [dict(zip(("task", "name", "help"), row, strict=True)) for row in rows]}
    if options.json is not None:
        write_json(options.json, result)
    return 0


def _explain_train() -> int:
    lines = [
        _USAGE,
        "",
        "Train with a recipe (has-dali recipes). All of a recipe's settings are options:",
        "  has-dali train TASK --recipe NAME --help",
        "",
        "  --data DIR       the data set; recipes called toy render their own",
        "  --out DIR        folder of the run (runs/TASK/RECIPE): report.json, checkpoints, logs",
        "  --seed N         of weights, order, masks and dropout (0)",
        "  --resume         continue from the last checkpoint in --out, also in the middle of an epoch",
        "  --save_every N   steps between checkpoints within an epoch",
        "  --json FILE      write the report to FILE too",
        "  --quiet          print errors only",
        "",
        "Several GPUs: --trainer.devices 8, or torchrun --nproc-per-node 8 -m has_dali train ...",
        "",
    ]
    Terminal().say("\n".join(lines))
    return 0
