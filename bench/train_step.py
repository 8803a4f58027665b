"""What a training step costs beside its arithmetic: waiting for images, hiding, and the trainer around the loop.

Four ways take turns, each with its own network of the same recipe: the trainer (as ``has-dali train`` runs it), a bare
PyTorch loop on the same loader, that loop without Hide-and-Seek, and that loop on one batch held in memory. Each turn
is a segment of steps after a few that are thrown away, and its figure the mean step; on a GPU the device is waited for
at the ends of a segment only.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy

from has_dali.bench import timing
from has_dali.trainers.arguments import RunOptions
from has_dali.trainers.callbacks import Speed
from has_dali.trainers.data import ImageData
from has_dali.trainers.hiding import BatchHiding
from has_dali.trainers.models import Localiser
from has_dali.trainers.task import build_optimizer
from has_dali.trainers.tasks import task_kind
from has_dali.trainers.trainer_setup import CHECKPOINTS, quieten, run_callbacks, run_loggers

TRAINER, BARE, PLAIN, SYNTHETIC = "trainer", "bare", "plain", "synthetic"
LABELS = {
    TRAINER: "has-dali train",
    BARE: "bare PyTorch loop, same loader",
    PLAIN: "bare loop, without hiding",
    SYNTHETIC: "bare loop, one batch held in memory",
}
_DISCARDED = 4  # steps until a prefetch queue is in its steady state
_DISCARDED_SLOW = 1  # where a turn has few steps because each takes long: the queue is full after one
_FEW = 10


@dataclass(frozen=True)
class StepReport:
    """Seconds of a step, by way and round, and what the loop waited for the loader."""

    steps: dict[str, timing.Summary]
    durations: dict[str, list[float]]
    """Seconds of single steps over all rounds, where a step ends when the host says so: bare loops on a CPU."""
    input_stall: timing.Summary
    """Share of the trainer's time, 0 to 1, that was spent waiting for batches."""
    batch_size: int

    def ratio(self, numerator: str, denominator: str) -> timing.Summary:
        """Round-by-round ratio of two ways' steps."""
        return timing.ratio(self.steps[numerator], self.steps[denominator])


def measure(
    options: RunOptions,
    data: Path,
    rounds: int,
    steps: int,
    advance: Callable[..., None] = lambda steps=1, note="": None,
) -> StepReport:
    """Time the ways in turns.

    Args:
        options: the recipe that is timed.
        data: its data set.
        rounds: turns of each way.
        steps: steps of a turn that count.
        advance: called after every turn, with ``note=`` which way it was.
    """
    quieten()
    kind = task_kind(options.task)
    images = kind.open_data(data, options.settings)
    loader = options.settings.loader
    if loader.sizes:  # the smallest images are the hardest on a loader
        one_size = replace(loader, sizes=[], size=min(side for _, side in loader.sizes))
        options = replace(options, settings=replace(options.settings, loader=one_size))
    found: dict[str, list[float]] = {name: [] for name in LABELS}
    stalls: list[float] = []
    loops = {name: _Loop(options, images, name) for name in (BARE, PLAIN, SYNTHETIC)}
    with tempfile.TemporaryDirectory(prefix="has_dali_bench_") as folder:
        trainer = _TrainerTurns(options, images, steps, Path(folder))
        for turn in range(rounds):
            for name in timing.rotated(list(LABELS), turn):
                timing.settle()
                if name == TRAINER:
                    seconds, stall = trainer.turn()
                    stalls.append(stall)
                else:
                    seconds = loops[name].turn(steps)
                found[name].append(seconds)
                advance(note=LABELS[name])
    return StepReport(
        {name: timing.Summary(tuple(values)) for name, values in found.items()},
        {name: loop.durations for name, loop in loops.items()},
        timing.Summary(tuple(stalls)),
        options.settings.loader.batch_size,
    )


def discarded(steps: int) -> int:
    """Steps at the start of a turn of ``steps`` that do not count."""
    return _DISCARDED_SLOW if steps < _FEW else _DISCARDED


