"""Loader images/s of all peers on one set of files, in turns, and the ratios that matter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from has_dali.bench import same_job, timing
from has_dali.bench.loader_peers import CEILING, DALI, OURS, OURS_PLAIN, PEERS, TORCHVISION, Job, Peer
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.sources import FileSource

BATCH_SIZE = 64
ROUNDS = 5
_CHECKED_BATCHES = 4
# Files are listed again until an epoch has this many, for all peers alike: a small set would otherwise measure
# the ends of epochs, which a real training set hardly has.
_EPOCH_IMAGES = 8192
_MOST_FILES = 4096
_UNSTABLE_IQR = 0.15
CONDITIONS = (
    "page cache warm for all; peers measured in turns; median of the rounds; float32 NCHW torch tensors delivered"
)


@dataclass(frozen=True)
class Bar:
    """What our loader with HaS must reach, as a multiple of a peer."""

    what: str
    peer: str
    least: float
    aim: float


BARS = (
    Bar('with HaS vs the ceiling "decode the crop box and nothing else"', CEILING, 0.85, 0.95),
    Bar("with HaS vs DALI's own operators without HaS", DALI, 1.5, 1.8),
    Bar("with HaS vs the same loader without", OURS_PLAIN, 1.0, 1.1),
    Bar("with HaS vs torchvision DataLoader with Python HaS", TORCHVISION, 4.0, 5.0),
)


@dataclass
class LoaderReport:
    """Rates of the peers that did the job."""

    job: Job
    images: int
    """Different files; the job lists them several times."""
    rates: dict[str, timing.Summary] = field(default_factory=dict)
    """Images per second, by peer."""
    first_batch_seconds: dict[str, float] = field(default_factory=dict)
    checks: dict[str, same_job.Check] = field(default_factory=dict)
    void: dict[str, str] = field(default_factory=dict)
    """Why a peer's speed does not count."""

    def ratio(self, peer: str) -> timing.Summary | None:
        """Our loader with HaS over a peer, or None when one of them is void."""
        if OURS not in self.rates or peer not in self.rates:
            return None
        return timing.ratio(self.rates[OURS], self.rates[peer])

    def headroom(self) -> timing.Summary | None:
        """The decode ceiling over torchvision's loader: the most that our ratio to torchvision can be."""
        if CEILING not in self.rates or TORCHVISION not in self.rates:
            return None
        return timing.ratio(self.rates[CEILING], self.rates[TORCHVISION])

    @property
    def unstable(self) -> bool:
        """Some peer's rounds differ so much that something else must have used the cores."""
        return any(rate.iqr > _UNSTABLE_IQR * rate.median for rate in self.rates.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        limit = self.headroom()
        return {
            "unstable": self.unstable,
            "conditions": CONDITIONS,
            "policy": self.job.policy.to_dict(),
            "batch_size": self.job.batch_size,
            "threads": self.job.threads,
            "size": self.job.size,
            "images": self.images,
            "images_per_second": {key: rate.to_dict() for key, rate in self.rates.items()},
            "first_batch_seconds": self.first_batch_seconds,
            "ceiling_over_torchvision": None if limit is None else limit.to_dict(),
            "ratios": [_bar_record(bar, self.ratio(bar.peer)) for bar in BARS],
            "same_job": {key: check.to_dict() for key, check in self.checks.items()},
            "void": self.void,
        }


def some_of(source: FileSource, most: int = _MOST_FILES) -> FileSource:
    """``source``, or ``most`` files spread evenly over it: what is measured must fit the page cache."""
    if len(source) <= most:
        return source
    ids = [i * len(source) // most for i in range(most)]
    return FileSource([source.path(i) for i in ids], source.labels[ids], source.classes)


def job_for(source: FileSource, policy: HideAndSeek, threads: int, batch_size: int = BATCH_SIZE) -> Job:
    """The job on all files of a source."""
    repeats = -(-_EPOCH_IMAGES // len(source))
    files = tuple(source.path(sample_id) for sample_id in range(len(source)))
    labels = tuple(int(label) for label in source.labels)
    return Job(files * repeats, labels * repeats, policy, batch_size, threads)


def steps(rounds: int) -> int:
    """How often ``measure`` calls ``advance``."""
    return (rounds + 1) * len(PEERS)


def measure(
    job: Job,
    images: int,
    rounds: int = ROUNDS,
    window: timing.Window | None = None,
    advance: Callable[..., None] = lambda steps=1, note="": None,
    peers: Mapping[str, Peer] = PEERS,
) -> LoaderReport:
    """Check that all peers do the job, then measure them in turns.

    Args:
        job: what all peers do.
        images: how many different files the job has.
        rounds: measured turns per peer.
        window: length of a turn.
        advance: called after each turn with ``note=`` what comes next.
        peers: who is measured.
    """
    window = window or timing.Window(stride=job.threads)
    report = LoaderReport(job, images)
    for file in set(job.files):  # warm the page cache for all
        with open(file, "rb") as content:
            content.read()
    with ExitStack() as stack:
        opened = _open_and_check(report, peers, stack, advance)
        values: dict[str, list[float]] = {key: [] for key in opened}
        for turn in range(rounds):
            for key in timing.rotated(list(opened), turn):
                timing.settle()
                with ExitStack() as own:
                    batches = opened[key] or own.enter_context(peers[key].open(job))
                    values[key].append(timing.batches_per_second(batches, window) * job.batch_size)
                advance(note=peers[key].label)
    report.rates = {key: timing.Summary(tuple(values[key])) for key in peers if values.get(key)}
    return report


def _open_and_check(
    report: LoaderReport, peers: Mapping[str, Peer], stack: ExitStack, advance: Callable[..., None]
) -> dict[str, Iterator[Any] | None]:
    """The peers that do the job; with their iterators where they stay open."""
    opened: dict[str, Iterator[Any] | None] = {}
    for key, peer in peers.items():
        with ExitStack() as own:
            start = time.perf_counter()
            batches = own.enter_context(peer.open(report.job))
            first = next(batches)
            report.first_batch_seconds[key] = time.perf_counter() - start
            seen = [first, *(next(batches) for _ in range(_CHECKED_BATCHES - 1))]
            if peer.delivers:
                reason = _judge(report, key, peer, seen)
                if reason is not None:
                    report.void[key] = reason
                    continue
            opened[key] = batches if peer.stays_open else None
            if peer.stays_open:
                stack.push(own.pop_all())
        advance(note=peer.label)
    return opened


def _judge(report: LoaderReport, key: str, peer: Peer, seen: Sequence[dict[str, Any]]) -> str | None:
    check = report.checks[key] = same_job.inspect(seen)
    job = report.job
    policy = job.policy if peer.hides else None
    reason = same_job.difference(check, policy, len(seen) * job.batch_size, job.batch_size, job.size)
    return reason or same_job.disagreement(check, report.checks.get(OURS, check))


def show_report(terminal: Terminal, report: LoaderReport) -> None:
    """Print the rates and the ratios."""
    rows = []
    for key, rate in sorted(report.rates.items(), key=lambda item: item[1].median):
        relation = report.ratio(key)
        ratio = "" if relation is None or key == OURS else f"{relation.median:.2f}x"
        rows.append([PEERS[key].label if key in PEERS else key, f"{rate.median:,.0f}", f"{rate.iqr:,.0f}", ratio])
    rows += [[PEERS[key].label, "void", "", reason] for key, reason in report.void.items()]
    title = f"Loader speed: batch {report.job.batch_size}, {report.job.threads} threads or workers"
    terminal.table(title, ["loader", "images/s", "IQR", "has_dali with HaS is"], rows, CONDITIONS)
    bars = [_bar_row(report, bar) for bar in BARS]
    terminal.table("Bars", ["has_dali", "ratio", "IQR", "bar", "aim", "met"], bars, _limit_note(report))
    if report.unstable:
        terminal.say(f"unstable: an IQR is above {_UNSTABLE_IQR:.0%} of its median; repeat while the machine is idle")


def _limit_note(report: LoaderReport) -> str:
    """What no loader with this decoder can exceed, in the unit of the bar that depends on another decoder."""
    limit = report.headroom()
    if limit is None:
        return ""
    return f"the decode ceiling itself is {limit.median:.1f}x torchvision here: no loader with this decoder gets above"


def _bar_row(report: LoaderReport, bar: Bar) -> list[str]:
    relation = report.ratio(bar.peer)
    limits = [f"{bar.least:.2f}", f"{bar.aim:.2f}"]
    if relation is None:
        return [bar.what, "not measured", "", *limits, "?"]
    return [bar.what, f"{relation.median:.2f}", f"{relation.iqr:.2f}", *limits, _verdict(bar, relation.median)]


def _verdict(bar: Bar, value: float) -> str:
    return "aim" if value >= bar.aim else "yes" if value >= bar.least else "NO"


def _bar_record(bar: Bar, relation: timing.Summary | None) -> dict[str, Any]:
    record: dict[str, Any] = {"what": bar.what, "peer": bar.peer, "at_least": bar.least, "aim": bar.aim}
    if relation is not None:
        record |= {"ratio": relation.to_dict(), "met": relation.median >= bar.least}
    return record
