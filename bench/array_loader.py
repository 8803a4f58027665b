"""Images in memory: ``python -m has_dali.bench.array_loader DATA [--json FILE] [--rounds N]``.

Measures ``image_loader`` on CIFAR (DATA: a folder of its python batches, or an ``.npz`` or ``.npy`` file of 32 x 32
images) against torch's DataLoader doing the same: pad by 4, crop, mirror, normalise, Hide-and-Seek with the paper's
CIFAR policy, batches of 128 float32 tensors. The DataLoader gets the data set as torchvision's CIFAR10 keeps it, in
memory, and as many workers as suit it best. Turns are interleaved; only the ratio means something on a shared machine.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from PIL import Image

from has_dali.bench import same_job, timing
from has_dali.bench.loader_peers import hide_patches, start_worker
from has_dali.cli import run_guarded
from has_dali.console import Parser, Terminal, check_writable, write_json
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores
from has_dali.pipelines.arrays import ArraySource
from has_dali.pipelines.data import open_data

SIZE, PADDING, BATCH_SIZE = 32, 4, 128
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # of the paper's CIFAR code, 0..1
LEAST = 10.0
OURS = "has_dali"
_CHECKED_BATCHES = 4
_UNSTABLE_IQR = 0.15

Opened = AbstractContextManager[Iterator[dict[str, torch.Tensor]]]


@contextmanager
def ours(source: ArraySource, policy: HideAndSeek, threads: int) -> Iterator[Iterator[dict[str, torch.Tensor]]]:
    """This project's loader."""
    from has_dali.pipelines import image_loader

    loader = image_loader(
        source,
        BATCH_SIZE,
        train=True,
        policy=policy,
        size=SIZE,
        crop="pad",
        padding=PADDING,
        device="cpu",
        threads=threads,
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
    )
    yield timing.endless(loader)


class PilArrays(torch.utils.data.Dataset):
    """Images in memory through Pillow and torchvision's transforms, as its CIFAR10 does, then ``hide_patches``."""

    def __init__(self, source: ArraySource, policy: HideAndSeek) -> None:
        from torchvision import transforms

        self.data = source.pixels.reshape(-1, SIZE, SIZE, 3)
        self.targets = source.labels.tolist()
        self.policy = policy
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(SIZE, PADDING),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        tensor = self.transform(Image.fromarray(self.data[index]))
        return hide_patches(tensor, self.policy), self.targets[index]


