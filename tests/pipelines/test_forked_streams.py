"""Streams of decoded images go on in a process forked from their own, whatever its threads were at."""

from __future__ import annotations

import hashlib
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

from has_dali.pipelines import ArraySource, PadPlan, Sampler
from has_dali.pipelines.array_stream import ArrayStream
from has_dali.pipelines.packing import pack
from has_dali.pipelines.raw_spans import raw_source
from has_dali.pipelines.spec import ImageSpec

SPEC = ImageSpec(PadPlan(), None, 32, (0.0,) * 3, (1.0,) * 3, None, "float32", False, True)
LIMIT = 60  # seconds; a child that waits for its parent's threads does so for ever


def digests(stream: ArrayStream, first: int) -> list[str]:
    return [hashlib.sha1(stream.batch((0, n))[2].numpy().tobytes()).hexdigest() for n in range(first, 5)]


def send_digests(end: Connection, stream: ArrayStream, first: int) -> None:
    end.send(digests(stream, first))
    stream.close()


@pytest.mark.parametrize("first", [2, 3])  # the batch that comes next, or another
@pytest.mark.parametrize("kind", ["arrays", "raw"])
def test_a_forked_process_goes_on(tmp_path: Path, kind: str, first: int) -> None:
    rng = np.random.default_rng(0)
    source = ArraySource.from_images(rng.integers(0, 256, (50, 32, 32, 3)).astype(np.uint8), np.arange(50))
    if kind == "raw":
        pack(source, tmp_path / "raw", raw=True, short_side=0)
    images = raw_source(tmp_path / "raw") if kind == "raw" else source
    expected = digests(ArrayStream(SPEC, source, Sampler(50, 10, train=True), 2, 2, torch.device("cpu")), first)
    stream = ArrayStream(SPEC, images, Sampler(50, 10, train=True), 2, 2, torch.device("cpu"))
    for n in range(2):
        stream.batch((0, n))
    fork = multiprocessing.get_context("fork")
    mine, theirs = fork.Pipe()
    child = fork.Process(target=send_digests, args=(theirs, stream, first))
    with stream._renderer._lock:  # as if a thread were taking a buffer just then
        child.start()
    try:
        assert mine.poll(LIMIT), "the forked process waits for ever"
        assert mine.recv() == expected
        child.join(LIMIT)
        assert child.exitcode == 0
    finally:
        child.kill()
    assert digests(stream, first) == expected  # and so does this one
