"""Cached indexes: taken while nothing has changed, never when something has, and never needed."""

from __future__ import annotations

import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from has_dali.pipelines import class_folders, index_cache
from has_dali.pipelines.index_cache import cache_folder, cache_key, file_stamps, load_index, save_index
from has_dali.pipelines.sources import folder_source


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HAS_DALI_CACHE", str(folder))
    monkeypatch.setattr(index_cache, "SETTLED_NS", -1)  # what the tests have just written counts as old
    return folder


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three class folders, one nested; few files are cached here too."""
    monkeypatch.setattr(class_folders, "CACHED_FROM", 1)
    root = tmp_path / "set"
    for name in ("a/1.jpg", "a/2.jpg", "b/deep/3.png", "b/4.jpg", "c/ü.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The roots that were walked."""
    found: list[str] = []
    walk = class_folders._walk

    def counted(root: str) -> object:
        found.append(root)
        return walk(root)

    monkeypatch.setattr(class_folders, "_walk", counted)
    return found


def test_arrays_come_back(cache: Path) -> None:
    arrays = {"a": np.arange(5), "b": np.array(["x", "yz"]), "c": np.zeros((0, 2), np.int32)}
    key = cache_key("kind", ["some/where"])
    assert load_index(key) is None and save_index(key, arrays)
    again = load_index(key)
    assert again is not None and set(again) == set(arrays)
    for name, array in arrays.items():
        assert np.array_equal(again[name], array) and again[name].dtype == array.dtype
    assert [file.name for file in (cache / "index").iterdir()] == [f"{key}.npz"]


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = cache_key("tar", [str(tmp_path / "a")])
    assert re.fullmatch("tar-[0-9a-f]{32}", key)
    monkeypatch.chdir(tmp_path)
    assert cache_key("tar", ["a"]) == cache_key("tar", ["./x/../a"]) == key
    others = [("rec", ["a"], ""), ("tar", ["b"], ""), ("tar", ["a", "b"], ""), ("tar", ["a"], "option")]
    assert len({key, *(cache_key(*other) for other in others)}) == 5


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HAS_DALI_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("HAS_DALI_CACHE")
    assert cache_folder() == tmp_path / ".cache" / "has_dali"


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half of one"])
def test_damaged_entries_count_for_nothing(cache: Path, content: bytes) -> None:
    save_index("key", {"a": np.arange(3)})
    (cache / "index" / "key.npz").write_bytes(content)
    assert load_index("key") is None


def test_any_flipped_byte(cache: Path) -> None:
    """The entry counts for nothing, or is as it was: some bytes of a zip file mean nothing."""
    arrays = {"a": np.arange(3), "b": np.array(["x"])}
    save_index("key", arrays)
    path, refused = cache / "index" / "key.npz", 0
    content = path.read_bytes()
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        found = load_index("key")
        refused += found is None
        assert found is None or all(np.array_equal(found[name], array) for name, array in arrays.items())
    assert refused > len(content) // 2


def test_entries_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    save_index("key", {"a": np.arange(3)})
    monkeypatch.setattr(index_cache, "CACHE_VERSION", index_cache.CACHE_VERSION + 1)
    assert load_index("key") is None


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("HAS_DALI_CACHE", str(tmp_path / "file"))
    with caplog.at_level("INFO"):
        assert len(folder_source(images)) == 5
    assert "no index cached, so the next run scans the data again" in caplog.text


