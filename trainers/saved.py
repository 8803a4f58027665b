"""Networks from checkpoints: rebuilt from the settings that a checkpoint holds."""

from __future__ import annotations

import copy
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from has_dali.pipelines.device import choose_device
from has_dali.trainers.classification import ClassificationTask
from has_dali.trainers.datasets.split import fit_and_held_out
from has_dali.trainers.evaluation import Evaluation, evaluate
from has_dali.trainers.settings import Settings, from_dict
from has_dali.trainers.task import checkpoint_header
from has_dali.trainers.tasks import task_kind
from has_dali.trainers.trainer_setup import CHECKPOINTS


def load_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU; only weights, numbers, strings and containers are accepted.

    Raises:
        OSError: there is no such file.
        ValueError: it is no checkpoint of this project.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such checkpoint; a run keeps its own in its {CHECKPOINTS}/")
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # of any kind: what unpickles is not ours
        raise ValueError(f"{file}: not a checkpoint, or a damaged one; give a file of has-dali train") from None
    checkpoint_header(content, f"{file}")
    return content


def task_from_checkpoint(
    file: Path, task: str | None, classes: int, changes: Sequence[str] = (), device: str = "cpu"
) -> ClassificationTask:
    """The LightningModule that a checkpoint holds.

    Args:
        file: the checkpoint.
        task: the task it must be of; None: any.
        classes: number of classes of the data.
        changes: settings to change, as ``group.option=value``.
        device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: the checkpoint is of another task, recipe or number of classes.
    """
    content = load_checkpoint(file)
    header = content["has_dali"]
    if task is not None and header["task"] != task:
        raise ValueError(f"{file}: a checkpoint of {header['task']}, expected one of {task}")
    kind = task_kind(header["task"])
    settings = from_dict(kind.settings, changed(kind.settings, header["settings"], changes))
    model = kind.build_model(settings, classes, header["seed"])
    module = kind.module(
        model, settings, classes, header["seed"], header["epochs"], header["recipe"], name=header["task"]
    )
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t")[-1].split())
        raise ValueError(
            f"{file}: its weights do not fit {settings.model.name} with {classes} classes ({reason});"
            " give the data set that it was trained on"
        ) from None
    return module.to(choose_device(device)[0])


def changed(kind: type[Settings], settings: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Settings of a task with some values replaced, each ``group.option=value``.

    Raises:
        ValueError: a change names no setting, or its value is none of the setting's.
    """
    result = copy.deepcopy(settings)
    for change in changes:
        path, given, _ = change.partition("=")
        group, _, name = path.partition(".")
        if not given or name not in result.get(group, {}):
            raise ValueError(f"--set {change}: expected GROUP.OPTION=VALUE with a setting of the checkpoint")
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(type(getattr(kind(), group)), group)
        try:
            result[group][name] = getattr(parser.parse_args([f"--{change}"])[group], name)
        except ArgumentError as error:
            raise ValueError(f"--set {change}: {' '.join(str(error).split())}") from None
    return result


def evaluate_checkpoint(
    task: str, file: Path, data: Path, device: str = "auto", changes: Sequence[str] = ()
) -> Evaluation:
    """All metrics of a checkpoint on a data set, in the precision that it was trained in."""
    kind = task_kind(task)
    header = load_checkpoint(file)["has_dali"]
    settings = from_dict(kind.settings, changed(kind.settings, header["settings"], changes))
    images = kind.open_data(data, settings)
    module = task_from_checkpoint(file, task, len(images.classes), changes, device)
    held_out = fit_and_held_out(images, settings.loader.held_out)[1]
    return evaluate(module, images, held_out, precision=header.get("precision", "32-true"))
