"""Image classification (paper, sections 4.2.4 and 4.6): the LightningModule."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from has_dali.trainers.data import Share
from has_dali.trainers.evaluation import Evaluation, eval_batches, gathered
from has_dali.trainers.models import Localiser
from has_dali.trainers.settings import Settings
from has_dali.trainers.task import Batch, Task


class ClassificationTask(Task):
    """Cross entropy on class labels; top-1 and top-5 in percent.

    Args:
        model: images (N, 3, H, W) to logits (N, classes).
        settings: all knobs.
        classes: number of classes.
        seed: see ``Task``.
        epochs: see ``Task``.
        recipe: see ``Task``.
        name: the task's name.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        classes: int,
        seed: int,
        epochs: int,
        recipe: str | None = None,
        name: str = "classification",
    ) -> None:
        super().__init__(name, model, settings, seed, epochs, recipe)
        self.classes = classes
        self.takes_ids = isinstance(model, Localiser)  # its maps may be hidden, keyed by sample
        self.criterion = nn.CrossEntropyLoss(label_smoothing=settings.optim.label_smoothing)
        options: dict[str, Any] = {"num_classes": classes, "average": "micro"}
        self.val_loss = MeanMetric()  # metrics, unlike logged values, may get no batch at all on a rank
        self.top1 = MulticlassAccuracy(top_k=1, **options)
        self.top5 = MulticlassAccuracy(top_k=min(5, classes), **options)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) as in evaluation."""
        return self.model(images)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Cross entropy of a training batch."""
        keys = batch.get("key", batch["id"])
        images = self.hiding(batch["image"], keys, self.current_epoch, training=True)
        logits = self.model(images, keys, self.current_epoch) if self.takes_ids else self.model(images)
        return self.criterion(logits, batch["label"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the accuracies; padding (id -1) does not count."""
        images = self.hiding(batch["image"], batch["id"], self.current_epoch, training=False)
        logits, labels = self.model(images).float(), batch["label"]
        real = batch["id"] >= 0
        logits, labels = logits[real], labels[real]
        self.top1.update(logits, labels)
        self.top5.update(logits, labels)
        if len(labels):
            self.val_loss.update(nn.functional.cross_entropy(logits, labels), len(labels))

    def on_validation_epoch_end(self) -> None:
        """Log what was added up."""
        self.log("val_loss", self.val_loss.compute())
        self.log("top1", 100 * self.top1.compute(), prog_bar=True)
        self.log("top5", 100 * self.top5.compute())
        for metric in (self.val_loss, self.top1, self.top5):
            metric.reset()

    def evaluate(self, images: Any, held_out: Any, share: Share) -> Evaluation:
        """Top-1, top-5 and loss on the validation images."""
        found = gathered(class_predictions(self, images.val, share), share)
        predictions = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
        order = np.argsort(predictions["id"])
        return Evaluation(accuracies(predictions), per_image={k: v[order] for k, v in predictions.items()})


def class_predictions(task: ClassificationTask, source: Any, share: Share) -> dict[str, np.ndarray]:
    """This rank's share of a source, image by image: id, label, predicted class, rank of the label, loss."""
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in ("id", "label", "predicted", "label_rank", "loss")}
    for batch in eval_batches(task, source, share):
        logits = task(task.hiding(batch["image"], batch["id"], 0, training=False)).float()
        of_label = logits.gather(1, batch["label"][:, None])
        rows["id"].append(batch["id"])
        rows["label"].append(batch["label"])
        rows["predicted"].append(logits.argmax(1))
        above = (logits >= of_label).sum(1) - 1
        rows["label_rank"].append(torch.where(logits.isfinite().all(1), above, task.classes))  # NaN is never right
        rows["loss"].append(nn.functional.cross_entropy(logits, batch["label"], reduction="none"))
    return (
        {name: torch.cat(parts).cpu().numpy() for name, parts in rows.items()}
        if rows["id"]
        else {name: np.empty(0, np.float32 if name == "loss" else np.int64) for name in rows}
    )


def accuracies(predictions: dict[str, np.ndarray]) -> dict[str, float]:
    """Top-1 and top-5 in percent and the mean loss, from ``class_predictions``."""
    return {
        "top1": 100 * float((predictions["predicted"] == predictions["label"]).mean()),
        "top5": 100 * float((predictions["label_rank"] < 5).mean()),
        "loss": float(predictions["loss"].mean()),
    }