@contextmanager
def torchvision_loader(
    source: ArraySource, policy: HideAndSeek, workers: int
) -> Iterator[Iterator[dict[str, torch.Tensor]]]:
    """Torch's DataLoader; its workers stay from epoch to epoch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more workers than cores
        loader = torch.utils.data.DataLoader(
            PilArrays(source, policy),
            BATCH_SIZE,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            worker_init_fn=start_worker,
            persistent_workers=workers > 0,
        )
        batches = ({"image": image, "label": label} for image, label in timing.endless(loader))
        try:
            yield batches
        finally:
            batches.close()


@dataclass
class ArrayReport:
    """Rates of our loader and of the DataLoader with each number of workers."""

    images: int
    policy: HideAndSeek
    threads: int
    rates: dict[str, timing.Summary] = field(default_factory=dict)
    """Images per second."""
    checks: dict[str, same_job.Check] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """The fastest DataLoader."""
        return max((key for key in self.rates if key != OURS), key=lambda key: self.rates[key].median)

    @property
    def ratio(self) -> timing.Summary:
        """Our loader over the fastest DataLoader, round by round."""
        return timing.ratio(self.rates[OURS], self.rates[self.best])

    @property
    def unstable(self) -> bool:
        """The rounds of one of these two differ so much that something else must have used the cores."""
        return any(self.rates[key].iqr > _UNSTABLE_IQR * self.rates[key].median for key in (OURS, self.best))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "unstable": self.unstable,
            "job": f"pad {PADDING}, crop {SIZE}, mirror, normalise, hide; batches of {BATCH_SIZE} float32 NCHW tensors",
            "policy": self.policy.to_dict(),
            "images": self.images,
            "threads": self.threads,
            "images_per_second": {key: rate.to_dict() for key, rate in self.rates.items()},
            "best_dataloader": self.best,
            "ratio": {**self.ratio.to_dict(), "at_least": LEAST, "met": self.ratio.median >= LEAST},
            "same_job": {key: check.to_dict() for key, check in self.checks.items()},
        }


def measure(
    source: ArraySource,
    threads: int,
    rounds: int,
    window: timing.Window | None = None,
    advance: Callable[..., None] = lambda steps=1, note="": None,
) -> ArrayReport:
    """Check that all loaders do the job, then measure them in turns.

    Raises:
        RuntimeError: a loader does not do the job: its speed would mean nothing.
    """
    policy = HideAndSeek.preset("cifar")
    peers: dict[str, Callable[[], Opened]] = {OURS: partial(ours, source, policy, threads)}
    for workers in (0, threads, 2 * threads):
        peers[f"DataLoader, {workers} workers"] = partial(torchvision_loader, source, policy, workers)
    report = ArrayReport(len(source), policy, threads)
    values: dict[str, list[float]] = {key: [] for key in peers}
    with ExitStack() as stack:
        kept = stack.enter_context(peers[OURS]())  # idle between its turns; workers would go on
        for key, peer in peers.items():
            with _opened(peer, kept if key == OURS else None) as batches:
                _check(report, key, [next(batches) for _ in range(_CHECKED_BATCHES)])
        for turn in range(rounds):
            for key in timing.rotated(list(peers), turn):
                timing.settle()
                with _opened(peers[key], kept if key == OURS else None) as batches:
                    rate = timing.batches_per_second(batches, window or timing.Window(stride=2 * threads))
                values[key].append(rate * BATCH_SIZE)
                advance(note=key)
    report.rates = {key: timing.Summary(tuple(rates)) for key, rates in values.items()}
    return report


@contextmanager
def _opened(peer: Callable[[], Opened], kept: Iterator[Any] | None) -> Iterator[Iterator[dict[str, torch.Tensor]]]:
    if kept is not None:
        yield kept
        return
    with peer() as batches:
        yield batches


def _check(report: ArrayReport, key: str, seen: Sequence[dict[str, torch.Tensor]]) -> None:
    check = report.checks[key] = same_job.inspect(seen)
    reason = same_job.difference(check, report.policy, len(seen) * BATCH_SIZE, BATCH_SIZE, SIZE)
    reason = reason or same_job.disagreement(check, report.checks[OURS])
    if reason is not None:
        raise RuntimeError(f"{key} does not do the job: {reason}")


def open_images(data: str) -> ArraySource:
    """The images of DATA: at least as many as are checked, all 32 x 32."""
    source = open_data(data, train=True)
    if not isinstance(source, ArraySource):
        raise ValueError(f"DATA {data}: a folder of files; expected CIFAR's python batches, an .npz or an .npy file")
    if (source.shapes != SIZE).any() or len(source) < BATCH_SIZE:
        raise ValueError(f"DATA {data}: expected at least {BATCH_SIZE} images of {SIZE} x {SIZE}")
    return source


def show_report(terminal: Terminal, report: ArrayReport) -> None:
    """Print the rates and the ratio."""
    rows = [
        [key, f"{rate.median:,.0f}", f"{rate.iqr:,.0f}", "" if key == OURS else f"{_times(report, key):.1f}x"]
        for key, rate in report.rates.items()
    ]
    title = f"Images in memory: {report.images} of {SIZE} x {SIZE}, batch {BATCH_SIZE}, {report.threads} threads"
    terminal.table(title, ["loader", "images/s", "IQR", "has_dali is"], rows)
    met = "met" if report.ratio.median >= LEAST else "NOT met"
    terminal.say(f"{report.ratio.median:.1f} times {report.best}; at least {LEAST:.0f}: {met}")
    if report.unstable:
        terminal.say(f"unstable: an IQR is above {_UNSTABLE_IQR:.0%} of its median; repeat while the machine is idle")


def _times(report: ArrayReport, key: str) -> float:
    return timing.ratio(report.rates[OURS], report.rates[key]).median


def main(argv: Sequence[str]) -> int:
    """Measure, print, and say by the exit code whether the bar is met (0) or not (1)."""
    parser = Parser("python -m has_dali.bench.array_loader", "Our loader of images in memory against torch's.")
    parser.add_argument("data", metavar="DATA", help="CIFAR's python batches, or an .npz or .npy file")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each loader (7)")
    options = parser.parse_args(argv)
    if not 1 <= options.rounds <= 1024:
        raise ValueError(f"--rounds {options.rounds}: expected a whole number from 1 to 1024")
    if options.json is not None:
        check_writable(options.json)
    source = open_images(options.data)
    from has_dali.doctor import environment

    terminal, threads = Terminal(options.quiet), available_cores()
    with terminal.progress("measuring loaders", 4 * options.rounds) as advance:
        report = measure(source, threads, options.rounds, advance=advance)
    show_report(terminal, report)
    if options.json is not None:
        write_json(options.json, {"environment": environment(), "loaders": report.to_dict()})
    return 0 if report.ratio.median >= LEAST else 1


if __name__ == "__main__":
    sys.exit(run_guarded("has_dali.bench.array_loader", lambda: main(sys.argv[1:])))
