"""Finished runs: their network, data and report, opened again for figures and further tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.trainers.callbacks import LAST
from has_dali.trainers.classification import ClassificationTask
from has_dali.trainers.results.report import read_report
from has_dali.trainers.saved import load_checkpoint, task_from_checkpoint
from has_dali.trainers.settings import from_dict
from has_dali.trainers.tasks import task_kind
from has_dali.trainers.trainer_setup import CHECKPOINTS


@dataclass(frozen=True)
class Run:
    """One finished run.

    Args:
        folder: where it lies.
        name: short name for legends: the paper's row, or what it hides; no other run has it.
        task: its network with the last weights, in evaluation mode.
        report: content of ``report.json``.
    """

    folder: Path
    name: str
    task: ClassificationTask
    report: dict[str, Any]


def open_runs(folders: Sequence[Path], data: Path, device: str = "auto") -> tuple[list[Run], Any]:
    """Runs of one task on one data set, and the data set.

    Raises:
        OSError: a folder is no finished run.
        ValueError: the runs are of different tasks, or do not fit the data.
    """
    reports = [read_report(folder) for folder in folders]
    tasks = {report["task"] for report in reports}
    if len(tasks) > 1:
        raise ValueError(f"RUN: expected runs of one task, got {', '.join(sorted(tasks))}")
    kind = task_kind(tasks.pop())
    images = kind.open_data(data, from_dict(kind.settings, reports[0]["settings"]))
    runs = []
    for folder, name, report in zip(folders, names_of(folders), reports, strict=True):
        task = task_from_checkpoint(folder / CHECKPOINTS / LAST, kind.name, len(images.classes), device=device)
        runs.append(Run(folder, name, task.eval(), report))
    return runs, images


def conv1_filters(folder: Path) -> npt.NDArray[np.float32]:
    """(K, 3, h, w): the filters of the first convolution of a run, from its last checkpoint; needs no data."""
    weights = load_checkpoint(folder / CHECKPOINTS / LAST)["state_dict"]
    for value in weights.values():
        if value.ndim == 4 and value.shape[1] == 3:
            return np.asarray(value.float().numpy())
    raise ValueError(f"{folder}: its network has no convolution of three channels")


def names_of(folders: Sequence[Path]) -> list[str]:
    """What a legend calls runs; equal names get as much of their folders' paths as it takes to tell them apart."""
    return unique_names([run_name(read_report(folder), folder) for folder in folders], folders)


def unique_names(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The names, with the ends of the folders' paths where several are equal.

    Raises:
        ValueError: a folder is given twice.
    """
    paths = [folder.resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"RUN: {path} was given twice")
    found = []
    for name, path in zip(names, paths, strict=True):
        twins = [other.parts for other, its in zip(paths, names, strict=True) if its == name and other != path]
        lengths = range(1, len(path.parts) + 1)
        length = next(n for n in lengths if all(path.parts[-n:] != other[-n:] for other in twins))
        found.append(f"{name} ({'/'.join(path.parts[-length:])})" if twins else name)
    return found


def run_name(report: dict[str, Any], folder: Path) -> str:
    """What a legend calls a run: the paper's row where it stands for one, else what it hides, else its folder."""
    if report.get("method"):
        return str(report["method"])
    hide = report["settings"]["hide"]
    names = {"none": "nothing hidden", "has": "Hide-and-Seek", "conv1": "HaS on conv1"}
    return names.get(hide["method"], hide["method"]) or folder.name


def shown_image(source: Any, sample_id: int, size: int | None = None) -> npt.NDArray[np.uint8]:
    """(H, W, 3) pixels of one image as stored, or warped to ``size`` x ``size``."""
    if hasattr(source, "image"):
        pixels = np.asarray(source.image(sample_id))
    else:
        from has_dali.pipelines.decode import decoded_images

        (batch,) = decoded_images([source.path(sample_id)], threads=1)
        pixels = np.array(batch[0])
    if size is not None:
        import cv2

        pixels = np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA))
    return pixels