def test_file_stamps(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    os.utime(tmp_path / "a", ns=(7, 7))
    found = os.stat(tmp_path / "a")
    assert file_stamps([str(tmp_path / "a")]).tolist() == [[5, 7, found.st_ctime_ns, found.st_ino]]
    with pytest.raises(FileNotFoundError, match=r"data: .*/b: no such file"):
        file_stamps([str(tmp_path / "b")])
    with pytest.raises(IsADirectoryError, match=r"data: .*: is no file"):
        file_stamps([str(tmp_path)])


def test_an_unchanged_folder_is_not_walked_again(images: Path, walks: list[str]) -> None:
    first, second = folder_source(images), folder_source(images)
    assert walks == [str(images)]
    assert [second.path(i) for i in range(5)] == [path for path, _ in ImageFolder(str(images)).samples]
    assert second.labels.tolist() == first.labels.tolist() == [0, 0, 1, 1, 2] and second.classes == ("a", "b", "c")
    assert second.fingerprint() == first.fingerprint()


def change_add(root: Path) -> None:
    (root / "a" / "0.jpg").write_bytes(b"x")


def change_remove(root: Path) -> None:
    (root / "b" / "deep" / "3.png").unlink()


def change_rename(root: Path) -> None:
    (root / "c" / "ü.jpg").rename(root / "c" / "v.jpg")


def change_add_class(root: Path) -> None:
    (root / "aa").mkdir()
    (root / "aa" / "x.jpg").write_bytes(b"x")


def change_rename_class(root: Path) -> None:
    (root / "a").rename(root / "z")


def change_add_below(root: Path) -> None:
    (root / "c" / "deeper").mkdir()
    (root / "c" / "deeper" / "x.jpg").write_bytes(b"x")


@pytest.mark.parametrize(
    "change", [change_add, change_remove, change_rename, change_add_class, change_rename_class, change_add_below]
)
def test_any_change_is_noticed(images: Path, walks: list[str], change: Callable[[Path], None]) -> None:
    before = folder_source(images)
    change(images)
    after, theirs = folder_source(images), ImageFolder(str(images))
    assert [after.path(i) for i in range(len(after))] == [path for path, _ in theirs.samples]
    assert after.labels.tolist() == theirs.targets and list(after.classes) == theirs.classes
    assert len(walks) == 2 and after.fingerprint() != before.fingerprint()


def test_times_that_were_set_back(images: Path, walks: list[str]) -> None:
    """Copying tools and unpackers give folders the times of their originals."""
    times = [os.stat(images / name).st_mtime_ns for name in "ac"]
    folder_source(images)
    change_rename(images)
    os.utime(images / "c", ns=(times[1], times[1]))
    assert folder_source(images).path(4).endswith("v.jpg") and len(walks) == 2
    (images / "a").rename(images.parent / "old")
    (images / "a").mkdir()
    (images / "a" / "3.jpg").write_bytes(b"x")
    os.utime(images / "a", ns=(times[0], times[0]))
    assert folder_source(images).path(0).endswith("3.jpg") and len(walks) == 3


def test_a_folder_changed_just_now_is_not_cached(images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a tick of the file system's clock it may change again and keep its time."""
    monkeypatch.setattr(index_cache, "SETTLED_NS", 2_000_000_000)
    os.utime(images / "b", ns=(7, 7))  # its modification time is long ago, that of its change is not
    folder_source(images)
    assert not list(cache.rglob("*.npz"))


def test_small_folders_are_not_cached(images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_folders, "CACHED_FROM", 6)
    folder_source(images)
    assert not list(cache.rglob("*.npz"))
    monkeypatch.setattr(class_folders, "CACHED_FROM", 5)
    folder_source(images)
    assert len(list(cache.rglob("*.npz"))) == 1


def test_relative_roots_keep_their_form(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images.parent)
    assert folder_source(images).path(0) == f"{images}/a/1.jpg"
    assert folder_source("set").path(0) == "set/a/1.jpg" == folder_source("set").path(0)
    assert folder_source("set").fingerprint() == folder_source(images).fingerprint()


def test_a_million_paths_take_little_memory(images: Path, walks: list[str]) -> None:
    """The index of ImageNet's 1.28 million files, as a walk would have stored it, opened in less than 300 MB."""
    count, letters = 1_280_000, 60
    folder_source(images)
    key = cache_key("folder", [str(images)])
    stored = load_index(key)
    assert stored is not None
    many = {
        "paths_data": np.full(count * letters, ord("x"), np.uint8),
        "paths_offsets": np.arange(0, count * letters + 1, letters),
        "labels": np.repeat(np.arange(1000), 1280),
    }
    save_index(key, {**stored, **many})
    del stored, many
    tracemalloc.start()
    source = folder_source(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(source) == count and source.path(count - 1) == "x" * letters
    assert peak < 300e6 and len(walks) == 1
