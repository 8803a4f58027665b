"""The scope ``loader`` end to end on a few small files: rows, skips, voids, bars and bad options."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from has_dali.bench import timing
from has_dali.bench.peers import loader_job
from has_dali.bench.peers.loader_all import CEILING, DALI, FFCV, LOADERS, OURS, PLAIN, TORCHVISION
from has_dali.bench.peers.loader_job import Job, LoaderPeer
from has_dali.bench.results import Result, Row, Table
from has_dali.bench.scopes import loader
from has_dali.console import Terminal, json_text
from has_dali.kernels.policy import HideAndSeek

SHORT = timing.Window(seconds=0.0, batches=1, discarded=0, stride=1)
QUIET = Terminal(quiet=True)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    loader.add_options(parser)
    return parser.parse_args(words)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "WINDOW", SHORT)
    monkeypatch.setattr(loader_job, "EPOCH_IMAGES", 72)


@pytest.mark.usefixtures("short")
def test_a_run(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch, assert_valid: Callable[[Result], None]) -> None:
    for name in ("ffcv", "ffcv.fields", "ffcv.fields.decoders"):
        monkeypatch.setitem(sys.modules, name, None)
    peers = ",".join((PLAIN, DALI, TORCHVISION, CEILING, FFCV))
    words = (str(jpeg_folder), "--rounds", "2", "--batch", "12", "--size", "48", "--threads", "1", "--peers", peers)
    result = loader.run(options(*words), QUIET)
    assert_valid(result)
    table = result.tables[0]
    assert [row.key for row in table.rows] == [OURS, PLAIN, DALI, TORCHVISION, FFCV, CEILING]
    for row in table.rows:
        if row.key == FFCV:
            assert row.status == "skipped" and "libopencv-dev" in str(row.reason) and row.value is None
        else:
            assert row.status == "measured" and row.value is not None and len(row.value.values) == 2, row.reason
            assert row.extra["threads"] == 1 and row.ratio is not None and row.latency is not None
    ours, plain = table.row(OURS), table.row(PLAIN)
    assert ours is not None and ours.check is not None and ours.check["shape"] == (12, 3, 48, 48)
    assert plain is not None and plain.check is not None and plain.check["hidden"] < 0.01 < ours.check["hidden"]
    assert [bar.met is not None for bar in result.bars] == [True] * 4
    assert result.bars[3].value == table.speed_ratio(OURS, TORCHVISION) and "decode ceiling" in result.bars[3].note
    assert result.data is not None and result.data["images"] == 36 and result.data["name"] == jpeg_folder.name
    record = json.loads(json_text(result.to_dict()))
    assert Result.from_dict(record).to_dict() == record and record["settings"]["threads"] == [1]
    assert "each with 1 threads" in result.conditions


def fake(policy: HideAndSeek | None) -> Any:
    @contextlib.contextmanager
    def opened(job: Job) -> Iterator[Iterator[Any]]:
        def batches() -> Iterator[dict[str, torch.Tensor]]:
            start = 0
            while True:
                image = torch.randn(job.batch_size, 3, job.size, job.size)
                if policy is not None:
                    ids = torch.arange(start, start + job.batch_size).numpy()
                    image.masked_fill_(torch.from_numpy(policy.mask(ids, 0, job.size, job.size))[:, None], 0.0)
                start += job.batch_size
                yield {"image": image, "label": torch.zeros(job.batch_size, dtype=torch.int64)}

        yield batches()

    return opened


def test_a_loader_that_skips_work_is_void(jpeg_folder: Path) -> None:
    policy = HideAndSeek((8, 16))
    files = tuple(str(path) for path in sorted(jpeg_folder.glob("*/*")))
    job = Job(files, (0,) * len(files), policy, 16, 1, 64)
    peers = [
        LoaderPeer(OURS, "ours", fake(policy), hides=True, kind="ours"),
        LoaderPeer(PLAIN, "plain", fake(None), stays_open=False),
        LoaderPeer("lazy", "lazy", fake(None), hides=True),
        LoaderPeer("eager", "eager", fake(policy)),
    ]
    notes: list[str] = []
    table = loader.measure(job, peers, [1], 3, SHORT, lambda steps=1, note="": notes.extend([note] * steps))
    reasons = {row.key: str(row.reason) for row in table.rows if row.status == "void"}
    assert set(reasons) == {"lazy", "eager"} and "hides 0.0%" in reasons["lazy"] and "expected 0.0%" in reasons["eager"]
    assert len(notes) == loader.progress_steps(len(peers), 3)
    bars = {limit.peer: bar for limit, bar in zip(loader.LIMITS, loader.bars(table), strict=True)}
    assert bars[PLAIN].met is not None
    assert all(
        bars[key].met is None and bars[key].note == "not among the peers" for key in (CEILING, DALI, TORCHVISION)
    )


def test_bars_compare_ours_with_the_row_they_name() -> None:
    table = Table("loader", "t", "images/s", "higher", OURS)
    for key, value in {OURS: 900.0, PLAIN: 1000.0, DALI: 500.0, TORCHVISION: 200.0, CEILING: 1000.0}.items():
        table.rows.append(Row(key, key, value=timing.Summary((value,) * 3)))
    table.rows[2].status, table.rows[2].reason, table.rows[2].value = "void", "hides too much", None
    table.note = loader._note(table)
    assert table.note.startswith("the decode ceiling itself is 5.0x torchvision")
    found = [(bar.value and bar.value.median, bar.met, bar.aim_met) for bar in loader.bars(table)]
    assert found == [(0.9, True, False), (None, None, None), (0.9, False, False), (4.5, True, False)]
    assert loader.bars(table)[1].note == "hides too much"


def test_the_conditions_say_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_job, "available_cores", lambda: 2)
    peers = [LOADERS[key] for key in (OURS, PLAIN, DALI, FFCV)]
    assert "each with 2 threads or workers; median" in loader.conditions(peers, [2])
    tried = loader.conditions(peers, [1, 2, 3, 4])
    assert "whichever of 1, 2, 3, 4 threads or workers" in tried
    assert "has_dali's number for has_dali, without HaS and FFCV (.beton" in tried
    assert "; at most one per core for FFCV" in tried
    assert "(" not in loader.conditions([LOADERS[DALI]], [1, 4])


def test_thread_counts() -> None:
    assert [loader.thread_counts(cores) for cores in (1, 2, 16)] == [[1, 2], [1, 2, 3, 4], [8, 16, 17, 32]]


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("nowhere",), FileNotFoundError, "nowhere"),
        (("--rounds", "0"), ValueError, "--rounds 0: expected a whole number from 1"),
        (("--batch", "many"), ValueError, "--batch many"),
        (("--threads", "2,-1"), ValueError, "--threads -1"),
        (("--peers", f"{DALI},petastorm"), ValueError, "--peers petastorm: expected some of has_dali"),
    ],
)
def test_bad_options(words: tuple[str, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        loader.run(options(*words), QUIET)


def test_all_keys_are_names_of_rows() -> None:
    assert all(key == peer.key for key, peer in LOADERS.items()) and next(iter(LOADERS)) == OURS
    assert all(peer.threads_of in ("", OURS) for peer in LOADERS.values())
