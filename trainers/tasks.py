"""The tasks: for each name its settings, its data, its network and its LightningModule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from has_dali.trainers import datasets
from has_dali.trainers.classification import ClassificationTask
from has_dali.trainers.data import ImageData
from has_dali.trainers.localisation import LocalisationTask
from has_dali.trainers.models import LOCALISERS, build_classifier, build_localiser
from has_dali.trainers.settings import ClassificationSettings, LocalisationSettings, Settings


@dataclass(frozen=True)
class TaskKind:
    """What differs between tasks.

    Args:
        name: as on the command line.
        settings: all groups of its settings.
        open_data: a folder to the task's data set.
        build_model: (settings, classes, seed) to the network.
        module: its LightningModule.
        data_module: (data to fit, settings, seed) to its loaders; tasks on pairs or sequences bring their own.
        monitored: the validation metric that tells which epoch is best; higher is better.
    """

    name: str
    settings: type[Settings]
    open_data: Callable[[Path, Settings], Any]
    build_model: Callable[[Settings, int, int], nn.Module]
    module: Callable[..., Any]
    data_module: Callable[[Any, Settings, int], Any] = ImageData
    monitored: str = "top1"


def _classifier(settings: Settings, classes: int, seed: int) -> nn.Module:
    model = settings.model
    if settings.hide.method == "conv1" or model.name in LOCALISERS:
        return _localiser(settings, classes, seed)
    for name, plain in (("width", 1.0), ("norm", None), ("pool", "gap")):
        if getattr(model, name) != plain:
            raise ValueError(f"model.{name}={getattr(model, name)!r}: {model.name} has no such choice; leave it out")
    return build_classifier(model.name, classes, block=model.block, drop_rate=model.dropout)


def _localiser(settings: Settings, classes: int, seed: int) -> nn.Module:
    model, hide = settings.model, settings.hide
    return build_localiser(
        model.name,
        classes,
        pool=model.pool,
        norm=model.norm,
        dropout=model.dropout,
        width=model.width,
        conv1=hide.policy(seed) if hide.method == "conv1" else None,
        conv1_fill=hide.fill,
    )


def _open_boxed(data: Path, settings: Settings) -> datasets.BoxedImages | datasets.MaskedImages:
    metadata = settings.loader.metadata
    return datasets.open_boxed(data, None if metadata is None else Path(metadata))


TASKS = {
    kind.name: kind
    for kind in (
        TaskKind(
            "classification",
            ClassificationSettings,
            lambda data, settings: datasets.open_labeled(data),
            _classifier,
            ClassificationTask,
        ),
        TaskKind("localisation", LocalisationSettings, _open_boxed, _localiser, LocalisationTask),
    )
}


def task_kind(name: str) -> TaskKind:
    """A task by name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in TASKS:
        raise ValueError(f"task {name!r} is unknown: choose one of {', '.join(TASKS)}")
    return TASKS[name]
