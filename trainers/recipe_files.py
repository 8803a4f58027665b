"""Recipes: named settings of a task, as YAML files that ship with the package or lie anywhere on disk.

A recipe holds the groups of its task's settings, ``trainer`` (pytorch-lightning's Trainer) and, at the top:
``task``, ``extends`` (a recipe of the package that it changes), ``help`` (one line) and, where it renders its own data,
``data: toy`` with ``arms``: names of variants with the settings that they change, which ``train`` runs beside one
another.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

_HEADER = ("task", "help", "data", "arms")
_EXTENDS = "extends"
_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Recipe:
    """One recipe.

    Args:
        name: its name, or its file for one outside the package.
        task: the task that it is for.
        help: one line.
        data: "toy" where it renders its own data.
        arms: variant -> options that differ, such as {"has": {"hide.method": "has"}}.
        settings: groups of settings, and ``trainer``.
    """

    name: str
    task: str
    help: str
    data: str | None
    arms: dict[str, dict[str, Any]]
    settings: dict[str, Any] = field(repr=False)

    @property
    def folder(self) -> str:
        """Name for the folder of its runs."""
        return Path(self.name).stem if self.name.endswith(_ENDINGS) else self.name


def load_recipe(name: str, task: str) -> Recipe:
    """A recipe of the package by name, or of a YAML file by its path.

    Raises:
        ValueError: there is no such recipe for the task, or the file is malformed.
        OSError: the file cannot be read.
    """
    if name.endswith(_ENDINGS):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"--recipe {name}: not a text file; expected YAML") from None
        return _checked(_read(text, name), task)
    ours = {recipe.name: recipe for recipe in all_recipes() if recipe.task == task}
    if name not in ours:
        near = difflib.get_close_matches(name, ours, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(sorted(ours))}, or a .yaml file"
        raise ValueError(f"--recipe {name}: no such recipe for {task}: {hint}")
    return ours[name]


@lru_cache(maxsize=1)
def all_recipes() -> tuple[Recipe, ...]:
    """Every recipe of the package, by task and name."""
    found = []
    for entry in files("has_dali.trainers.recipes").iterdir():
        if entry.name.endswith(".yaml"):
            found.append(_read(entry.read_text(), entry.name.removesuffix(".yaml").partition("-")[2]))
    return tuple(sorted(found, key=lambda recipe: (recipe.task, recipe.name)))


def _read(text: str, name: str) -> Recipe:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {name}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("task"), str):
        raise ValueError(f"recipe {name}: expected a mapping with a task, such as task: classification")
    if _EXTENDS in content:
        content = _merged(_base(content["task"], content.pop(_EXTENDS), name), content)
    header = {key: content.pop(key, None) for key in _HEADER}
    arms = header["arms"] or {}
    for where, group in (*content.items(), ("arms", arms), *(arms.items() if isinstance(arms, dict) else ())):
        if not isinstance(group, dict):
            raise ValueError(f"recipe {name}: {where}: expected settings by name, such as lr: 0.1, got {group!r}")
    if header["data"] not in (None, "toy") or (header["data"] == "toy") != bool(arms):
        raise ValueError(f"recipe {name}: data: expected toy, together with arms, or neither; got {header['data']!r}")
    return Recipe(name, header["task"], str(header["help"] or ""), header["data"], arms, content)


def _base(task: str, extended: Any, name: str) -> dict[str, Any]:
    """The content of the package's recipe that another one extends."""
    file = files("has_dali.trainers.recipes") / f"{task}-{extended}.yaml"
    if not file.is_file():
        raise ValueError(f"recipe {name}: extends {extended!r}: {task} has no such recipe; has-dali recipes lists them")
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    if _EXTENDS in content:
        content = _merged(_base(task, content.pop(_EXTENDS), str(extended)), content)
    return content


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``changes``; groups are merged value by value."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = {**base[key], **value} if both else value
    return merged


def _checked(recipe: Recipe, task: str) -> Recipe:
    if recipe.task != task:
        raise ValueError(f"--recipe {recipe.name}: it is for the task {recipe.task}, not {task}")
    return recipe