class _Loop:
    """A bare PyTorch training loop that is stopped and continued."""

    def __init__(self, options: RunOptions, images: Any, way: str) -> None:
        settings = options.settings
        if way == PLAIN:
            settings = replace(settings, hide=replace(settings.hide, method="none"))
        torch.manual_seed(options.seed)
        kind = task_kind(options.task)
        model = kind.build_model(settings, len(images.classes), options.seed)
        self.device = _device()
        memory_format = torch.channels_last if settings.model.channels_last else torch.contiguous_format
        self.model = model.to(self.device).to(memory_format=memory_format)
        self.takes_ids = isinstance(model, Localiser)
        self.hiding = BatchHiding(settings.hide, options.seed)
        self.hides_batches = settings.hide.method in ("pixel-dropout", "random-erasing")
        if settings.model.compile:
            self.model.compile()
        self.optimizer = build_optimizer(self.model, settings.optim)
        mixed = options.trainer["precision"] == "bf16-mixed"
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)
        loader = ImageData(images, settings, options.seed).train_loader(settings.loader.size, device=self.device)
        self.durations: list[float] = []
        self.batches: Iterator[Any] = timing.endless(loader)
        if way == SYNTHETIC:
            self.batches = _repeated(next(self.batches))

    def turn(self, steps: int) -> float:
        """Mean seconds of ``steps`` steps."""
        for _ in range(discarded(steps)):
            self._step()
        start = before = _now()
        for _ in range(steps):
            self._step()
            if self.device.type == "cpu":
                now = time.perf_counter()
                self.durations.append(now - before)
                before = now
        return (_now() - start) / steps

    def _step(self) -> None:
        batch = next(self.batches)
        images = batch["image"]
        if self.hides_batches:  # in place: a batch that comes again must stay whole
            images = self.hiding(images.clone(), batch["id"], 0, training=True)
        with self.autocast:
            logits = self.model(images, batch["id"]) if self.takes_ids else self.model(images)
            loss = cross_entropy(logits, batch["label"])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


class _Segment(pl.Callback):
    """Time from the end of one step to the end of another."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.start = self.end = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Look at the clock twice; in between the device is left to itself."""
        if trainer.global_step == self.first:
            self.start = _now()
        elif trainer.global_step == self.last:
            self.end = _now()


class _TrainerTurns:
    """The trainer as a run has it, one short fit per turn on the same network."""

    def __init__(self, options: RunOptions, images: Any, steps: int, folder: Path) -> None:
        self.options, self.steps, self.folder = options, steps, folder
        self.kind = task_kind(options.task)
        classes = len(images.classes)
        torch.manual_seed(options.seed)
        model = self.kind.build_model(options.settings, classes, options.seed)
        epochs = options.trainer["max_epochs"]
        self.task = self.kind.module(model, options.settings, classes, options.seed, epochs, name=self.kind.name)
        self.data = ImageData(images, options.settings, options.seed)

    def turn(self) -> tuple[float, float]:
        """Mean seconds of a step, and the share of the time that the loop waited."""
        first = discarded(self.steps)
        segment = _Segment(first, first + self.steps)
        callbacks = run_callbacks(self.folder / CHECKPOINTS, 0, 0.0, self.kind.monitored)
        kept = [one for one in callbacks if getattr(one, "monitor", None) is None]  # nothing is validated here
        trainer = pl.Trainer(
            max_steps=first + self.steps,
            limit_val_batches=0,
            precision=self.options.trainer["precision"],
            callbacks=[*kept, segment],
            logger=run_loggers(self.folder),
            default_root_dir=self.folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            devices=1,
        )
        trainer.fit(self.task, datamodule=self.data)
        speed = next(one for one in kept if isinstance(one, Speed))
        return (segment.end - segment.start) / self.steps, speed.input_stall


def _now() -> float:
    """The clock, when the device has done what it was given."""
    if _has_cuda():
        torch.cuda.synchronize()
    return time.perf_counter()


@functools.cache
def _has_cuda() -> bool:
    """Asked once: the question takes torch 0.4 ms, which would count as part of a turn."""
    return torch.cuda.is_available()


def _repeated(batch: Any) -> Iterator[Any]:
    while True:
        yield batch


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
