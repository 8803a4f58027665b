"""RecordIO files, written here as im2rec does, with DALI's reader as the oracle."""

from __future__ import annotations

import logging
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvidia.dali import Pipeline, fn

from has_dali.pipelines.recordio import recordio_source
from has_dali.pipelines.spans import SpanSource

MAGIC = struct.pack("<I", 0xCED7230A)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HAS_DALI_CACHE", str(cache))
    return cache


def header(label: float | Sequence[float], number: int = 0) -> bytes:
    if isinstance(label, (int, float)):
        return struct.pack("<IfQQ", 0, label, number, 0)
    return struct.pack("<IfQQ", len(label), 0, number, 0) + struct.pack(f"<{len(label)}f", *label)


def framed(record: bytes) -> bytes:
    """A record; where the magic number stands at a place divisible by 4 it is cut there, and the number left out."""
    cuts = [at for at in range(0, len(record) - 3, 4) if record[at : at + 4] == MAGIC]
    parts = [record[a:b] for a, b in zip([0, *(cut + 4 for cut in cuts)], [*cuts, len(record)], strict=True)]
    out = b""
    for n, part in enumerate(parts):
        kind = 0 if len(parts) == 1 else 1 if n == 0 else 3 if n == len(parts) - 1 else 2
        out += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + bytes(-len(part) % 4)
    return out


def write(path: Path, records: Sequence[bytes], index: bool = True) -> Path:
    frames = [framed(record) for record in records]
    path.write_bytes(b"".join(frames))
    if index:
        starts = np.cumsum([0, *map(len, frames)]).tolist()
        lines = (f"{n}\t{starts[n]}\n" for n in range(len(frames)))
        path.with_suffix(".idx").write_text("".join(lines))
    return path


def contents(source: SpanSource) -> list[bytes]:
    return [content.tobytes() for content in source.contents(np.arange(len(source)))]


def test_as_dali_reads_them(tmp_path: Path, image_folder: Path) -> None:
    images = [file.read_bytes() for file in sorted(image_folder.rglob("*.jpg"))]
    labels = [float(n * 37 % 1000) for n in range(len(images))]
    records = [header(label if n % 2 else [label], n) + images[n] for n, label in enumerate(labels)]
    path = write(tmp_path / "train.rec", records)
    source = recordio_source(path)
    assert contents(source) == images and source.labels.tolist() == labels
    pipeline = Pipeline(len(images), 1, None, prefetch_queue_depth=1)
    with pipeline:
        pipeline.set_outputs(*fn.readers.mxnet(path=[str(path)], index_path=[str(path.with_suffix(".idx"))]))
    theirs, their_labels = pipeline.run()
    assert [np.asarray(theirs[n]).tobytes() for n in range(len(images))] == contents(source)
    assert [float(np.asarray(their_labels[n])[0]) for n in range(len(images))] == source.labels.tolist()


@settings(max_examples=60, deadline=None)
@given(
    images=st.lists(
        st.lists(st.sampled_from([MAGIC, b"ab", b"abcd", b"\0" * 4, b"x"]), min_size=1, max_size=8).map(b"".join),
        min_size=1,
        max_size=5,
    ),
    extra=st.integers(0, 3),
    index=st.booleans(),
)
def test_any_records(tmp_path_factory: pytest.TempPathFactory, images: list[bytes], extra: int, index: bool) -> None:
    """With and without an index; images that hold the magic number, one or several times, at any place."""
    folder = tmp_path_factory.mktemp("records")
    labels = [[float(n), *(7.0 for _ in range(extra))] for n in range(len(images))]
    records = [header(label) + image for label, image in zip(labels, images, strict=True)]
    write(folder / "a.rec", records, index)
    for _ in range(2):  # scanned, then from the cache
        source = recordio_source(folder)
        assert contents(source) == images and source.labels.tolist() == list(range(len(images)))
        assert source.name(0) == f"{folder}/a.rec: record 0"


def test_pieces_of_several_files(tmp_path: Path, own_cache: Path) -> None:
    """Images in parts are put together in the cache, and again if that is lost."""
    images = [b"plain", MAGIC + b"tail", b"0123" + MAGIC * 2, b"also plain", b"abcd" + MAGIC]
    for n, some in enumerate((images[:2], images[2:4], images[4:])):
        write(tmp_path / f"{n}.rec", [header(n) + image for image in some])
    source = recordio_source(tmp_path)
    assert contents(source) == images and source.labels.tolist() == [0, 0, 1, 1, 2]
    assert source.name(2) == f"{tmp_path}/1.rec: record 0" and source.name(4) == f"{tmp_path}/2.rec: record 0"
    flats = sorted((own_cache / "flat").iterdir())
    assert len(flats) == 3 and all(flat.suffix == ".bin" for flat in flats)
    flats[1].unlink()
    again = recordio_source(tmp_path)
    assert contents(again) == images and again.fingerprint() == source.fingerprint()


def test_label_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", [header([3, 5]) + b"image", header([4, 6]) + MAGIC + b"image"])
    assert recordio_source(path).labels.tolist() == [3, 4]
    assert recordio_source(path, label_column=1).labels.tolist() == [5, 6]
    with pytest.raises(ValueError, match=r"a\.rec: record 0: 2 label\(s\); label_column=2 is not among them"):
        recordio_source(path, label_column=2)


