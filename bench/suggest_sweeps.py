"""The sweeps behind ``has-dali bench --suggest``: one setting of ``image_loader`` after the other, in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from has_dali.bench import rendering, timing
from has_dali.bench.harness import Contender, Step, measure_table
from has_dali.bench.results import Table
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores

CLOSE = 0.97
"""Share of the fastest setting's speed that a smaller one must reach to be recommended."""
USUAL_BATCH, USUAL_PREFETCH = 64, 2
PACKED_IMAGES = 256
_MANY_CORES = 8  # up to here every number of threads is tried
_CEILING, _HIGH_SHARE = "decode-ceiling", 0.85
_WORTH = 1.15  # packing costs disk and an hour: it must give more than this
_SERIES = "image_loader with Hide-and-Seek"


@dataclass(frozen=True)
class Setting:
    """What ``image_loader`` gets."""

    threads: int
    batch_size: int = USUAL_BATCH
    prefetch: int = USUAL_PREFETCH
    device: str = "cpu"

    def with_(self, name: str, value: int) -> Setting:
        """A copy with another number."""
        return Setting(**{**vars(self), name: value})


def thread_counts(cores: int) -> list[int]:
    """What is tried: every number up to one more than the cores; on a large machine powers of two, and the cores."""
    if cores <= _MANY_CORES:
        return list(range(1, cores + 2))
    return sorted({*(2**i for i in range(cores.bit_length())), cores, cores + 1})


def smallest_close(table: Table) -> tuple[float, float, float]:
    """Place and figure of the first row, in the order of the places, that the fastest one does not clearly beat.

    Also gives the fastest row's figure.
    """
    found = sorted(
        ((float(row.extra["x"]), row.key, row.value) for row in table.rows if row.value and "x" in row.extra),
        key=lambda one: one[0],
    )
    _, fastest, most = max(found, key=lambda one: one[2].median)
    for place, key, value in found:
        if not clearly_beats(table, fastest, key):
            return place, value.median, most.median
    raise AssertionError("no row beats itself")


def clearly_beats(table: Table, fast: str, slow: str) -> bool:
    """Whether one row is faster than another by more than ``CLOSE`` allows in three of four rounds.

    The ratio is taken round by round: a slow spell of the machine, which both rows met, decides nothing.
    """
    lead = table.speed_ratio(fast, slow)
    return lead is not None and lead.quartiles[0] > 1 / CLOSE


