"""Packing into a folder of an earlier run: what is whole stays, whatever happens to the rest."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.pipelines import open_source, pack_manifest
from has_dali.pipelines.pack_manifest import locked, read_manifest
from has_dali.pipelines.packing import PackReport, pack
from has_dali.pipelines.shard_index import read_index
from has_dali.pipelines.sources import FileSource


@pytest.fixture
def photos(tmp_path: Path) -> FileSource:
    """12 noisy JPEGs of two classes."""
    rng = np.random.default_rng(0)
    for n in range(12):
        path = tmp_path / "photos" / "ab"[n // 6] / f"{n:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (50, 60 + n, 3)).astype(np.uint8)).save(path)
    return open_source(tmp_path / "photos")


def _pack(source: FileSource, out: Path, **options: object) -> PackReport:
    return pack(source, out, **{"short_side": 40, "shard_bytes": 15_000, "jobs": 2, **options})  # type: ignore[arg-type]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_broken_image_under_a_faulty_shard_costs_nothing_else(photos: FileSource, tmp_path: Path) -> None:
    shards = _pack(photos, tmp_path / "out").shards
    assert shards > 3
    shard = tmp_path / "out" / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    content = Path(photos.path(0)).read_bytes()
    Path(photos.path(0)).write_bytes(b"no image")
    before = _contents(tmp_path / "out")
    with pytest.raises(ValueError, match=r"00\.jpg: is no image"):
        _pack(photos, tmp_path / "out")
    assert _contents(tmp_path / "out") == before
    report = _pack(photos, tmp_path / "out", on_error="skip")
    assert report.kept == shards - 1 and [one.sample_id for one in report.skipped] == [0] and report.images == 11
    # Repaired, it is taken in, without being asked for
    Path(photos.path(0)).write_bytes(content)
    report = _pack(photos, tmp_path / "out")
    assert report.kept == shards - 1 and report.images == 12 and not report.skipped
    assert not (tmp_path / "out" / "skipped.csv").exists()
    assert list(read_index(tmp_path / "out").keys) == [f"{n:08}" for n in range(12)]


def test_changed_images_are_packed_again(photos: FileSource, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards = _pack(photos, tmp_path / "out").shards
    before = _contents(tmp_path / "out")
    Image.new("RGB", (50, 70), (200, 0, 0)).save(photos.path(5))
    with caplog.at_level(logging.WARNING):
        assert _pack(photos, tmp_path / "out").kept == shards - 1
    assert "have changed since" in caplog.text
    after = _contents(tmp_path / "out")
    assert sum(after[name] != before[name] for name in before if name.endswith(".tar")) == 1
    caplog.clear()
    assert (
        _pack(photos, tmp_path / "out").kept == shards and not caplog.records and _contents(tmp_path / "out") == after
    )
    (changed,) = (packed for packed in read_manifest(tmp_path / "out").shards if packed.first <= 5 < packed.end)
    for n in range(changed.first, changed.end):  # all images of a shard may be broken
        Path(photos.path(n)).write_bytes(b"")
    assert _pack(photos, tmp_path / "out", on_error="skip").images == 12 - (changed.end - changed.first)
    assert len(read_index(tmp_path / "out").files) == shards


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_shard_that_cannot_be_read_is_no_faulty_one(
    photos: FileSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _pack(photos, tmp_path / "out")
    before = _contents(tmp_path / "out")

    def unreadable(path: Path) -> str:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(pack_manifest, "file_digest", unreadable)
    with pytest.raises(OSError, match=os.strerror(number)):
        _pack(photos, tmp_path / "out")
    assert _contents(tmp_path / "out") == before


def test_shards_to_be_replaced_count_as_room(
    photos: FileSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = _pack(photos, tmp_path / "out").shards
    before = _contents(tmp_path / "out")
    paths = sorted((tmp_path / "out").glob("*.tar"))
    for path in paths:
        path.write_bytes(before[path.name][:-1] + b"x")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 100, 100))
    damaged = _contents(tmp_path / "out")
    with pytest.raises(OSError, match="are free"):
        _pack(photos, tmp_path / "out")
    assert _contents(tmp_path / "out") == damaged  # the index too: nothing was touched
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 25_000, 25_000))  # one shard more
    assert _pack(photos, tmp_path / "out").kept == 0
    assert _contents(tmp_path / "out") == before and shards == len(paths)


def test_a_damaged_manifest_is_taken_from_its_copy(
    photos: FileSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards = _pack(photos, tmp_path / "out").shards
    before = _contents(tmp_path / "out")
    manifest, copy = tmp_path / "out" / "pack.json", tmp_path / "out" / ".pack.json.copy"
    manifest.write_bytes(before["pack.json"][:100])
    assert _pack(photos, tmp_path / "out").kept == shards and "its copy is taken" in caplog.text
    assert _contents(tmp_path / "out") == before
    manifest.write_bytes(b"")
    copy.write_bytes(b"[]")
    with pytest.raises(ValueError, match=r"so is its copy; restore it.*its shards are complete and load as before"):
        _pack(photos, tmp_path / "out")
    assert set(_contents(tmp_path / "out")) == set(before)


def test_the_lock_is_a_file_that_goes_again(
    photos: FileSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".pack.lock").touch()  # of a run that was killed
    with locked(tmp_path):
        assert (tmp_path / ".pack.lock").exists()
        with pytest.raises(ValueError, match="another process"), locked(tmp_path):
            pass
        assert (tmp_path / ".pack.lock").exists()
    assert not (tmp_path / ".pack.lock").exists()

    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(pack_manifest.fcntl, "flock", no_locks)
    assert _pack(photos, tmp_path / "out").images == 12
