"""Image loaders as contenders of the harness: each with the number of threads or workers that suits it best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from has_dali.bench import timing
from has_dali.bench.harness import Contender, Step, silent
from has_dali.bench.peers.loader_job import Job, LoaderPeer
from has_dali.bench.same_job import Judge

# One thread per core stays unless another number is clearly faster: trials are short, and noise would choose.
_CLEARLY = 1.03
_TRIAL = timing.Window(seconds=0.5, batches=4, discarded=4)


def contender(
    peer: LoaderPeer, job: Job, judge: Judge | None = None, extra: Mapping[str, Any] | None = None
) -> Contender:
    """A loader that does ``job``, judged if it delivers batches."""
    check = None if judge is None or not peer.delivers else partial(judge.verdict, hides=peer.hides)
    job = replace(job, threads=peer.threads(job.threads))
    return Contender(
        peer.key,
        peer.label,
        partial(steps, partial(peer.open, job)),
        check,
        peer.requires,
        peer.stays_open,
        job.batch_size,
        peer.kind,
        {"threads": job.threads, "hides": peer.hides, **(extra or {})},
    )


@contextmanager
def steps(opened: Callable[[], AbstractContextManager[Iterator[Any]]]) -> Iterator[Step]:
    """``open`` of a contender whose step takes the next batch of what ``opened`` gives."""
    with opened() as batches:
        yield partial(next, batches)


def contenders(
    peers: Sequence[LoaderPeer],
    job: Job,
    counts: Sequence[int],
    judge: Judge,
    advance: Callable[..., None] = silent,
) -> list[Contender]:
    """Contenders with the best of ``counts`` threads each.

    Args:
        counts: threads or workers to try; ``job.threads`` is the one that wins a tie.
        advance: called once per peer, with ``note=`` its label.
    """
    best: dict[str, int] = {}
    made = []
    for peer in peers:
        extra: dict[str, Any] = {}
        if len(counts) > 1 and not peer.threads_of:
            extra["swept"] = rates = trials(peer, job, counts)
            best[peer.key] = _choice(rates, job.threads)
        threads = best.get(peer.threads_of or peer.key, job.threads)
        made.append(contender(peer, replace(job, threads=threads), judge, extra))
        advance(note=peer.label)
    return made


def trials(peer: LoaderPeer, job: Job, counts: Sequence[int]) -> dict[int, float]:
    """Images per second with each number of threads; empty for a peer that does not run, which its row will say."""
    rates: dict[int, float] = {}
    for count in counts:
        one = contender(peer, replace(job, threads=count))
        try:
            with one.open() as step:
                durations = timing.segment(step, replace(_TRIAL, stride=max(_TRIAL.stride, count)))
        except Exception:  # missing or broken: the harness opens it again and reports the reason
            return {}
        timing.settle()
        rates[count] = job.batch_size * len(durations) / sum(durations)
    return rates


def _choice(rates: Mapping[int, float], usual: int) -> int:
    if not rates:
        return usual
    best = max(rates, key=lambda count: rates[count])
    return usual if rates[best] < _CLEARLY * rates.get(usual, 0.0) else best
