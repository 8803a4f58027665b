"""Packed shards: what is in them, that they come out the same however they are made, and what stops the work."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import random
import shutil
import subprocess
import tarfile
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.pipelines import ArraySource, open_source
from has_dali.pipelines import pack_shards as shards_module
from has_dali.pipelines.pack_shards import ShardWriter
from has_dali.pipelines.packing import PackReport, pack
from has_dali.pipelines.raw_spans import raw_source
from has_dali.pipelines.shard_index import read_index
from has_dali.pipelines.sources import FileSource

SHARD = 40_000


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> FileSource:
    """24 noisy JPEGs, each larger than 40 pixels, in two class folders."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for n in range(24):
        folder = root / "ab"[n // 12]
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (50 + n, 90 - n, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:02}.jpg", quality=95)
    return open_source(root)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _members(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def _pack(source: object, out: Path, **options: object) -> PackReport:
    return pack(source, out, **{"short_side": 40, "shard_bytes": SHARD, "jobs": 2, **options})  # type: ignore[arg-type]


def test_images_are_shrunk_as_torchvision_would_and_labelled(photos: FileSource, tmp_path: Path) -> None:
    from torchvision.transforms import Resize

    report = _pack(photos, tmp_path / "out")
    members = _members(tmp_path / "out")
    assert report.images == 24 and report.kept == 0 and len(members) == 48 and not report.skipped
    for n in range(24):
        with Image.open(photos.path(n)) as original, Image.open(io.BytesIO(members[f"{n:08}.jpg"])) as packed:
            assert packed.size == Resize(40)(original).size and packed.format == "JPEG"
            expected = original.resize(packed.size, Image.Resampling.LANCZOS)
            luma = [np.asarray(image.convert("L"), float) for image in (packed, expected)]  # chroma is halved
            assert np.abs(luma[0] - luma[1]).mean() < 5
        assert members[f"{n:08}.cls"] == str(n // 12).encode()
    sizes = [path.stat().st_size for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert len(sizes) == report.shards > 1 and sum(sizes) == report.bytes and max(sizes) <= SHARD + 10240


def test_the_index_points_at_the_members(photos: FileSource, tmp_path: Path) -> None:
    _pack(photos, tmp_path)
    index, members = read_index(tmp_path), _members(tmp_path)
    assert index.kind == "jpeg" and index.misfit(tmp_path) is None
    assert index.classes == ("a", "b") and np.array_equal(index.labels, photos.labels)
    for n in range(24):
        shard = (tmp_path / index.files[index.file_of[n]]).read_bytes()
        assert shard[index.offsets[n] : index.offsets[n] + index.lengths[n]] == members[f"{n:08}.jpg"]
        assert index.keys[n] == f"{n:08}"


def test_tar_and_webdataset_read_the_shards(photos: FileSource, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    _pack(photos, tmp_path / "jpeg")
    _pack(photos, tmp_path / "raw", raw=True)
    for kind in ("jpeg", "raw"):
        files = sorted(map(str, (tmp_path / kind).glob("*.tar")))
        for file in files:
            result = subprocess.run(["tar", "--list", "--file", file], capture_output=True, text=True, check=True)
            assert result.stderr == "" and len(result.stdout.split()) > 2
        samples = list(webdataset.WebDataset(files, shardshuffle=False).decode("rgb8"))
        assert [sample["cls"] for sample in samples] == photos.labels.tolist()
        assert [sample["__key__"] for sample in samples] == [f"{n:08}" for n in range(24)]
        assert all(sample["npy" if kind == "raw" else "jpg"].dtype == np.uint8 for sample in samples)


def test_raw_members_are_numpys(photos: FileSource, tmp_path: Path) -> None:
    _pack(photos, tmp_path, raw=True)
    members, source = _members(tmp_path), raw_source(tmp_path)
    for n in range(24):
        pixels = np.load(io.BytesIO(members[f"{n:08}.npy"]), allow_pickle=False)
        with Image.open(photos.path(n)) as image:
            expected = np.asarray(image.resize(pixels.shape[1::-1], Image.Resampling.LANCZOS))
        assert np.array_equal(pixels, expected) and min(pixels.shape[:2]) == 40
        assert np.array_equal(source.image(n), pixels) and source.addresses[n] % 64 == source.addresses[0] % 64


def test_the_number_of_threads_changes_no_byte(photos: FileSource, tmp_path: Path) -> None:
    _pack(photos, tmp_path / "one", jobs=1)
    _pack(photos, tmp_path / "many", jobs=5)
    assert _contents(tmp_path / "one") == _contents(tmp_path / "many")


def test_images_in_memory_are_packed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = ArraySource.from_images([rng.integers(0, 256, (8 + n, 9, 3)).astype(np.uint8) for n in range(5)], range(5))
    _pack(source, tmp_path, raw=True, short_side=0)
    packed = raw_source(tmp_path)
    assert all(np.array_equal(packed.image(n), source.image(n)) for n in range(5))
    assert packed.labels.tolist() == list(range(5))


def test_killed_at_any_moment_it_goes_on_to_the_same_result(photos: FileSource, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    start = time.perf_counter()
    _pack(photos, whole)
    duration = time.perf_counter() - start
    context, dice = multiprocessing.get_context("fork"), random.Random(7)
    survived = 0
    for _ in range(12):
        process = context.Process(target=_pack, args=(photos, out))
        process.start()
        process.join(dice.uniform(0.1, 0.9) * duration)
        process.kill()
        process.join()
        survived += process.exitcode == 0
        done = list(out.glob("*.tar")) if out.exists() else []
        assert (out / "index.npz").exists() <= (len(done) == len(list(whole.glob("*.tar"))))
    assert survived < 12
    report = _pack(photos, out)
    assert _contents(out) == _contents(whole) and report.images == 24


def test_finished_shards_are_kept_and_changed_ones_redone(photos: FileSource, tmp_path: Path) -> None:
    first = _pack(photos, tmp_path)
    before = _contents(tmp_path)
    steps: list[int] = []
    again = _pack(photos, tmp_path, advance=steps.append)
    assert again.kept == first.shards and sum(steps) == 24
    path = sorted(tmp_path.glob("*.tar"))[1]
    path.write_bytes(before[path.name][:-700] + b"x" + before[path.name][-699:])  # same size, another byte
    path.with_name("shard-000000.tar").unlink()
    steps.clear()
    assert _pack(photos, tmp_path, advance=steps.append).kept == first.shards - 2 and sum(steps) == 24
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("change", [{"short_side": 41}, {"quality": 80}, {"raw": True}, {"shard_bytes": 50_000}])
def test_other_settings_are_refused(photos: FileSource, tmp_path: Path, change: dict[str, int]) -> None:
    _pack(photos, tmp_path)
    before = _contents(tmp_path)
    with pytest.raises(ValueError, match=f"was begun .with {next(iter(change))}="):
        _pack(photos, tmp_path, **change)
    with pytest.raises(ValueError, match="another source"):
        _pack(photos.select(range(5)), tmp_path)
    assert _contents(tmp_path) == before


def test_folders_of_others_are_refused(photos: FileSource, tmp_path: Path) -> None:
    (tmp_path / "theirs.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"theirs\.tar"):
        _pack(photos, tmp_path)
    (tmp_path / "theirs.tar").unlink()
    (tmp_path / "pack.json").write_text("{")
    with pytest.raises(ValueError, match=r"pack\.json: damaged"):
        _pack(photos, tmp_path)


def test_two_at_once_are_refused(photos: FileSource, tmp_path: Path) -> None:
    from has_dali.pipelines.pack_manifest import locked

    with locked(tmp_path), pytest.raises(ValueError, match="another process"):
        _pack(photos, tmp_path)
    _pack(photos, tmp_path)


@pytest.mark.parametrize("room", [0, 700, 60_000])
def test_a_full_disk_leaves_finished_shards_only(
    photos: FileSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    _pack(photos, tmp_path / "whole")
    write, left = ShardWriter._write, [room]

    def limited(self: ShardWriter, content: bytes) -> None:
        left[0] -= len(content)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, content)

    monkeypatch.setattr(ShardWriter, "_write", limited)
    out = tmp_path / "out"
    with pytest.raises(OSError, match="the disk is full; make room and run the same command again"):
        _pack(photos, out)
    whole = _contents(tmp_path / "whole")
    left_behind = _contents(out) if out.exists() else {}
    assert not any(".part" in name or name == "index.npz" for name in left_behind)
    assert all(content == whole[name] for name, content in left_behind.items() if name.endswith(".tar"))
    assert (len(left_behind) > 0) == (room == 60_000)
    monkeypatch.undo()
    _pack(photos, out)
    assert _contents(out) == whole


def test_too_little_room_is_known_before_the_work(
    photos: FileSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 20_000, 20_000))
    with pytest.raises(OSError, match=r"needs about .*, 2e-05 GB are free"):
        _pack(photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_gives_back_other_bytes_is_noticed(
    photos: FileSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "file_digest", lambda path: "0" * 64)
    with pytest.raises(OSError, match="other bytes than were written"):
        _pack(photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "missing"])
@pytest.mark.parametrize("short_side", [0, 40, 200])
def test_broken_images(photos: FileSource, tmp_path: Path, damage: str, short_side: int) -> None:
    files = [Path(shutil.copy(photos.path(n), tmp_path / f"{n:02}.jpg")) for n in range(24)]
    content = files[7].read_bytes()
    for path in (files[7], files[23]):
        path.write_bytes({"empty": b"", "text": b"no image", "cut": content[:900], "missing": b""}[damage])
    if damage == "missing":
        files[7].unlink()
    source, out = FileSource(files, photos.labels), tmp_path / "out"
    with pytest.raises(ValueError, match=r"07\.jpg: .*--on-error skip"):
        _pack(source, out, short_side=short_side)
    assert not (out / "index.npz").exists()
    report = _pack(source, out, short_side=short_side, on_error="skip")  # goes on where the error was
    assert [one.sample_id for one in report.skipped] == [7, 23] and report.images == 22
    index = read_index(out)
    good = [n for n in range(24) if n not in (7, 23)]
    assert list(index.keys) == [f"{n:08}" for n in good] and np.array_equal(index.labels, photos.labels[good])
    assert "07.jpg" in (out / "skipped.csv").read_text() and (out / "skipped.csv").read_text().count("\n") == 3
    with pytest.raises(ValueError, match="left out by an earlier run"):
        _pack(source, out, short_side=short_side)
    before = _contents(out)
    assert _pack(source, out, short_side=short_side, on_error="skip").skipped == report.skipped
    assert _contents(out) == before


def test_nothing_but_broken_images(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("no image")
    with pytest.raises(ValueError, match="nothing is packed"):
        _pack(FileSource([tmp_path / "x.jpg"]), tmp_path / "out", on_error="skip")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [({"short_side": -1}, "short_side"), ({"quality": 96}, "quality"), ({"jobs": 0}, "jobs"),
     ({"shard_bytes": 0}, "shard_bytes"), ({"on_error": "stop"}, "on_error")],
)  # fmt: skip
def test_bad_settings(photos: FileSource, tmp_path: Path, options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        _pack(photos, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
