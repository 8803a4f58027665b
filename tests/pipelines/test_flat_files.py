"""The ranks of a job start at once: one does the work, whatever killed processes left, and nobody waits for ever."""

from __future__ import annotations

import errno
import fcntl
import io
import multiprocessing
import os
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from has_dali.pipelines import class_folders, index_cache, tar_shards
from has_dali.pipelines.flat_files import alone, write_flat
from has_dali.pipelines.sources import folder_source
from has_dali.pipelines.tar_shards import tar_source

RANKS = 4


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HAS_DALI_CACHE", str(folder))
    monkeypatch.setattr(index_cache, "SETTLED_NS", -1)  # what the tests have just written counts as old
    monkeypatch.setattr(class_folders, "CACHED_FROM", 1)
    return folder


def noted(work: Callable[..., Any], log: Path) -> Callable[..., Any]:
    """``work``, slower, and with a line in ``log`` for each call, in whatever process."""

    def slow(*args: Any, **options: Any) -> Any:
        with open(log, "ab", buffering=0) as file:
            file.write(b"x\n")
        time.sleep(0.2)
        return work(*args, **options)

    return slow


def write_tar(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for n in range(6):
            for name, content in ((f"{n}.jpg", b"image %d" % n), (f"{n}.cls", b"%d" % n)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def write_folder(path: Path) -> Path:
    for n in range(6):
        (path / f"class{n % 2}").mkdir(parents=True, exist_ok=True)
        (path / f"class{n % 2}" / f"{n}.jpg").write_bytes(b"x")
    return path


def names_in_tar(path: Path) -> list[str]:
    source = tar_source(path)
    return [source.name(n) for n in range(len(source))]


def names_in_folder(path: Path) -> list[str]:
    source = folder_source(path)
    return [source.name(n) for n in range(len(source))]


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_ranks_scan_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    data = write_tar(tmp_path / "a.tar") if kind == "tar" else write_folder(tmp_path / "set")
    module, name = (tar_shards, "_scan") if kind == "tar" else (class_folders, "_walk")
    monkeypatch.setattr(module, name, noted(getattr(module, name), tmp_path / "log"))
    opened = names_in_tar if kind == "tar" else names_in_folder
    with ProcessPoolExecutor(RANKS, multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(opened, [data] * RANKS))
    assert len(found[0]) == 6 and all(each == found[0] for each in found)
    assert (tmp_path / "log").read_bytes().count(b"x") == 1


def test_ranks_without_a_cache_scan_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("HAS_DALI_CACHE", str(tmp_path / "file"))
    assert len(names_in_tar(write_tar(tmp_path / "a.tar"))) == 6
    monkeypatch.delenv("HAS_DALI_CACHE")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert len(names_in_folder(write_folder(tmp_path / "set"))) == 6
    with pytest.raises(OSError, match="no home; let HAS_DALI_CACHE name a folder"):
        index_cache.cache_folder()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(code, os.strerror(code))

    other = tmp_path / ".a.bin.other.part"
    other.write_bytes(b"being written")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone(tmp_path / "a.bin"):
        assert write_flat(tmp_path / "a.bin", [b"12", b"3"], 3) == 3
    assert other.exists()  # without a lock nobody knows who writes it


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    left, other = tmp_path / ".a.bin.killed.part", tmp_path / ".b.bin.killed.part"
    for file in (left, other):
        file.write_bytes(b"half")
    with alone(tmp_path / "a.bin"):
        assert not left.exists() and other.exists()


def test_errors_within_come_out(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the work's own"), alone(tmp_path / "a.bin"):
        raise OSError("the work's own")
    with alone(tmp_path / "a.bin"):  # let go
        pass
