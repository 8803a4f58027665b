"""The scope ``op`` end to end on tiny batches, its plan, its figures and its bars."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from has_dali.bench import harness, op_figures, timing
from has_dali.bench.harness import Contender
from has_dali.bench.peers import op_job
from has_dali.bench.peers.op_all import PEERS
from has_dali.bench.peers.op_check import checker
from has_dali.bench.peers.op_job import FUSED, HIDE, Buffers, OpJob
from has_dali.bench.results import Result, Row, Table
from has_dali.bench.scopes import op
from has_dali.bench.timing import Summary
from has_dali.console import Terminal
from has_dali.kernels.policy import HideAndSeek

TINY = ["--quick", "--rounds", "2", "--batch", "16,32", "--size", "64", "--patches", "8,16"]


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    op.add_options(parser)
    return parser.parse_args(words)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few buffers, whatever this machine's cache, and turns too short to mean anything."""
    monkeypatch.setattr(op_job, "last_level_cache", lambda: 1 << 16)
    monkeypatch.setattr(op, "_QUICK_WINDOW", timing.Window(0.002, 1, 1, 1))
    monkeypatch.setattr(timing, "settle", lambda: None)


def test_end_to_end(short: None, assert_valid: Callable[[Result], None]) -> None:
    pytest.importorskip("torch")
    cores = os.sched_getaffinity(0)
    result = op.run(options(*TINY, "--peers", "torch_eager,dali_erase"), Terminal(quiet=True))
    assert os.sched_getaffinity(0) == cores
    keys = [table.key for table in result.tables]
    patches = ("16-8", "16-16", "32-16")
    expected = {f"{kind}-{n}" for kind in ("hide-uint8", "hide-float32", "fused-uint8") for n in (*patches, "16-sizes")}
    assert set(keys) == expected and len(keys) == len(expected)
    table = result.table("hide-uint8-16-16")
    row = table.row("torch_eager")
    assert row is not None and row.status == "measured" and row.latency is not None
    assert table.row("python_loop") is None
    hidden = 64 * 64 * 3 // 2
    for key, moved in (("has_dali", hidden), ("copy", 4 * hidden), ("has_dali_out", 3 * hidden), ("memset", hidden)):
        one = table.row(key)
        assert one is not None and one.extra["bytes_per_image"] == moved and one.extra["gb_per_s"] > 0
    fused = result.table("fused-uint8-16-8").row("has_dali")
    assert fused is not None and fused.extra["bytes_per_image"] == hidden + 4 * 2 * hidden
    assert fused.extra["share_of_copy"] > 0
    plain = result.table("fused-uint8-16-8").row("has_dali_plain")
    assert plain is not None and plain.extra["bytes_per_image"] == 2 * hidden + 4 * 2 * hidden
    assert all(bar.value is not None for bar in result.bars)
    assert sum("memset" in bar.what or "hidden bytes alone" in bar.what for bar in result.bars) == 6
    assert sum("share of the copy" in bar.what for bar in result.bars) == 3
    assert_valid(result)
    assert "rotated" in result.conditions and "one core" in result.conditions


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--threads", "70000"), "--threads"),
        (("--threads", str(len(os.sched_getaffinity(0)) + 1)), "expected at most"),
        (("--peers", "imgaug"), "imgaug"),
        (("--patches", "8,big"), "--patches"),
        (("--patches", "0"), "--patches"),
        (("--batch", "x"), "--batch"),
        (("--rounds", "0"), "--rounds"),
        (("--size", "8"), "--size"),
    ],
)
def test_bad_options_are_named(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        op.run(options(*words), Terminal(quiet=True))


def test_the_plan_is_what_the_issue_asks_for() -> None:
    patches = op.known_patches(None, ("8", "16", "32", "56", "mixed"))
    plan = op.make_plan(patches, patches[:-1], (64, 256), 224, 1, full=False)
    asked = {(job.kind, job.dtype, job.batch, job.policy.patch_sizes) for job in plan.jobs}
    for kind, dtype in ((HIDE, "uint8"), (HIDE, "float32"), (FUSED, "uint8")):
        for sizes in ((8,), (16,), (32,), (56,), op.MIXED):
            assert (kind, dtype, 64, sizes) in asked
        assert (kind, dtype, 256, op.MIXED) in asked
    assert len(plan.jobs) == 18 and [len(sweep) for sweep in plan.sweeps] == [4, 4, 4]
    assert len(op.make_plan(patches, (), (64, 256), 224, 1, full=True).jobs) == 30
    assert op.known_patches("56,8,mixed", ()) == ["8", "56", "mixed"]
    assert {job.policy.p_hide for job in plan.jobs} == {0.5}


class Clock:
    """Time that passes only when a step says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    fake = SimpleNamespace(perf_counter=made, process_time=lambda: 0.0, sleep=lambda seconds: None)
    monkeypatch.setattr(timing, "time", fake)
    monkeypatch.setattr(harness, "time", fake)
    return made


def synthetic(job: OpJob, buffers: Buffers, policy: HideAndSeek, key: str, seconds: Callable[[], float], clock: Clock,
              form: str, kind: str = "peer") -> Contender:  # fmt: skip
    """An operator that hides by ``policy`` in a time that is known."""

    @contextmanager
    def opened() -> Iterator[Callable[[], Any]]:
        mask = policy.mask(np.arange(job.batch), 0, job.size, job.size)[..., None]
        output = np.where(mask, np.uint8(job.fill), buffers.pristine)

        def step() -> Any:
            clock.now += seconds()
            return output

        yield step

    return Contender(key, key, opened, checker(job, buffers, "NHWC"), units=job.batch, kind=kind, extra={"form": form})


def test_a_synthetic_operator_is_measured_right_and_one_that_hides_less_is_void(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = HideAndSeek((8,))
    job, rng = OpJob(HIDE, policy, "uint8", 64, 64), np.random.default_rng(0)
    buffers = Buffers("uint8", 64, 64, 1)
    speeds = {"has_dali": 80_000.0, "memset": 100_000.0, "copy": 40_000.0, "slow": 5_000.0, "cheat": 900_000.0}
    forms = {"has_dali": "in place", "memset": "in place", "copy": "copy", "slow": "out of place", "cheat": "in place"}

    def contender(key: str) -> Contender:
        other = policy.with_(p_hide=0.3) if key == "cheat" else policy
        kind = "ours" if key == "has_dali" else "bound" if key in ("memset", "copy") else "peer"
        seconds = lambda: job.batch / speeds[key] * rng.uniform(0.95, 1.05)  # noqa: E731
        return synthetic(job, buffers, other, key, seconds, clock, forms[key], kind)

    monkeypatch.setattr(op, "contenders", lambda *_: [contender(key) for key in speeds])
    table = op.measure(job, buffers, rounds=5)
    for key in ("has_dali", "memset", "copy", "slow"):
        row = table.row(key)
        assert row is not None and row.value is not None and row.value.median == pytest.approx(speeds[key], rel=0.1)
    cheat = table.row("cheat")
    assert cheat is not None and cheat.status == "void" and "hides 3" in str(cheat.reason) and cheat.value is None
    (bar,) = op_figures.bars([table])
    assert bar.value is not None and bar.value.median == pytest.approx(0.8, rel=0.1) and bar.met and not bar.aim_met
    ours = table.row("has_dali")  # half the bytes written at twice the copy's rate: half of its four bytes' bandwidth
    assert ours is not None and ours.extra["share_of_copy"] == pytest.approx(80_000 * 0.5 / (40_000 * 2), rel=0.1)


def rows(**values: float) -> list[Row]:
    return [Row(key, key, value=Summary((value,))) for key, value in values.items()]


def test_bars_need_one_core_for_the_copy_and_both_sizes_for_the_cost() -> None:
    parameters = {"kind": FUSED, "threads": 2}
    assert op_figures.bars([Table("fused-uint8-64-8", "t", "images/s", "higher", "has_dali", parameters)]) == []
    sizes = Table("hide-uint8-64-sizes", "t", "images/s", "higher", "S=56", {"kind": HIDE, "threads": 1})
    sizes.rows = rows(**{"S=8": 80.0, "S=56": 100.0})
    (bar,) = op_figures.bars([sizes])
    assert bar.value is not None and bar.value.median == pytest.approx(1.25) and bar.met and bar.aim_met is False
    sizes.rows = rows(**{"S=16": 80.0, "S=56": 100.0})
    assert op_figures.bars([sizes]) == []


@pytest.mark.parametrize("faster", ["copy", "copy_streamed"])
def test_the_faster_copy_is_the_bound(faster: str) -> None:
    policy = HideAndSeek((8,), p_hide=0.5)
    job = OpJob(FUSED, policy, "uint8", 64, 64)
    table = Table("fused-uint8-64-8", "t", "images/s", "higher", "has_dali", {"kind": FUSED, "threads": 1})
    speeds = {"has_dali": 100.0, "copy": 50.0, "copy_streamed": 50.0} | {faster: 80.0}
    table.rows = rows(**speeds)
    for row in table.rows:
        row.extra["form"] = "fused" if row.key == "has_dali" else "copy"
        row.label = f"bound: {row.key}"
    op_figures.add_roofline(job, table)
    (bar,) = op_figures.bars([table])
    moved = 0.5 + 4  # of the bytes of an image; a copy of the output moves 8
    assert bar.value is not None and bar.value.median == pytest.approx(100 * moved / (80 * 8), rel=1e-3)
    assert bar.note == f"the faster copy is the {faster}" and f"({faster})" in table.note
    table.rows = rows(has_dali=100.0)
    assert op_figures.fastest_copy(table) is None and op_figures.bars([table])[0].value is None


def test_every_peer_of_the_issue_is_there() -> None:
    assert {"python_loop", "torch_eager", "torch_compile", "torchvision_erasing", "kornia_erasing"} <= set(PEERS)
    assert {"timm_erasing", "grid_dropout", "coarse_dropout", "dali_erase", "dali_grid"} <= set(PEERS)
