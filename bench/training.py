"""A short training run on real batches: does it learn, how fast, and does the model ever wait for images?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from has_dali.bench import timing
from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.loader import image_loader
from has_dali.pipelines.sources import FileSource

# Small images and batches: a demonstration of the loop on two cores, not a recipe.
_SIZE, _BATCH_SIZE, _LEARNING_RATE = 128, 32, 0.02
_SHOWN_STEPS = 5


@dataclass(frozen=True)
class TrainingReport:
    """What a short run gave."""

    steps: int
    first_loss: float
    """Mean of the first steps."""
    last_loss: float
    """Mean of the last steps."""
    chance_loss: float
    """Loss of guessing all classes with equal probability."""
    images_per_second: float
    input_stall: float
    """Share of the time, from the second batch on, that the loop waited for the loader."""
    losses: list[float]
    batch_size: int = _BATCH_SIZE
    size: int = _SIZE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def train_resnet18(
    source: FileSource,
    policy: HideAndSeek,
    threads: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    steps: int = 40,
    max_seconds: float = 45.0,
    advance: Callable[..., None] = lambda steps=1, note="": None,
) -> TrainingReport:
    """Train ResNet-18 from scratch with Hide-and-Seek until ``steps`` or ``max_seconds`` are used up.

    Images are normalised with ``mean`` and ``std``, 0..255; hidden pixels get the mean, which is 0 to the model.
    """
    from torchvision.models import resnet18

    torch.manual_seed(0)
    classes = max(int(source.labels.max()) + 1, 2)
    model = resnet18(num_classes=classes)
    optimizer = torch.optim.SGD(model.parameters(), _LEARNING_RATE, momentum=0.9, weight_decay=1e-4)
    batch_size = min(_BATCH_SIZE, len(source))
    loader = image_loader(
        source, batch_size, train=True, policy=policy, size=_SIZE, device="cpu", threads=threads, mean=mean, std=std
    )
    batches = timing.endless(loader)
    losses = [_step(model, optimizer, next(batches))]  # the first batch starts the pipeline: not counted
    start, waited = time.perf_counter(), 0.0
    while len(losses) < steps and (len(losses) < 2 or time.perf_counter() - start < max_seconds):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        losses.append(_step(model, optimizer, batch))
        advance(note=f"loss {losses[-1]:.2f}")
    elapsed = time.perf_counter() - start
    return TrainingReport(
        len(losses),
        statistics.fmean(losses[:_SHOWN_STEPS]),
        statistics.fmean(losses[-_SHOWN_STEPS:]),
        float(torch.log(torch.tensor(float(classes)))),
        (len(losses) - 1) * batch_size / elapsed,
        waited / elapsed,
        losses,
        batch_size,
    )


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> float:
    loss = cross_entropy(model(batch["image"]), batch["label"])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach())
