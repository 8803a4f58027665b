"""Parquet data sets against pyarrow's own reading; the copy in the cache, and what happens when there is no room."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from has_dali.pipelines import index_cache, parquet
from has_dali.pipelines.parquet import parquet_source
from has_dali.pipelines.spans import SpanSource

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HAS_DALI_CACHE", str(folder))
    monkeypatch.setattr(index_cache, "SETTLED_NS", -1)  # what the tests have just written counts as old
    return folder


def write(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[int | None] | None = None,
    names: Sequence[str] = (),
    **options: Any,
) -> Path:
    """As the hub writes: a struct of bytes and path, an int64 label, the features as JSON beside the schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [None if image is None else {"bytes": image, "path": f"{n}.jpg"} for n, image in enumerate(images)]
    columns: dict[str, Any] = {"image": pa.array(rows, STRUCT)}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int64())
    table = pa.table(columns)
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, **options)
    return path


def contents(source: SpanSource) -> list[bytes]:
    return [content.tobytes() for content in source.contents(np.arange(len(source)))]


@pytest.mark.parametrize("codec", ["NONE", "SNAPPY", "ZSTD"])
def test_a_data_set_of_the_hub(tmp_path: Path, image_folder: Path, codec: str) -> None:
    images = [file.read_bytes() for file in sorted(image_folder.rglob("*.jpg"))]
    names = ["ant", "bee", "cat"]
    for part in range(2):
        some = images[15 * part : 15 * part + 15]
        labels = [n % 3 for n in range(len(some))]
        path = tmp_path / "data" / f"train-0000{part}-of-00002.parquet"
        write(path, some, labels, names, compression=codec, row_group_size=4)
    source = parquet_source(tmp_path)
    assert contents(source) == images and source.labels.tolist() == [n % 3 for n in range(15)] * 2
    assert source.classes == ("ant", "bee", "cat")
    assert source.name(16) == f"{tmp_path}/data/train-00001-of-00002.parquet: row 1"


@settings(max_examples=30, deadline=None)
@given(
    images=st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=20),
    kind=st.sampled_from(["struct", "binary", "large", "swapped"]),
    group=st.integers(1, 7),
    width=st.sampled_from([pa.int8(), pa.uint16(), pa.int32(), pa.int64()]),
)
def test_any_layout(
    tmp_path_factory: pytest.TempPathFactory, images: list[bytes], kind: str, group: int, width: pa.DataType
) -> None:
    """Binary columns, structs with their fields in either order, small row groups, dictionary pages."""
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    column = {
        "struct": lambda: pa.array([{"bytes": image, "path": None} for image in images], STRUCT),
        "swapped": lambda: pa.array([{"bytes": i, "path": ""} for i in images], pa.struct([*STRUCT][::-1])),
        "binary": lambda: pa.array(images, pa.binary()),
        "large": lambda: pa.array(images, pa.large_binary()),
    }[kind]()
    labels = [n % 100 for n in range(len(images))]
    pq.write_table(pa.table({"x": labels, "pixels": column, "y": pa.array(labels, width)}), path, row_group_size=group)
    source = parquet_source(path, image="pixels", label="y")
    assert contents(source) == images and source.labels.tolist() == labels


def test_opened_again_nothing_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path / f"{n}.parquet", [b"image %d" % n] * 3, [n] * 3) for n in range(2)]
    first = parquet_source(paths)
    copied: list[str] = []
    extract = parquet._extracted

    def counted(file: str, *rest: Any) -> Any:
        copied.append(file)
        return extract(file, *rest)

    monkeypatch.setattr(parquet, "_extracted", counted)
    again = parquet_source(paths)
    assert not copied and contents(again) == contents(first) and again.fingerprint() == first.fingerprint()
    write(paths[1], [b"another"], [1])
    assert contents(parquet_source(paths)) == [*[b"image 0"] * 3, b"another"] and copied == [str(paths[1])]
    os.utime(paths[0], ns=(1, 1))
    parquet_source(paths)
    assert copied[1:] == [str(paths[0])]
    Path(first.files[1]).unlink()
    assert contents(parquet_source(paths))[3:] == [b"another"] and copied[2:] == [str(paths[1])]


