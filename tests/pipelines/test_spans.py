"""Byte ranges of mapped files: views without copies, fresh maps in other processes, clear errors for changed files."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import re
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from has_dali.pipelines.file_maps import FileMaps
from has_dali.pipelines.name_table import NameBuilder, NameTable
from has_dali.pipelines.spans import SpanSource


def source_at(folder: Path) -> SpanSource:
    """Five samples in two files, in no order of place."""
    (folder / "a.bin").write_bytes(bytes(range(100)))
    (folder / "b.bin").write_bytes(bytes(range(100, 200)))
    files = [str(folder / "a.bin"), str(folder / "b.bin")]
    names = NameTable.of(["one", "two", "three", "vier", "fünf"])
    return SpanSource(
        files, [100, 100], [0, 1, 0, 1, 0], [90, 0, 5, 50, 6], [10, 3, 1, 50, 2], [3, 1, 4, 1, 5], names=names
    )


def bytes_of(source: SpanSource, ids: list[int]) -> list[bytes]:
    return [content.tobytes() for content in source.contents(ids)]


EXPECTED = [bytes(range(90, 100)), bytes(range(100, 103)), b"\x05", bytes(range(150, 200)), b"\x06\x07"]


def mappings(path: Path) -> int:
    """How often this process has a file mapped."""
    return Path("/proc/self/maps").read_text().count(str(path))


def test_contents_and_names(tmp_path: Path) -> None:
    source = source_at(tmp_path)
    assert len(source) == 5 and source.labels.tolist() == [3, 1, 4, 1, 5] and source.labels.dtype == np.int64
    assert bytes_of(source, [0, 1, 2, 3, 4]) == EXPECTED
    assert bytes_of(source, [3, 3, 0]) == [EXPECTED[3], EXPECTED[3], EXPECTED[0]]
    assert source.name(4) == f"{tmp_path}/a.bin: fünf"
    assert "5 images in 2 files" in repr(source)


def test_views_are_read_only_and_share_the_map(tmp_path: Path) -> None:
    source = source_at(tmp_path)
    assert not mappings(tmp_path)  # nothing before it is asked for
    one, two = source.contents([2, 4])
    assert not one.flags.writeable and one.dtype == np.uint8
    assert two.ctypes.data - one.ctypes.data == 1  # both lie in the one map of the file: no copies
    assert mappings(tmp_path / "a.bin") == 1 and not mappings(tmp_path / "b.bin")


def test_maps_close_with_the_source_but_not_under_a_view(tmp_path: Path) -> None:
    source = source_at(tmp_path)
    (view,) = source.contents([0])
    del source
    gc.collect()
    assert mappings(tmp_path) == 1 and view.tobytes() == EXPECTED[0]
    del view
    gc.collect()
    assert not mappings(tmp_path)


def test_pickled_without_maps(tmp_path: Path) -> None:
    source = source_at(tmp_path)
    before = source.contents([0])
    stored = pickle.dumps(source)
    assert before[0].tobytes() not in stored
    again = pickle.loads(stored)
    assert bytes_of(again, [0, 3]) == [EXPECTED[0], EXPECTED[3]]
    assert again.fingerprint() == source.fingerprint() and again.name(0) == source.name(0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(tmp_path: Path, method: str) -> None:
    source = source_at(tmp_path)
    source.contents([0])  # mapped before the fork
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert pool.submit(bytes_of, source, [0, 1, 2]).result() == EXPECTED[:3]
    assert bytes_of(source, [0]) == EXPECTED[:1]


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("what", ["shrunk", "grown", "gone"])
def test_changed_files(tmp_path: Path, what: str, mapped: bool) -> None:
    source = source_at(tmp_path)
    if mapped:
        source.contents([1])
    path = tmp_path / "b.bin"
    if what == "gone":
        path.unlink()
        kind, message = FileNotFoundError, "cannot be read (no such file or directory); restore the file"
    else:
        path.write_bytes(b"x" * (10 if what == "shrunk" else 101))
        kind, message = OSError, f"has {10 if what == 'shrunk' else 101} bytes, 100 when it was indexed"
    with pytest.raises(kind, match=re.escape(f"{path}: {message}")):
        source.contents([0, 1])
    assert bytes_of(source, [0]) == EXPECTED[:1]  # the other file is as it was


def test_titles_name_what_the_user_knows(tmp_path: Path) -> None:
    (tmp_path / "cache.bin").write_bytes(b"x")
    source = SpanSource(
        [str(tmp_path / "cache.bin")], [2], [0], [0], [1], names=NameTable.of(["row 0"]), titles=["set.parquet"]
    )
    assert source.name(0) == "set.parquet: row 0" and source.labels.tolist() == [-1]
    with pytest.raises(OSError, match=r"set\.parquet: its bytes in .*cache\.bin: has 1 bytes, 2 when it was indexed"):
        source.contents([0])


def test_select(tmp_path: Path) -> None:
    source = source_at(tmp_path)
    chosen = source.select([4, 1, 1])
    assert bytes_of(chosen, [0, 1, 2]) == [EXPECTED[4], EXPECTED[1], EXPECTED[1]]
    assert chosen.labels.tolist() == [5, 1, 1] and chosen.name(0) == source.name(4)
    with pytest.raises(ValueError, match="ids: expected sample ids from 0 to 4, got 5"):
        source.select([5])


def test_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    source, moved = source_at(tmp_path / "here"), source_at(tmp_path / "there")
    assert re.fullmatch("[0-9a-f]{16}", source.fingerprint()) and source.fingerprint() == moved.fingerprint()
    fields = {
        name: getattr(source, name) for name in ("files", "file_of", "offsets", "lengths", "labels", "names", "digests")
    }
    fields["sizes"] = source.maps.sizes
    changes = {
        "files": [*source.files[:1], str(tmp_path / "here" / "c.bin")],
        "sizes": [100, 101],
        "file_of": [0, 1, 0, 1, 1],
        "offsets": [89, 0, 5, 50, 6],
        "lengths": [9, 3, 1, 50, 2],
        "labels": [3, 1, 4, 1, 6],
        "names": NameTable.of(["one", "two", "three", "four", "fünf"]),
        "digests": ["0" * 64] * 2,
    }
    prints = [SpanSource(**{**fields, name: value}).fingerprint() for name, value in changes.items()]
    assert len({source.fingerprint(), *prints}) == 1 + len(changes)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """A data set may have more shards than a process may open files."""
    files = [tmp_path / f"{n:02}" for n in range(20)]
    for n, file in enumerate(files):
        file.write_bytes(bytes([n]))
    maps = FileMaps([str(file) for file in files], np.ones(20, np.int64))
    before = len(os.listdir("/proc/self/fd"))
    views = [maps[n] for n in range(20)]
    assert [int(view[0]) for view in views] == list(range(20)) and mappings(tmp_path) == 20
    assert len(os.listdir("/proc/self/fd")) == before


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    maps = FileMaps([str(tmp_path / "a")], np.zeros(1, np.int64))
    maps.will_need(0, 0, 0)
    assert maps[0].shape == (0,) and not maps[0].flags.writeable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_of": [], "offsets": [], "lengths": [], "names": NameTable.of([]), "labels": None}, "data is empty"),
        ({"offsets": [0]}, "offsets, lengths, names: expected one for each"),
        ({"sizes": [5]}, "sizes, titles: expected one for each of the files"),
        ({"file_of": [0, 2]}, "file_of: expected 0 to 1"),
        ({"lengths": [1, 6]}, r"b: y: lies outside its file"),
        ({"offsets": [-1, 0]}, r"a: x: lies outside its file"),
        ({"labels": [1]}, "labels: expected 2 integers, one per image"),
    ],
)
def test_bad_arguments(change: dict[str, object], message: str) -> None:
    good = {"files": ["a", "b"], "sizes": [5, 5], "file_of": [0, 1], "offsets": [0, 0], "lengths": [1, 1]}
    fields = {**good, "labels": [0, 1], "names": NameTable.of(["x", "y"]), **change}
    with pytest.raises(ValueError, match=message):
        SpanSource(**fields)  # type: ignore[arg-type]


def test_name_table() -> None:
    names = ["", "a", "über/ß.jpg", os.fsdecode(b"\xff\xfe"), "a" * 300]
    builder = NameBuilder()
    builder.append(os.fsencode(names[0]))
    builder.extend([os.fsencode(name) for name in names[1:]])
    table = builder.table()
    assert list(table) == names == list(NameTable.of(names)) and len(table) == 5
    assert list(table.select(np.array([2, 0, 2]))) == [names[2], names[0], names[2]]
    assert b"".join(table.chunks()) == b"\0".join(map(os.fsencode, names))
    assert NameTable.of(["abc/d", "abc/ef", "abc/"]).shared_prefix() == b"abc/" and table.shared_prefix() == b""
    assert not table.encoded(4).flags.writeable
    with pytest.raises(ValueError, match="names: expected flat uint8 data"):
        NameTable(np.zeros(3, np.uint8), np.array([0, 2]))


def test_name_table_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("has_dali.pipelines.name_table._ROWS", 3)
    names = [f"/x/{n}" for n in range(11)]
    assert b"".join(NameTable.of(names).chunks(skip=3)) == b"\0".join(str(n).encode() for n in range(11))


def test_a_batch_is_asked_for_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first view is made, the pages of the whole batch are on their way."""
    (tmp_path / "a").write_bytes(bytes(50_000))
    source = SpanSource([str(tmp_path / "a")], [50_000], [0, 0], [10_000, 0], [9000, 5], names=NameTable.of("xy"))
    asked: list[tuple[int, int, int]] = []
    will_need = FileMaps.will_need

    def noted(maps: FileMaps, index: int, offset: int, length: int) -> None:
        asked.append((index, offset, length))
        will_need(maps, index, offset, length)

    monkeypatch.setattr(FileMaps, "will_need", noted)
    assert [len(view) for view in source.contents([0, 1])] == [9000, 5]
    assert asked == [(0, 10_000, 9000), (0, 0, 5)]


def test_many_threads(tmp_path: Path) -> None:
    """They map at once; every view is right, and one map of each file is left."""
    for n in range(12):
        (tmp_path / f"{n:02}").write_bytes(bytes([n]) * 5000)
    files = [str(tmp_path / f"{n:02}") for n in range(12)]
    many = range(12)
    source = SpanSource(files, [5000] * 12, many, [7] * 12, [4000] * 12, names=NameTable.of("x" * 12))

    def wrong(seed: int) -> int:
        ids = np.random.default_rng(seed).integers(0, 12, 300)
        return sum(int((view != n).any()) for n, view in zip(ids.tolist(), source.contents(ids), strict=True))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wrong, range(24))) == 0
    gc.collect()
    assert mappings(tmp_path) == 12
