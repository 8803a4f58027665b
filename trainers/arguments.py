"""The command line of a training: a recipe's settings, each of them an option, and pytorch-lightning's Trainer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
from jsonargparse import ArgumentParser

from has_dali.trainers.recipe_files import Recipe, load_recipe
from has_dali.trainers.settings import PaperRow, Settings, from_dict

# What the run itself provides to the Trainer.
_OWN = {
    "logger",
    "callbacks",
    "default_root_dir",
    "enable_progress_bar",
    "enable_checkpointing",
    "enable_model_summary",
    "use_distributed_sampler",
    "num_sanity_val_steps",
}


@dataclass(frozen=True)
class RunOptions:
    """Everything that decides a run.

    Args:
        task: name of the task.
        recipe: where the settings come from.
        settings: all groups of the task.
        trainer: arguments of pytorch-lightning's Trainer.
        data: the data set; None: the recipe renders its own.
        out: folder of the run.
        seed: of weights, order, masks and dropout.
        resume: continue from the last checkpoint in ``out``.
        save_every: optimiser steps between two checkpoints within an epoch; 0: none.
        quiet: print errors only.
        json: a second place for the report.
        overrides: the options given on the command line, for runs that repeat this one with changes.
    """

    task: str
    recipe: Recipe
    settings: Settings
    trainer: dict[str, Any]
    data: Path | None
    out: Path
    seed: int
    resume: bool
    save_every: int
    quiet: bool
    json: Path | None
    overrides: tuple[str, ...] = ()


class Parser(ArgumentParser):
    """jsonargparse with one-line errors, as ``has_dali.console.Parser`` has them."""

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse what no setting takes, before it becomes a default: jsonargparse does not look at those.

        Raises:
            ValueError: names the recipe and the setting.
        """
        self._recipe: str | None = recipe.name
        self.parse_object({"task": recipe.task, **recipe.settings})
        self._recipe = None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with code 2 and the message alone."""
        text = " ".join(message.split())
        if getattr(self, "_recipe", None) is not None:
            raise ValueError(f"recipe {self._recipe}: {text}")
        sys.stderr.write(f"{self.prog}: {text} (see {self.prog} --help)\n")
        raise SystemExit(2)


def run_parser(prog: str, task: str, kind: type[Settings], recipe: Recipe) -> Parser:
    """Options of ``train``: every field of the task's settings and of the Trainer; the recipe's values are defaults."""
    usage = f"{prog} {task} --recipe {recipe.name} --data DIR [--out DIR] [--GROUP.OPTION VALUE ...]"
    parser = Parser(prog=prog, usage=usage, description=f"{task}, {recipe.name}: {recipe.help}")
    parser.add_argument("task", type=str, help="name of the task")
    parser.add_argument("--recipe", type=str, default=recipe.name, help="a name of has-dali recipes, or a .yaml file")
    parser.add_argument("--data", type=Path | None, default=None, help="the data set (its layouts: docs/training.md)")
    out = Path("runs") / task / recipe.folder
    parser.add_argument("--out", type=Path, default=out, help="folder of the run")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order, masks and dropout")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in --out")
    parser.add_argument("--save_every", type=int, default=0, help="steps between checkpoints within an epoch (0: none)")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--json", type=Path | None, default=None, help="write the report to this file too")
    for group in fields(kind):
        parser.add_class_arguments(group.default_factory, group.name)  # type: ignore[arg-type,misc]
    parser.add_class_arguments(pl.Trainer, "trainer", skip=_OWN, instantiate=False)
    return parser


def parse_run(prog: str, argv: Sequence[str], task: str, kind: type[Settings]) -> RunOptions:
    """The options of a run from its command line.

    Raises:
        ValueError: the recipe is unknown, or sets what does not exist.
        SystemExit: a bad option (code 2), or --help (code 0).
    """
    recipe = load_recipe(recipe_name(argv), task)
    parser = run_parser(prog, task, kind, recipe)
    groups = {group.name for group in fields(kind)} | {"trainer"}
    unknown = sorted(set(recipe.settings) - groups)
    if unknown:
        raise ValueError(f"recipe {recipe.name}: {unknown[0]!r} is no group of {task}: {', '.join(sorted(groups))}")
    parser.check_recipe(recipe)
    parser.set_defaults({"trainer.devices": 1, **flattened(recipe.settings)})
    options = parser.parse_args(list(argv))
    values = options.as_dict()
    trainer = values["trainer"]
    settings = from_dict(kind, values)
    if not any(name.startswith("paper.") for name in options_given(argv)):
        settings = replace(settings, paper=paper_row(settings, from_dict(kind, recipe.settings)))
    return RunOptions(
        task, recipe, settings, trainer, options.data, options.out, options.seed, options.resume, options.save_every,
        options.quiet, options.json, tuple(passed_on(argv)),
    )  # fmt: skip


def paper_row(ours: Settings, recipe: Settings) -> PaperRow:
    """The row of the paper's tables that a run stands for: the recipe's, its baseline, or none.

    A run whose network or hiding was changed on the command line must not be put beside the recipe's number.
    """
    row = recipe.paper
    if (ours.model.name, ours.model.pool) != (recipe.model.name, recipe.model.pool):
        return PaperRow()
    if ours.hide == recipe.hide:
        return row
    if ours.hide.method == "none" and row.baseline is not None:
        return replace(row, method=row.baseline)
    return replace(row, table=None, method=None)


def recipe_name(argv: Sequence[str]) -> str:
    """The value of --recipe."""
    for i, word in enumerate(argv):
        if word == "--recipe" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith("--recipe="):
            return word.partition("=")[2]
    raise ValueError("--recipe NAME is missing: has-dali recipes lists them; toy needs no data")


def options_given(argv: Sequence[str]) -> set[str]:
    """Names of the options on a command line, without dashes and values."""
    return {word.partition("=")[0].removeprefix("--") for word in argv if word.startswith("--")}


def passed_on(argv: Sequence[str]) -> list[str]:
    """The options about settings and trainer (those with a dot), for runs that repeat this one."""
    kept: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word.startswith("--") and "." in word.partition("=")[0]:
            kept.append(word)
            if "=" not in word and words and not words[0].startswith("--"):
                kept.append(words.pop(0))
    return kept


def flattened(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
