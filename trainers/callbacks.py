"""What watches a run: speed and input stall, a stop that loses nothing, and the progress bar that shows both."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar

from has_dali.console import atomic_file
from has_dali.kernels.contract import normalization
from has_dali.trainers.batches import TimedBatches
from has_dali.trainers.settings import Settings
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
        """Share of pixels that showed exactly the fill in the batches looked at; what conv1 hides is not among them."""
        return self.hidden / self.looks if self.looks else 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the loader whose waiting is measured."""
        self._batches = getattr(trainer.datamodule, "timed", None)  # type: ignore[attr-defined]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Add a step: from the end of the step before it to its own. Look at some batches as the network saw them."""
        if batch_idx % _LOOK_EVERY == 0:
            self.hidden += _hidden(batch["image"], pl_module.settings)  # type: ignore[arg-type]
            self.looks += 1
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

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals, from Lightning too: its own SIGTERM ends a run wherever it is, and saves nothing."""
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
        """Stop where nothing is half done; all ranks together, which must not ask each other in every step."""
        if trainer.is_last_batch:
            return  # validation comes first: a run resumed from here would go without it
        steps, rest = divmod(batch_idx + 1, trainer.accumulate_grad_batches)
        if rest:
            return  # gradients that wait for their step are not in a checkpoint
        if trainer.world_size == 1 or steps % _AGREE_EVERY == 0:
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after the validation."""
        self._stop_if_asked(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save the state that met a non-finite loss: the rank that met it, without waiting for the others."""
        if isinstance(exception, NonFiniteLossError):
            name = "nonfinite.ckpt" if trainer.world_size == 1 else f"nonfinite-rank{trainer.global_rank}.ckpt"
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.folder / name) as file:
                torch.save(trainer._checkpoint_connector.dump_checkpoint(), file)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self._asked is not None, all=False):
            trainer.save_checkpoint(self.folder / LAST)
            raise Stopped(self._asked or signal.SIGTERM)

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked is not None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        self._asked = number


class WithinEpoch(ModelCheckpoint):
    """Checkpoints between the batches of an epoch; the last batch has that of the epoch's end, after validation."""

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """As ``ModelCheckpoint``, but for the last batch."""
        if not trainer.is_last_batch:
            super().on_train_batch_end(trainer, *arguments)


class History(pl.Callback):
    """Every epoch's training loss and validation metrics; kept in checkpoints."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.losses: list[list[float]] = []
        """[epoch, mean loss of its training batches], also in the logs."""
        self._sum, self._count = 0.0, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Add a loss."""
        self._sum, self._count = self._sum + pl_module.last_loss, self._count + 1  # type: ignore[operator]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the epoch's loss: of all processes, as each has as many batches."""
        total = torch.tensor([self._sum, self._count], dtype=torch.float64, device=pl_module.device)
        loss_sum, count = trainer.strategy.reduce(total, reduce_op="sum").tolist()
        self._sum, self._count = 0.0, 0
        if count:
            self.losses.append([trainer.current_epoch + 1, loss_sum / count])
            for logger in trainer.loggers:
                logger.log_metrics({"train_loss": loss_sum / count}, trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add one epoch."""
        if trainer.sanity_checking:
            return
        row = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.epochs.append({"epoch": trainer.current_epoch + 1, **row})

    def state_dict(self) -> dict[str, Any]:
        """All epochs so far, and the part of one."""
        return {"epochs": self.epochs, "losses": self.losses, "sum": self._sum, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after them."""
        self.epochs, self.losses = list(state_dict["epochs"]), list(state_dict["losses"])
        self._sum, self._count = state_dict["sum"], state_dict["count"]

    def curves(self) -> dict[str, list[list[float]]]:
        """Each metric as [[epoch, value], ...]."""
        names = sorted({name for row in self.epochs for name in row} - {"epoch"})
        found = {name: [[row["epoch"], row[name]] for row in self.epochs if name in row] for name in names}
        return {**found, "train_loss": self.losses}


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


def _hidden(images: torch.Tensor, settings: Settings) -> float:
    """Share of the pixels of (N, 3, H, W) that show the fill."""
    fill = settings.hide.image_fill if settings.hide.method == "has" else None
    values = normalization(settings.loader.mean, settings.loader.std, fill, 3)[2]
    return float((images == torch.from_numpy(values).to(images).view(1, 3, 1, 1)).all(1).float().mean())


_NO_MEMORY = ("can't allocate memory", "out of memory", "cudaErrorMemoryAllocation", "ALLOC_FAILED")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's or the machine's memory is used up."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)
