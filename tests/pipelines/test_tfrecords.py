"""TFRecord files, written here by hand and read by DALI as the oracle; the checksum against its known answers."""

from __future__ import annotations

import gzip
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvidia.dali import Pipeline, fn, tfrecord

from has_dali.pipelines.crc32c import masked_crc32c, masked_crc32c_rows
from has_dali.pipelines.spans import SpanSource
from has_dali.pipelines.tfrecords import broken_records, tfrecord_source

IMAGE, LABEL = "image/encoded", "image/class/label"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAS_DALI_CACHE", str(tmp_path_factory.mktemp("cache")))


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(value: object, packed: bool = True) -> bytes:
    """A Feature of bytes, floats or integers, by the type of ``value``'s entries."""
    values = value if isinstance(value, list) else [value]
    if isinstance(values[0], bytes):
        return field(1, b"".join(field(1, entry) for entry in values))
    if isinstance(values[0], float):
        return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
    if packed:
        return field(3, field(1, b"".join(map(varint, values))))
    return field(3, b"".join(b"\x08" + varint(entry) for entry in values))


def example(features: dict[str, object], packed: bool = True) -> bytes:
    entries = (field(1, field(1, name.encode()) + field(2, feature(v, packed))) for name, v in features.items())
    return field(1, b"".join(entries))


def crc(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c_rows(np.frombuffer(data, np.uint8)[None])[0])


