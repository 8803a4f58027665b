"""Evaluation over several ranks: padding (id -1) reaches no metric, whatever the world size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from has_dali.trainers import localising
from has_dali.trainers.classification import accuracies, class_predictions
from has_dali.trainers.data import ALONE, Share, eval_loader
from has_dali.trainers.datasets import open_boxed
from has_dali.trainers.evaluation import eval_batches
from has_dali.trainers.saved import task_from_checkpoint

COUNT = 30  # in batches of 8 per rank: with these numbers of ranks the last one has padding
WORLDS = (4, 7, 8)


@pytest.fixture(scope="module", autouse=True)
def on_one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def task(runs: tuple[str, str]) -> Any:
    return task_from_checkpoint(Path(runs[1]) / "checkpoints" / "last.ckpt", "localisation", 3).eval()


@pytest.fixture(scope="module")
def images(squares_folder: Path) -> Any:
    return open_boxed(squares_folder)


def _shares(world: int) -> list[Share]:
    return [Share(rank, world) for rank in range(world)]


@pytest.mark.parametrize("world", WORLDS)
def test_there_is_padding_and_evaluation_leaves_it_out(task: Any, images: Any, world: int) -> None:
    raw = [list(eval_loader(images.val, task.settings, "cpu", share)) for share in _shares(world)]
    assert len({len(part) for part in raw}) == 1
    padded = torch.cat([batch["id"] for part in raw for batch in part])
    assert (padded == -1).any()
    kept = [batch for share in _shares(world) for batch in eval_batches(task, images.val, share)]
    assert sorted(torch.cat([batch["id"] for batch in kept]).tolist()) == list(range(COUNT))
    for batch in kept:
        assert torch.equal(batch["label"], torch.from_numpy(images.val.labels[batch["id"].numpy()]))
        assert len({len(values) for values in batch.values()}) == 1 and len(batch["id"])


@pytest.mark.parametrize("world", WORLDS)
def test_predictions_of_all_ranks_are_those_of_one(task: Any, images: Any, world: int) -> None:
    with torch.inference_mode():
        whole = class_predictions(task, images.val, ALONE)
        parts = [class_predictions(task, images.val, share) for share in _shares(world)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    order = np.argsort(joined["id"])
    assert joined["id"][order].tolist() == whole["id"].tolist() == list(range(COUNT))
    for name in ("label", "predicted", "label_rank"):
        assert np.array_equal(joined[name][order], whole[name])
    assert accuracies(joined) == pytest.approx(accuracies(whole))


@pytest.mark.parametrize("world", WORLDS)
def test_boxes_of_all_ranks_are_those_of_one(
    task: Any, images: Any, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.inference_mode():
        whole, whole_spread = localising.locate(task, images, 0.5, ALONE)
        whole_boxes = localising.max_box_acc(task, images, ALONE)
        monkeypatch.setattr(localising, "of_all_ranks", lambda meter, share: meter)
        parts = [localising.locate(task, images, 0.5, share) for share in _shares(world)]
        boxes = [localising.max_box_acc(task, images, share) for share in _shares(world)]
    for meter in ([part[0] for part in parts], [part[1] for part in parts], boxes):
        for other in meter[1:]:
            meter[0].merge(other.state())
    assert parts[0][0].compute() == whole.compute()
    assert parts[0][1].compute() == pytest.approx(whole_spread.compute())
    assert boxes[0].compute() == whole_boxes.compute()


@pytest.mark.parametrize("world", WORLDS)
def test_validation_while_training(task: Any, images: Any, world: int) -> None:
    """The metrics of an epoch's validation, added up over the ranks' padded batches."""

    def found(shares: list[Share]) -> dict[str, float]:
        metrics = {"top1": task.top1, "top5": task.top5, "val_loss": task.val_loss}
        with torch.inference_mode():
            for share in shares:
                for number, batch in enumerate(eval_loader(images.val, task.settings, "cpu", share)):
                    task.validation_step(batch, number)
        values = {name: float(metric.compute()) for name, metric in metrics.items()}
        for metric in metrics.values():
            metric.reset()
        return values

    assert found(_shares(world)) == pytest.approx(found([ALONE]))
