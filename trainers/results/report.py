"""What a run leaves behind as ``report.json``: what was trained on what, how, and what came out of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from has_dali.console import write_json
from has_dali.trainers.settings import Settings, config_hash

REPORT_VERSION = 1
REPORT = "report.json"


@dataclass
class Report:
    """One run. Accuracies are percentages under the names of the paper's tables."""

    task: str
    recipe: str
    seed: int
    settings: dict[str, Any]
    trainer: dict[str, Any]
    dataset: dict[str, Any]
    """name, train_images, val_images, classes, list_hash."""
    switches: dict[str, Any]
    """Readings of the paper that the run took: norm, block, pool, merge, box, fill."""
    table: str | None = None
    method: str | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """"best" and "last": name -> value."""
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    """Trivial predictors on the same images."""
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    hidden_fraction: float = 0.0
    wall_seconds: float = 0.0
    images_per_second: float = 0.0
    input_stall: float = 0.0
    """Share of the training time, 0 to 1, that was spent waiting for the loader."""
    first_batch_seconds: float = 0.0
    epochs: int = 0
    steps: int = 0
    parameters: int = 0
    loading: dict[str, Any] = field(default_factory=dict)
    """"train", "val": what the loaders of all processes handed out since the run was last started, and which samples
    they could not load (see ``ImageLoader.report``)."""
    started: str = ""
    argv: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As ``report.json`` has it."""
        values = asdict(self)
        return {"version": REPORT_VERSION, "config_hash": config_hash(self.configuration()), **values}

    def configuration(self) -> dict[str, Any]:
        """What two runs share that differ in their seeds only."""
        return {"task": self.task, "settings": self.settings, "trainer": self.trainer}

    def write(self, folder: Path) -> Path:
        """Write ``report.json`` into the run's folder, in one step."""
        path = folder / REPORT
        write_json(path, self.to_dict())
        return path


def describe(images: Any, fitted: Any) -> dict[str, Any]:
    """The data in a report: enough to tell whether two runs saw the same."""
    return {
        "name": images.name,
        "train_images": len(fitted.train),
        "val_images": len(images.val),
        "classes": len(images.classes),
        "list_hash": f"{fitted.train.fingerprint()}-{images.val.fingerprint()}",
    }


def switches_of(settings: Settings) -> dict[str, Any]:
    """The readings of the paper that a run takes (its ambiguities)."""
    model, hide = settings.model, settings.hide
    found: dict[str, Any] = {}
    if model.name.startswith("cifar_resnet"):
        found["block"] = model.block
    if model.name == "alexnet_gap":
        found["norm"] = model.norm or "lrn"
    if hide.method == "conv1":
        found["fill"] = hide.fill
    elif hide.method != "none":
        found["fill"] = hide.image_fill or "mean"
    if hide.method == "pixel-dropout":
        found |= {"rescale": hide.rescale, "per_channel": hide.per_channel, "at": hide.at}
    cam = getattr(settings, "cam", None)
    if cam is not None:
        found |= {"pool": model.pool, "merge": cam.merge, "box": cam.box, "crops": cam.crops}
    return found


def read_report(run: Path) -> dict[str, Any]:
    """``report.json`` of a run's folder, or the file itself.

    Raises:
        OSError: there is none.
        ValueError: it is no report of this version.
    """
    path = run / REPORT if run.is_dir() else run
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such report; give the folder of a finished run")
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); run the training again") from None
    if not isinstance(content, dict) or content.get("version") != REPORT_VERSION:
        raise ValueError(f"{path}: expected a report of version {REPORT_VERSION}; run the training again")
    return content
