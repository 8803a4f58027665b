"""The scope ``kernel`` without a GPU: timing on a modelled device, the calls of our kernels, and the skipped result."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from has_dali.bench import cuda_timing
from has_dali.bench.harness import Contender, Unavailable, Verdict
from has_dali.bench.op_figures import copy_share
from has_dali.bench.peers import kernel_cuda
from has_dali.bench.peers.op_check import judge
from has_dali.bench.peers.op_job import FUSED, HIDE, Buffers, OpJob
from has_dali.bench.results import Result
from has_dali.bench.scopes import kernel
from has_dali.console import Terminal, json_text
from has_dali.kernels import gpu
from has_dali.kernels.policy import HideAndSeek

US = 1e-6


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    kernel.add_options(parser)
    return parser.parse_args(words)


class Device:
    """A stream on a clock of its own: calls cost the host time, then wait in line for the device."""

    def __init__(self) -> None:
        self.now = self.free = 0.0

    def call(self, host: float, device: float) -> None:
        self.now += host
        self.free = max(self.free, self.now) + device

    def wait(self) -> None:
        self.now = max(self.now, self.free)

    def hold(self, seconds: float) -> None:
        self.call(0.0, seconds)

    def mark(self) -> float:
        return max(self.free, self.now)

    def seconds(self, first: float, last: float) -> float:
        self.now = max(self.now, last)
        return last - first


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(cuda_timing, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


@pytest.mark.parametrize(("host", "work"), [(10 * US, 40 * US), (40 * US, 10 * US)])
def test_device_and_host_time_are_told_apart(device: Device, host: float, work: float) -> None:
    turn = cuda_timing.turn(device, lambda: device.call(host, work), 50)
    assert turn.device == pytest.approx(work) and turn.host == pytest.approx(host) and turn.queued_ahead


def test_a_host_that_cannot_keep_ahead_is_told(device: Device) -> None:
    turn = cuda_timing.turn(device, lambda: device.call(1e-3, 10 * US), 50)
    assert not turn.queued_ahead and turn.device > 500 * US


def on(
    device: Device,
    key: str,
    work: float,
    *,
    kind: str = "peer",
    form: str = "in place",
    units: float = 64,
    verdict: Verdict | None = None,
    fails: Exception | None = None,
    requires: tuple[str, ...] = (),
) -> Contender:
    """A contender whose calls take 5 us of the host and ``work`` seconds of the device."""

    @contextmanager
    def opened() -> Iterator[Callable[[], Any]]:
        if fails is not None:
            raise fails
        yield lambda: device.call(5 * US, work)

    check = None if verdict is None else lambda outputs: verdict
    return Contender(key, key, opened, check, requires, units=units, kind=kind, extra={"form": form})


def test_rows_hold_device_time_and_say_why_they_are_missing(device: Device) -> None:
    job = OpJob(HIDE, HideAndSeek((16,)), "uint8", 64)
    table = kernel.empty_table(job, "NHWC")
    everyone = [
        on(device, "has_dali", 16 * US, kind="ours", verdict=Verdict(None, {"hidden": 0.5})),
        on(device, "torch_eager", 160 * US),
        on(device, "wrong", 1 * US, verdict=Verdict("hides 30.0% of the pixels")),
        on(device, "absent", 1 * US, requires=("no_such_module_at_all",)),
        on(device, "unfit", 1 * US, fails=Unavailable("no compiler")),
        on(device, "broken", 1 * US, fails=RuntimeError("out of memory\nmore")),
    ]
    advanced: list[int] = []
    kernel.measure(table, everyone, device, 3, 20, lambda steps=1, note="": advanced.append(steps))
    assert sum(advanced) == 4 * len(everyone)
    ours, eager, wrong, absent, unfit, broken = table.rows
    assert ours.value is not None and ours.value.median == pytest.approx(64 / (16 * US))
    assert ours.extra["device_us"] == pytest.approx(16) and ours.extra["host_us"] == pytest.approx(5)
    assert ours.check == {"hidden": 0.5}
    assert eager.ratio is not None and eager.ratio.median == pytest.approx(10)
    assert (wrong.status, wrong.reason) == ("void", "hides 30.0% of the pixels")
    assert absent.status == unfit.status == "skipped" and unfit.reason == "no compiler"
    assert (broken.status, broken.reason) == ("void", "fails: RuntimeError: out of memory")
    assert "16.0 us on the device, 5.0 us on the host" in table.note
    with pytest.raises(RuntimeError, match="cannot be compared with"):
        kernel.measure(
            kernel.empty_table(job, "NHWC"), [on(device, "has_dali", 1, requires=("no_such",))], device, 1, 1
        )


def test_a_peer_that_fails_in_a_turn_is_void_and_the_rest_goes_on(device: Device) -> None:
    calls: list[int] = []

    @contextmanager
    def opened() -> Iterator[Callable[[], Any]]:
        def step() -> None:
            calls.append(len(calls))
            if len(calls) > 2 + 20 + 30:  # seen, warm-up, and half of the second turn
                raise RuntimeError("illegal address\nmore")
            device.call(5 * US, 10 * US)

        yield step

    table = kernel.empty_table(OpJob(HIDE, HideAndSeek((16,)), "uint8", 64), "NHWC")
    everyone = [on(device, "has_dali", 16 * US, kind="ours"), Contender("fragile", "fragile", opened)]
    advanced: list[int] = []
    kernel.measure(table, everyone, device, 3, 20, lambda steps=1, note="": advanced.append(steps))
    ours, fragile = table.rows
    assert ours.value is not None and len(ours.value.values) == 3 and sum(advanced) == 2 * 4
    assert (fragile.status, fragile.reason) == ("void", "fails in round 2: RuntimeError: illegal address")
    assert fragile.value is None and fragile.ratio is None
    calls.clear()
    fatal = [Contender("has_dali", "ours", opened, kind="ours")]
    with pytest.raises(RuntimeError, match="illegal address"):
        kernel.measure(kernel.empty_table(OpJob(HIDE, HideAndSeek((16,)), "uint8", 64), "NHWC"), fatal, device, 3, 20)


def test_run_on_a_modelled_device(
    device: Device, monkeypatch: pytest.MonkeyPatch, assert_valid: Callable[[Result], None]
) -> None:
    copied = 2 * kernel_cuda.ROTATED_BYTES

    def modelled(job: OpJob, buffers: Buffers, layout: str, peers: Any) -> list[Contender]:
        moved = job.batch * (job.image_bytes / 2 + (job.output_bytes if job.kind == FUSED else 0))
        form = "fused" if job.kind == FUSED else "in place"
        units = kernel_cuda.ROTATED_BYTES / job.output_bytes
        return [
            on(device, "has_dali", moved / 2.4e12, kind="ours", form=form, units=job.batch),
            on(device, "copy", copied / 3e12, kind="bound", form="copy", units=units),
        ]

    monkeypatch.setattr(gpu, "unavailable_reason", lambda: None)
    monkeypatch.setattr(kernel, "CupyStream", lambda: device)
    monkeypatch.setattr(kernel, "contenders", modelled)
    result = kernel.run(options("--rounds", "2", "--patches", "8,56", "--peers", "torch_eager"), Terminal(quiet=True))
    assert_valid(result)
    assert len(result.tables) == 3 * len(kernel.SPECIALISATIONS)
    for table in result.tables:
        ours, copy = table.row("has_dali"), table.row("copy")
        if ours is not None and copy is not None:
            share = copy_share(ours, copy)
            assert share is not None and share.median == pytest.approx(0.8, rel=1e-3)
            assert ours.extra["gb_per_s"] == pytest.approx(2400, rel=1e-3)
    costs = [bar for bar in result.bars if bar.at_most is not None]
    assert len(costs) == len(kernel.SPECIALISATIONS) and all(bar.met and bar.aim_met for bar in costs)
    assert len({table.key for table in result.tables}) == len(result.tables)


def test_without_a_gpu_everything_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, assert_valid: Callable[[Result], None]
) -> None:
    monkeypatch.setattr(gpu, "unavailable_reason", lambda: "CuPy finds no CUDA device")
    result = kernel.run(options(), Terminal(quiet=True))
    assert_valid(result)
    (table,) = result.tables
    assert [row.key for row in table.rows] == ["has_dali", "copy", "torch_eager", "torch_compile"]
    assert {row.status for row in table.rows} == {"skipped"}
    assert {row.reason for row in table.rows} == {"no CUDA device: CuPy finds no CUDA device"}
    assert [bar.met for bar in result.bars] == [None]
    again = Result.from_dict(result.to_dict())
    assert json_text(again.to_dict()) == json_text(result.to_dict())


@pytest.mark.parametrize(("words", "message"), [(("--peers", "x"), "--peers"), (("--calls", "0"), "--calls")])
def test_bad_options_are_named(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel.run(options(*words), Terminal(quiet=True))


@pytest.mark.parametrize("specialisation", kernel.SPECIALISATIONS)
def test_our_calls_fit_the_kernels(specialisation: tuple[str, str, str]) -> None:
    kind, dtype, layout = specialisation
    job = OpJob(kind, HideAndSeek((16,)), "uint8" if kind == FUSED else dtype, 4, 32, output_dtype="float16")
    batch, out = object(), object()
    step: Any = kernel_cuda.our_step(job, layout, batch, out, np.arange(4))
    bound = inspect.signature(step.func).bind(*step.args, **step.keywords).arguments
    assert bound["out"] is (out if kind == FUSED else batch)
    assert step.func is (gpu.resize_mirror_normalize_hide if kind == FUSED else gpu.hide)
    if kind == FUSED:
        assert bound["size"] is None and bound["output_layout"] in ("CHW", "HWC") and bound["dtype"] == "float16"
    else:
        assert bound["layout"] == layout and bound["fill"] == job.fill


@pytest.mark.parametrize(("kind", "dtype", "layout"), kernel.SPECIALISATIONS)
@pytest.mark.parametrize("sizes", [(16,), (8, 16)])
def test_torch_does_the_job_in_every_specialisation(kind: str, dtype: str, layout: str, sizes: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    from has_dali.bench.peers.op_torch import eager

    job = OpJob(kind, HideAndSeek(sizes), "uint8" if kind == FUSED else dtype, 32, 64, output_dtype=dtype)
    job = job if kind == FUSED else OpJob(kind, HideAndSeek(sizes), dtype, 32, 64)
    buffers = Buffers(job.dtype, job.batch, job.size, 1)
    source = torch.from_numpy(kernel_cuda._source(job, buffers, layout).copy())
    source = source.permute(0, 3, 1, 2) if kind == HIDE and layout == "NHWC" else source
    output = eager(job, "cpu", layout)(source)
    order = torch.channels_last if layout == "NHWC" else torch.contiguous_format
    assert output.is_contiguous(memory_format=order)
    assert judge(job, buffers, [kernel_cuda.to_host(output)], "NCHW").reason is None


def test_buffers_exceed_the_l2() -> None:
    job = OpJob(HIDE, HideAndSeek((16,)), "uint8", 64)
    assert kernel_cuda.device_buffers(job).count * 64 * job.image_bytes >= kernel_cuda.ROTATED_BYTES
