"""``check`` goes on over shards that cannot be opened, and ``--split`` says which part of a set is meant."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from has_dali.cli import run_guarded
from has_dali.pipelines import ArraySource, data_commands, open_data
from has_dali.pipelines.packing import pack


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAS_DALI_CACHE", str(tmp_path_factory.mktemp("cache")))


def _check(*words: object) -> int:
    return run_guarded("has-dali check", lambda: data_commands.check([*map(str, words), "--jobs", "1"]))


def _rows(path: Path) -> list[tuple[str, str, str, str]]:
    with open(path) as table:
        return [tuple(row.values()) for row in csv.DictReader(table)]  # type: ignore[misc]


def _images(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 30, 3)).astype(np.uint8) for _ in range(count)]


def _parquet(path: Path, count: int, seed: int) -> None:
    rng, images = np.random.default_rng(seed), []
    for _ in range(count):
        content = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (30, 30, 3)).astype(np.uint8)).save(content, "JPEG")
        images.append(content.getvalue())
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": images, "label": list(range(count))}), path)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_shard_that_cannot_be_opened_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], raw: bool, damage: str
) -> None:
    report = pack(ArraySource.from_images(_images(9), range(9)), tmp_path / "x", raw=raw, shard_bytes=15_000)
    assert report.shards > 2
    shard = tmp_path / "x" / "shard-000001.tar"
    inside = np.bincount(open_data(tmp_path / "x", train=True).file_of)[1]
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:5000])
    else:
        shard.unlink()
    assert _check(tmp_path / "x", "--csv", tmp_path / "found.csv") == 1
    (row,) = _rows(tmp_path / "found.csv")
    assert row[1:3] == ("", "broken") and shard.name in row[0] + row[3]
    assert (
        f"{9 - inside} images and the checksums of {report.shards - 1} files checked: 1 broken"
        in capsys.readouterr().out
    )


def test_a_single_file_and_a_set_without_any_good_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.tfrecord", "b.tfrecord"):
        (tmp_path / name).write_bytes(name.encode() * 20)
    assert _check(tmp_path / "a.tfrecord") == 1
    assert "0 images checked: 1 broken" in capsys.readouterr().out
    assert _check(tmp_path, "--csv", tmp_path / "found.csv") == 1
    assert [Path(row[0]).name for row in _rows(tmp_path / "found.csv")] == ["a.tfrecord", "b.tfrecord"]
    assert _check(tmp_path / "no.tfrecord") == 2
    assert "no.tfrecord" in capsys.readouterr().err


def test_what_is_wrong_with_the_whole_set_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(ArraySource.from_images(_images(6), range(6)), tmp_path, raw=True, shard_bytes=8000)
    (tmp_path / "index.npz").write_bytes(b"damaged")
    assert _check(tmp_path) == 2
    assert "index.npz" in capsys.readouterr().err


def test_splits_are_asked_for_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("train-0", 3), ("train-1", 2), ("validation-0", 4)):
        _parquet(tmp_path / "set" / f"{name}.parquet", count, seed=len(name) + count)
    for words, count, names in (
        ([], 5, "train-0.parquet to train-1.parquet"),
        (["--split", "val"], 4, "validation-0.parquet"),
        (["--split", "all"], 9, "train-0.parquet to validation-0.parquet"),
    ):
        assert _check(tmp_path / "set", *words) == 0
        out = capsys.readouterr().out
        assert f"{count} images from {names}\n" in out and f"{count} images checked: 0 broken" in out
    words = [str(tmp_path / "set"), str(tmp_path / "out"), "--split", "val"]
    assert data_commands.pack(words) == 0
    assert "--split val: 4 images" in capsys.readouterr().out and len(open_data(tmp_path / "out", train=True)) == 4
    (tmp_path / "set" / "validation-0.parquet").unlink()
    assert _check(tmp_path / "set", "--split", "val") == 2
    assert "train files only" in capsys.readouterr().err
    assert _check(tmp_path / "out", "--split", "val") == 2
    assert "leave it out" in capsys.readouterr().err
    # A broken file does not hide the others
    (tmp_path / "set" / "train-0.parquet").write_bytes(b"PAR1")
    assert _check(tmp_path / "set", "--csv", tmp_path / "found.csv") == 1
    assert [row[:3] for row in _rows(tmp_path / "found.csv")] == [
        (str(tmp_path / "set" / "train-0.parquet"), "", "broken")
    ]
    assert "2 images checked: 1 broken" in capsys.readouterr().out


def test_cifar_has_two_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("batches.meta", "data_batch_1"):
        (tmp_path / name).touch()
    assert _check(tmp_path, "--split", "all") == 2
    assert "give train or val" in capsys.readouterr().err