def test_splits(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "validation-00000-of-00001", "test-00000-of-00001"):
        write(tmp_path / "data" / f"{name}.parquet", [name.encode()], [0])
    assert contents(parquet_source(tmp_path, train=True)) == [b"train-00000-of-00001"]
    assert contents(parquet_source(tmp_path, train=False)) == [b"validation-00000-of-00001"]
    assert len(parquet_source(tmp_path)) == 3
    (tmp_path / "data" / "validation-00000-of-00001.parquet").unlink()
    assert contents(parquet_source(tmp_path / "data", train=False)) == [b"test-00000-of-00001"]
    (tmp_path / "data" / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds test files only, no train-\*\.parquet; take .*by name"):
        parquet_source(tmp_path, train=True)
    (tmp_path / "data" / "test-00000-of-00001.parquet").rename(tmp_path / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(FileNotFoundError, match=r"holds train files only, no validation-\* or test-\*\.parquet"):
        parquet_source(tmp_path, train=False)
    (tmp_path / "data" / "train-00000-of-00001.parquet").rename(tmp_path / "data" / "images.parquet")
    assert len(parquet_source(tmp_path, train=False)) == len(parquet_source(tmp_path, train=True)) == 1


def test_without_labels(tmp_path: Path) -> None:
    assert parquet_source(write(tmp_path / "a.parquet", [b"1", b"2"])).labels.tolist() == [-1, -1]
    hidden = write(tmp_path / "b.parquet", [b"1", b"2"], [-1, -1], ["x", "y"])
    assert parquet_source(hidden).labels.tolist() == [-1, -1]
    with pytest.raises(ValueError, match=r"some have the column 'label', some do not"):
        parquet_source([hidden, write(tmp_path / "c.parquet", [b"1"], [0], ["x", "y"])])


def bad_table(kind: str) -> pa.Table:
    return {
        "no column": pa.table({"img": [b"1"], "label": [0]}),
        "text": pa.table({"image": ["1"], "label": [0]}),
        "other struct": pa.table({"image": [{"path": "a.jpg"}], "label": [0]}),
        "float": pa.table({"image": [b"1"], "label": [0.0]}),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no column", r"no column 'image' \(has img, label\); name it \(image=\)"),
        ("text", "column 'image' is string; expected binary, or a struct with 'bytes'"),
        ("other struct", r"column 'image' is struct<path: string>; expected a struct with 'bytes'"),
        ("float", r"column 'label' is double; expected integers"),
    ],
)
def test_bad_columns(tmp_path: Path, cache: Path, kind: str, message: str) -> None:
    pq.write_table(bad_table(kind), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=rf"a\.parquet: {message}"):
        parquet_source(tmp_path / "a.parquet")
    assert not list(cache.rglob("*.bin")) and not list(cache.rglob("*.part"))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([b"1"] * 300 + [None], [0] * 301, "row 300: has no image"),
        ([b"1"] * 300 + [b""], [0] * 301, "row 300: the image is empty"),
        ([b"1"] * 300, [0] * 299 + [None], "row 299: has no label"),
        ([b"1"] * 300, [0] * 299 + [-2], "row 299: label -2; expected an integer from 0 on"),
        ([b"1"] * 300, [0] * 298 + [-1, 0], "row 298: label -1, unlike others"),
        ([b"1"] * 300, [0] * 299 + [2], r"row 299: label 2; expected 0 to 1 \(its classes\)"),
        ([], [], r"data is empty"),
    ],
)
def test_bad_rows(
    tmp_path: Path, cache: Path, images: list[bytes | None], labels: list[int | None], message: str
) -> None:
    path = write(tmp_path / "a.parquet", images, labels, ["x", "y"])
    with pytest.raises(ValueError, match=message):
        parquet_source(path)
    assert not list(cache.rglob("*.part"))


def test_paths_without_bytes(tmp_path: Path) -> None:
    rows = pa.array([{"bytes": None, "path": "a.jpg"}], STRUCT)
    pq.write_table(pa.table({"image": rows, "label": [0]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="row 0: holds no bytes of its image, at most a path"):
        parquet_source(tmp_path / "a.parquet")


def test_damaged_files(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "a.parquet", [os.urandom(3000) for _ in range(50)], [0] * 50, compression="ZSTD")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"PAR1 no PAR1", whole[:300] + b"\xff" * 5000 + whole[5300:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.parquet: (no parquet file|row)"):
            parquet_source(path)
        assert not list(cache.rglob("*.bin")) and not list(cache.rglob("*.part"))


def test_other_class_names(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n}.parquet", [b"1"], [0], names) for n, names in enumerate((["a"], ["b"]))]
    with pytest.raises(ValueError, match=r"1\.parquet has other class names than .*0\.parquet"):
        parquet_source(paths)


def test_no_room_at_the_start(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [os.urandom(1000)], [0])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=500))
    with pytest.raises(OSError, match=r"the disk is full: .* need a copy in the cache.*HAS_DALI_CACHE"):
        parquet_source(path)
    assert not list(cache.rglob("*.bin")) and not list(cache.rglob("*.part"))


def test_no_room_on_the_way(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [os.urandom(1000) for _ in range(1000)], [0] * 1000)
    fdopen = os.fdopen

    class Filling:
        """A file on a disk with room for half a megabyte."""

        def __init__(self, *args: Any) -> None:
            self._file, self._room = fdopen(*args), 500_000

        def write(self, piece: Any) -> int:
            self._room -= len(piece)
            if self._room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._file.write(piece)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: Any) -> None:
            self._file.close()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", Filling)
        with pytest.raises(OSError, match="the disk is full"):
            parquet_source(path)
    assert not list(cache.rglob("*.bin")) and not list(cache.rglob("*.part"))
    assert len(parquet_source(path)) == 1000


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("HAS_DALI_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="HAS_DALI_CACHE name a folder"):
        parquet_source(write(tmp_path / "a.parquet", [b"1"], [0]))


def opened(path: str) -> list[bytes]:
    return contents(parquet_source(path))


def test_ranks_that_start_at_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [os.urandom(2000) for _ in range(500)], list(range(500)))
    extract = parquet._extracted

    def slow(*args: Any) -> Any:
        with open(tmp_path / "log", "ab", buffering=0) as file:
            file.write(b"x\n")
        time.sleep(0.2)  # all the others come meanwhile
        return extract(*args)

    monkeypatch.setattr(parquet, "_extracted", slow)
    with ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(opened, [str(path)] * 4))
    assert all(each == found[0] for each in found) and len(list(cache.rglob("*.bin"))) == 1
    assert (tmp_path / "log").read_bytes().count(b"x") == 1


def test_a_file_written_just_now_is_copied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change again within the tick of its clock, and keep size and time."""
    monkeypatch.setattr(index_cache, "SETTLED_NS", 2_000_000_000)
    path = write(tmp_path / "a.parquet", [b"image"], [0])
    for _ in range(2):
        assert contents(parquet_source(path)) == [b"image"]
    assert index_cache.load_index(index_cache.cache_key("parquet", [str(path)], "image\nlabel")) is None
