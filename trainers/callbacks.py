"""What watches a run: speed and input stall, a stop that loses nothing, and the progress bar that shows both."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import RichProgressBar

from has_dali.trainers.batches import TimedBatches
from has_dali.trainers.task import Batch, NonFiniteLossError

LAST = "last.ckpt"
_LOOK_EVERY = 50  # steps between looks at how much of a batch is hidden
_KEPT = ("images", "seconds", "waited", "hidden", "looks")
_AGREE_EVERY = 20  # steps between two agreements of several processes on whether to stop


class Stopped(BaseException):
    """A signal ended the run between two steps; its number is the argument. Lightning lets it through."""


class Speed(pl.Callback):
    """Images/s and the share of training time that was spent waiting for the loader; validation is not counted."""

    def __init__(self) -> None:
        self.images, self.seconds, self.waited = 0, 0.0, 0.0
        self.hidden, self.looks = 0.0, 0
        self._start: float | None = None
        self._batches: TimedBatches | None = None
        self._waited_before = 0.0

    @property
    def images_per_second(self) -> float:
        """Over all processes, from the end of the first step on."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def input_stall(self) -> float:
        """Share of the training time, 0 to 1."""
        return self.waited / self.seconds if self.seconds else 0.0

    @property
    def hidden_fraction(self) -> float:
        """Share of pixels that showed exactly the fill 0 in the batches looked at."""
        return self.hidden / self.looks if self.looks else 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the loader whose waiting is measured."""
        self._batches = getattr(trainer.datamodule, "timed", None)  # type: ignore[attr-defined]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Look at some batches."""
        if batch_idx % _LOOK_EVERY == 0:
            self.hidden += float((batch["image"] == 0).all(1).float().mean())
            self.looks += 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Add a step: from the end of the step before it to its own."""
        now, waited = time.perf_counter(), 0.0 if self._batches is None else self._batches.waited
        if self._start is not None:
            self.images += len(batch["label"]) * trainer.world_size
            self.seconds += now - self._start
            self.waited += waited - self._waited_before
        self._start, self._waited_before = now, waited

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on adding to."""
        return {name: getattr(self, name) for name in _KEPT}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on adding."""
        for name in _KEPT:
            setattr(self, name, state_dict[name])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock stands still during validation; the step after it is not counted."""
        self._start = None


class Stopping(pl.Callback):
    """Ctrl-C and SIGTERM end the run after the step under way, with a checkpoint; a second one ends it at once.

    A loss that is not finite leaves a checkpoint too, of the weights before that batch.

    Args:
        folder: where ``last.ckpt`` goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._asked: int | None = None
        self._before: dict[int, Any] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Stop where nothing is half done; all ranks together."""
        asked = self._asked is not None
        if trainer.world_size > 1:  # a stop must be everybody's; asking each other in every step would cost
            asked = batch_idx % _AGREE_EVERY == 0 and trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            trainer.save_checkpoint(self.folder / LAST)
            raise Stopped(self._asked or signal.SIGTERM)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save the state that met a non-finite loss."""
        if isinstance(exception, NonFiniteLossError) and trainer.world_size == 1:
            trainer.save_checkpoint(self.folder / "nonfinite.ckpt")

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked is not None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        self._asked = number


class History(pl.Callback):
    """Every epoch's training loss and validation metrics; kept in checkpoints."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add one epoch."""
        if trainer.sanity_checking:
            return
        row = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.epochs.append({"epoch": trainer.current_epoch + 1, **row})

    def state_dict(self) -> dict[str, Any]:
        """All epochs so far."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after them."""
        self.epochs = list(state_dict["epochs"])

    def curves(self) -> dict[str, list[list[float]]]:
        """Each metric as [[epoch, value], ...]."""
        names = sorted({name for row in self.epochs for name in row} - {"epoch"})
        return {name: [[row["epoch"], row[name]] for row in self.epochs if name in row] for name in names}


class ProgressBar(RichProgressBar):
    """Lightning's rich bar with images/s and input stall."""

    def __init__(self, speed: Speed) -> None:
        super().__init__(refresh_rate=5, leave=False)
        self._speed = speed

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        loss = getattr(pl_module, "last_loss", None)
        if loss is not None:
            metrics["loss"] = f"{loss:.3f}"
        metrics["images/s"] = f"{self._speed.images_per_second:,.0f}"
        metrics["stall"] = f"{self._speed.input_stall:.1%}"
        return metrics


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's or the machine's memory is used up."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