class Sweeps:
    """One sweep after the other over the same images; ``tables`` holds what was measured."""

    def __init__(
        self, source: Any, size: int, rounds: int, window: timing.Window, advance: Callable[..., None]
    ) -> None:
        from has_dali.bench.peers.loader_job import EPOCH_IMAGES, Job, job_for, some_of, warm_page_cache
        from has_dali.pipelines.sources import FileSource

        self.size, self.rounds, self.window, self.advance = size, rounds, window, advance
        self.tables: list[Table] = []
        self.job: Job | None = None
        self.files: Any = source
        if isinstance(source, FileSource):
            self.job = job_for(some_of(source), HideAndSeek(), available_cores(), USUAL_BATCH, size)
            warm_page_cache(self.job)
            source = FileSource(self.job.files, list(self.job.labels))
        self.source, self.most = source, min(len(source), EPOCH_IMAGES)

    def over(self, name: str, values: Sequence[int], best: Setting) -> tuple[Setting, str]:
        """``best`` with the best of ``values`` for its field ``name``, and the reason."""
        contenders = [self._contender(f"{name}-{n}", best.with_(name, n), n) for n in values]
        if name == "threads" and self.job is not None and best.device == "cpu":
            contenders.append(self._ceiling())
        words = name.replace("_", " ")
        parameters = {"x": words, "batch_size": best.batch_size, "threads": best.threads, "prefetch": best.prefetch}
        parameters.pop(name)
        window = self.window
        if name == "prefetch":  # batches that were made while others had their turn would count for deep queues
            window = replace(window, discarded=max(window.discarded, 2 * max(values) + 2))
        table = self._measure(name, f"image_loader over {words}", contenders, parameters, window)
        chosen, speed, fastest = smallest_close(table)
        others = ", ".join(
            f"{rendering.figure(row.value.median)} with {row.extra['x']}"
            for row in table.rows
            if row.value and row.extra.get("x") not in (None, chosen)
        )
        close = ", the fastest is no faster beyond noise" if speed < fastest else ""
        reason = f"{words} {chosen:.0f}: {rendering.figure(speed)} images/s{close}" + (f"; {others}" if others else "")
        return best.with_(name, int(chosen)), reason

    def device(self) -> tuple[str, str]:
        """The device to use, "cpu" or "cuda", and the reason; the GPU, which trains as well, must be clearly faster."""
        from has_dali.pipelines.device import choose_device

        found, reason = choose_device("auto")
        if found.type == "cpu":
            return "cpu", f"device cpu: {reason.removeprefix('auto: ')}"
        settings = [Setting(available_cores(), min(USUAL_BATCH, self.most), device=name) for name in ("cpu", "cuda")]
        contenders = [self._contender(one.device, one, None, label=one.device) for one in settings]
        table = self._measure("device", "image_loader on the CPU and on the GPU", contenders, {})
        speeds = {row.key: row.value.median for row in table.rows if row.value}
        best = "cuda" if clearly_beats(table, "cuda", "cpu") else "cpu"
        close = "; the GPU is no faster beyond noise" if best == "cpu" and speeds["cuda"] > speeds["cpu"] else ""
        return best, f"device {best}: " + ", ".join(f"{name} {speeds[name]:,.0f} images/s" for name in speeds) + close

    def decode_share(self) -> str:
        """What decoding alone would allow, after the sweep over threads."""
        table = self.tables[-1]
        row = table.row(_CEILING)
        if row is None or row.value is None:
            return ""
        share = max(one.value.median for one in table.rows if one.value and "x" in one.extra) / row.value.median
        verdict = (
            "decoding is the limit: more cores, smaller files or packed images help, nothing else does"
            if share >= _HIGH_SHARE
            else "decoding is not the only limit; has-dali bench loader shows more"
        )
        return f"decoding alone reaches {row.value.median:,.0f} images/s, the loader {share:.0%} of it: {verdict}"

    def packing(self, best: Setting) -> str:
        """Whether ``has-dali pack`` pays: the loader on some images as they are, and packed."""
        if self.job is None:
            return ""
        try:
            from has_dali.pipelines.packing import pack
        except ImportError:
            return "packing was not measured: this release has no has_dali.pipelines.packing"
        from has_dali.pipelines.data import open_data

        count = min(PACKED_IMAGES, len(self.files))
        some = self.files.__class__([self.files.path(i * len(self.files) // count) for i in range(count)], [0] * count)
        setting = replace(best, batch_size=min(best.batch_size, count))
        with tempfile.TemporaryDirectory(prefix="has_dali_suggest_") as folder:
            short_side = round(self.size * 256 / 224)
            try:
                packed = open_data(str(self._packed(pack, some, Path(folder) / "packed", short_side)), train=True)
            except (OSError, ValueError, TypeError) as error:
                return f"packing was not measured: {str(error).splitlines()[0]}"
            contenders = [
                self._contender("files", setting, None, some, "the files as they are"),
                self._contender("packed", setting, None, packed, f"the same packed, short side {short_side}"),
            ]
            table = self._measure("packing", f"{count} images as they are and packed", contenders, {})
        speedup = table.speed_ratio("packed", "files")
        assert speedup is not None
        verdict = "it pays" if speedup.median >= _WORTH else "not worth it here"
        return f"packing to a short side of {short_side} makes the loader {speedup.median:.2f}x as fast: {verdict}"

    @staticmethod
    def _packed(pack: Callable[..., Any], source: Any, folder: Path, short_side: int) -> Path:
        pack(source, folder, short_side=short_side)
        return folder

    def _measure(
        self,
        key: str,
        title: str,
        contenders: Sequence[Contender],
        parameters: dict[str, Any],
        window: timing.Window | None = None,
    ) -> Table:
        table = measure_table(
            key,
            title,
            contenders,
            baseline=contenders[0].key,
            rounds=self.rounds,
            window=window or self.window,
            parameters={"size": self.size, **parameters},
            advance=self.advance,
        )
        self.tables.append(table)
        return table

    def _contender(
        self, key: str, setting: Setting, place: int | None, source: Any = None, label: str = _SERIES
    ) -> Contender:
        extra: dict[str, Any] = {} if place is None else {"x": place, "series": _SERIES}
        opened = partial(_steps, self.source if source is None else source, setting, self.size)
        return Contender(key, label, opened, units=setting.batch_size, kind="ours", extra=extra)

    def _ceiling(self) -> Contender:
        from has_dali.bench.peers.loader_all import CEILING, LOADERS
        from has_dali.bench.peers.loader_turns import contender

        assert self.job is not None
        return replace(contender(LOADERS[CEILING], self.job), key=_CEILING)


@contextmanager
def _steps(source: Any, setting: Setting, size: int) -> Iterator[Step]:
    import torch

    from has_dali.pipelines import image_loader

    loader = image_loader(
        source,
        setting.batch_size,
        train=True,
        policy=HideAndSeek(),
        size=size,
        device=setting.device,
        threads=setting.threads,
        prefetch=setting.prefetch,
    )
    batches = timing.endless(loader)

    def step() -> Any:
        batch = next(batches)
        if setting.device != "cpu":
            torch.cuda.synchronize()
        return batch

    yield step