def test_a_missing_index_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.rec", [header(1) + b"image"], index=False)
    with caplog.at_level(logging.INFO):
        assert len(recordio_source(path)) == 1
    assert f"{path}: no .idx beside it; the file is walked through instead" in caplog.text


@pytest.mark.parametrize("kept", [[0, 1, 2], [1, 2, 3], [3, 1], [0, 2, 3], [0]])
def test_an_index_of_some_records(tmp_path: Path, kept: list[int]) -> None:
    """One that was cut short between two lines would leave samples out without a word."""
    path = write(tmp_path / "a.rec", [header(n) + b"image %d." % n + MAGIC * (n > 1) + b"tail" for n in range(4)])
    index = path.with_suffix(".idx")
    lines = index.read_text().splitlines()
    index.write_text("\n".join(reversed(lines)))
    assert recordio_source(path).labels.tolist() == [0, 1, 2, 3]
    index.write_text("\n".join(lines[n] for n in kept))
    with pytest.raises(ValueError, match=rf"a\.idx: names {len(kept)} of 4 records of .*a\.rec; delete it"):
        recordio_source(path)


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize(
    ("record", "message"),
    [
        (header(0.5) + b"x", "record 1: label 0.5; expected an integer from 0 to 16777215"),
        (header(-1) + b"x", "record 1: label -1.0; expected"),
        (header([float("nan")]) + b"x", "record 1: label nan; expected"),
        (header(float("inf")) + b"x", "record 1: label inf; expected"),
        (header(1 << 24) + b"x", "record 1: label 16777216.0; expected"),
        (header(1), "record 1: holds no image"),
        (b"short", "record 1: too short for an image and its label"),
        (struct.pack("<IfQQ", 1 << 31, 0, 0, 0) + b"x", "record 1: too short for an image and its label"),
        (b"ab" * 2 + MAGIC + b"x", "record 1: too short for an image and its label"),
    ],
)
def test_bad_records(tmp_path: Path, record: bytes, message: str, index: bool) -> None:
    path = write(tmp_path / "a.rec", [header(0) + b"image", record], index)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        recordio_source(path)


@pytest.mark.parametrize("index", [False, True])
def test_cut_anywhere(tmp_path: Path, index: bool) -> None:
    path = write(tmp_path / "a.rec", [header(0) + b"image", header(1) + b"abcd" + MAGIC + b"image"], index)
    whole = path.read_bytes()
    first = len(framed(header(0) + b"image"))
    for size in range(1, len(whole) - 3):  # the last three bytes only fill up
        path.write_bytes(whole[:size])
        if not index and size in range(first - 3, first + 1):
            assert len(recordio_source(path)) == 1  # a whole record: nothing in the format tells
            continue
        with pytest.raises(ValueError, match=r"truncated"):
            recordio_source(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", [header(0) + b"image"] * 2, index=False)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=rf"a\.rec: no record at byte {len(whole) // 2} \(record 1\): damaged"):
        recordio_source(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0\t0\n1\t9999\n", r"a\.idx: places beyond .*a\.rec"),
        ("0\t0\n1\t4\n", r"a\.rec: no record at byte 4 \(record 1\): damaged, or an index of another file"),
        ("0\t0\n1\t0\n", r"a\.idx: names byte 0 twice"),
        ("words\n", r"a\.idx: no index"),
        ("0\t99999999999999999999\n", r"a\.idx: no index"),
        ("0\tzero\n", r"a\.idx: no index"),
        ("", r"a\.idx: names 0 of 2 records of .*a\.rec; delete it"),
    ],
)
def test_false_index(tmp_path: Path, lines: str, message: str) -> None:
    path = write(tmp_path / "a.rec", [header(0) + b"image"] * 2)
    path.with_suffix(".idx").write_text(lines)
    os.utime(path.with_suffix(".idx"), ns=(1, 1))
    with pytest.raises(ValueError, match=message):
        recordio_source(path)


def test_an_index_into_the_middle_of_a_record(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", [header(0) + b"abcd" + MAGIC + b"tail"])
    second = path.read_bytes().rindex(MAGIC)
    path.with_suffix(".idx").write_text(f"0\t{second}\n")
    with pytest.raises(ValueError, match=rf"a\.rec: record 0 at byte {second} has no beginning"):
        recordio_source(path)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 20), index=st.booleans())
def test_mutated_files_never_crash(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, index: bool
) -> None:
    """Whatever bytes are changed: a ValueError that names the file, or ranges inside it."""
    folder, rng = tmp_path_factory.mktemp("records"), np.random.default_rng(seed)
    records = [header(n if n % 2 else [n]) + b"image" + (MAGIC + b"x" if n == 2 else b"") for n in range(4)]
    path = write(folder / "a.rec", records, index)
    data = bytearray(path.read_bytes())
    for _ in range(count):
        data[rng.integers(len(data))] = rng.integers(256)
    path.write_bytes(data)
    try:
        source = recordio_source(path)
    except ValueError as error:
        assert str(folder) in str(error)
    else:
        assert all(contents(source))