def framed(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + crc(length) + record + crc(record)


def write(path: Path, records: Sequence[bytes], index: bool = False) -> Path:
    frames = [framed(record) for record in records]
    path.write_bytes(b"".join(frames))
    if index:
        starts = np.cumsum([0, *map(len, frames)])
        lines = (f"{start} {len(frame)}\n" for start, frame in zip(starts, frames, strict=False))
        Path(f"{path}.idx").write_text("".join(lines))
    return path


def contents(source: SpanSource) -> list[bytes]:
    return [content.tobytes() for content in source.contents(np.arange(len(source)))]


def test_known_checksums() -> None:
    """RFC 3720, B.4, masked as TensorFlow masks."""
    for data, plain in (
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ):
        masked = ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF
        array = np.frombuffer(data, np.uint8)
        assert masked_crc32c(array) == masked == masked_crc32c_rows(array[None])[0]


@pytest.mark.parametrize("index", [False, True])
def test_as_dali_reads_them(tmp_path: Path, image_folder: Path, index: bool) -> None:
    images = [file.read_bytes() for file in sorted(image_folder.rglob("*.jpg"))]
    labels = [n * 37 % 1000 + 1 for n in range(len(images))]
    files = []
    for part in range(2):
        records = [
            example(
                {
                    "image/filename": f"{n}.jpg".encode(),
                    "image/height": n,
                    IMAGE: images[n],
                    "image/object/bbox/xmin": [0.25, 0.5],
                    LABEL: labels[n],
                    "image/class/text": b"a goldfish",
                },
                packed=bool(part),
            )
            for n in range(part * 10, len(images) if part else 10)
        ]
        files.append(str(write(tmp_path / f"train-0000{part}-of-00002", records, index)))
    source = tfrecord_source(tmp_path, label_offset=1)
    assert contents(source) == images and source.labels.tolist() == [label - 1 for label in labels]
    assert source.name(11) == f"{files[1]}: record 1"
    if index:
        pipeline = Pipeline(len(images), 1, None, prefetch_queue_depth=1)
        with pipeline:
            features = {
                IMAGE: tfrecord.FixedLenFeature((), tfrecord.string, ""),
                LABEL: tfrecord.FixedLenFeature([1], tfrecord.int64, -1),
            }
            read = fn.readers.tfrecord(path=files, index_path=[f"{file}.idx" for file in files], features=features)
            pipeline.set_outputs(read[IMAGE], read[LABEL])
        theirs, their_labels = pipeline.run()
        assert [np.asarray(theirs[n]).tobytes() for n in range(len(images))] == contents(source)
        assert [int(np.asarray(their_labels[n])[0]) - 1 for n in range(len(images))] == source.labels.tolist()


@settings(max_examples=40, deadline=None)
@given(
    records=st.lists(
        st.tuples(st.binary(min_size=1, max_size=300), st.integers(0, (1 << 63) - 1), st.booleans(), st.booleans()),
        min_size=1,
        max_size=5,
    ),
    others=st.dictionaries(st.text(max_size=5), st.one_of(st.binary(), st.floats(width=32), st.integers(-9, 9))),
)
def test_any_examples(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[tuple[bytes, int, bool, bool]],
    others: dict[str, object],
) -> None:
    path = tmp_path_factory.mktemp("records") / "a.tfrecord"
    written = []
    for image, label, packed, first in records:
        ours: dict[str, object] = {"i": image, "l": label}
        rest = {f"x{name}": value for name, value in others.items()}
        written.append(example({**ours, **rest} if first else {**rest, **ours}, packed))
    source = tfrecord_source(write(path, written), image="i", label="l")
    assert contents(source) == [record[0] for record in records]
    assert source.labels.tolist() == [record[1] for record in records]


def test_unknown_fields_and_no_labels(tmp_path: Path) -> None:
    """Fields of every wire type that an Example does not have are passed over."""
    strange = b"\x48\x05" + b"\x51" + bytes(8) + b"\x5d" + bytes(4) + field(12, b"?")
    record = strange + example({IMAGE: b"jpeg"}) + strange
    source = tfrecord_source(write(tmp_path / "a.tfrecords", [record]))
    assert contents(source) == [b"jpeg"] and source.labels.tolist() == [-1]


BAD: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "no image": ({"x": b"1", LABEL: 1}, {}, "record 1: no image in 'image/encoded'; name its feature (image=)"),
    "empty image": ({IMAGE: b"", LABEL: 1}, {}, "record 1: an empty image in 'image/encoded'"),
    "two images": (
        {IMAGE: [b"1", b"2"], LABEL: 1},
        {},
        "record 1: no tf.train.Example ('image/encoded' holds 2 images",
    ),
    "two labels": ({IMAGE: b"1", LABEL: [1, 2]}, {}, "'image/class/label' holds 2 labels, not 1"),
    "word": ({IMAGE: b"1", LABEL: b"cat"}, {}, "'image/class/label' holds no integers"),
    "no label": ({IMAGE: b"1"}, {}, "record 1: no label, unlike others"),
    "negative": ({IMAGE: b"1", LABEL: -1}, {}, "record 1: label -1 in 'image/class/label' with label_offset=0"),
    "below offset": (
        {IMAGE: b"1", LABEL: 0},
        {"label_offset": 1},
        "record 1: label 0 in 'image/class/label' with label_o",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_records(tmp_path: Path, case: str) -> None:
    features, options, message = BAD[case]
    path = write(tmp_path / "a.tfrecord", [example({IMAGE: b"1", LABEL: 1}), example(features)])
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        tfrecord_source(path, **options)  # type: ignore[arg-type]


def test_cut_anywhere(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [example({IMAGE: b"image", LABEL: n}) for n in range(2)])
    whole = path.read_bytes()
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        if size == len(whole) // 2:  # a whole record: nothing in the format tells
            assert len(tfrecord_source(path)) == 1
            continue
        with pytest.raises(ValueError, match=r"a\.tfrecord: truncated in(side| the header of) record [01]"):
            tfrecord_source(path)


def test_damaged_length_and_other_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [example({IMAGE: b"image", LABEL: 1})])
    whole = bytearray(path.read_bytes())
    whole[6] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"record 0 at byte 0: its length is damaged; write the file again"):
        tfrecord_source(path)
    path.write_bytes(gzip.compress(bytes(whole)))
    with pytest.raises(ValueError, match="compressed with gzip"):
        tfrecord_source(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="no images inside"):
        tfrecord_source(path)
    path.write_bytes(framed(b"\x0a\x05abc"))
    with pytest.raises(ValueError, match=r"record 0: no tf\.train\.Example \(a field reaches beyond its message\)"):
        tfrecord_source(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "does not fit"),
        (lambda lines: [lines[1], lines[0]], "does not fit"),
        (lambda lines: ["0 7", *lines[1:]], "does not fit"),
        (lambda lines: ["zero 7"], "no index"),
        (lambda lines: ["0 99999999999999999999"], "no index|does not fit"),
        (lambda lines: ["1 2 3"], "no index|does not fit"),
    ],
)
def test_false_index(tmp_path: Path, change: object, message: str) -> None:
    path = write(tmp_path / "a.tfrecord", [example({IMAGE: b"image" * (n + 1), LABEL: n}) for n in range(2)], True)
    index = Path(f"{path}.idx")
    index.rename(tmp_path / "a.idx")  # the other name it may have
    assert len(tfrecord_source(path)) == 2
    lines = (tmp_path / "a.idx").read_text().splitlines()
    (tmp_path / "a.idx").write_text("\n".join(change(lines)))  # type: ignore[operator]
    os.utime(tmp_path / "a.idx", ns=(1, 1))
    with pytest.raises(ValueError, match=rf"a\.idx: ({message})"):
        tfrecord_source(path)


def test_checksums_on_demand(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [example({IMAGE: b"image", LABEL: n}) for n in range(3)])
    assert list(broken_records(path)) == []
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 3 * 2 - 10] ^= 1
    path.write_bytes(whole)
    assert list(broken_records(path)) == [(1, "its contents do not have their checksum")]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 20), lengths_too=st.booleans())
def test_mutated_files_never_crash(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, lengths_too: bool
) -> None:
    """Whatever bytes are changed: a ValueError that names the file, or ranges inside it."""
    rng = np.random.default_rng(seed)
    records = [bytearray(example({"x": [1.0], IMAGE: b"image", LABEL: n})) for n in range(3)]
    for _ in range(count):
        record = records[rng.integers(3)]
        record[rng.integers(len(record))] = rng.integers(256)
    path = write(tmp_path_factory.mktemp("records") / "a.tfrecord", [bytes(record) for record in records])
    if lengths_too:
        data = bytearray(path.read_bytes())
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
    try:
        source = tfrecord_source(path)
    except ValueError as error:
        assert "a.tfrecord" in str(error)
    else:
        assert all(contents(source))
