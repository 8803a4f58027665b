"""What open_data makes of a path, and the promises that all sources share."""

from __future__ import annotations

import io
import re
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from has_dali.pipelines import ArraySource, FileSource, open_data
from has_dali.pipelines.crc32c import masked_crc32c_rows
from has_dali.pipelines.name_table import NameTable
from has_dali.pipelines.raw_spans import RawSource
from has_dali.pipelines.shard_index import ShardIndex, write_index
from has_dali.pipelines.shard_names import kind_of
from has_dali.pipelines.spans import SpanSource

LABELS = [2, 0, 1, 2, 1]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAS_DALI_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def images(image_folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(image_folder.rglob("*.jpg"))[:5]]


def write_tar(path: Path, images: list[bytes], labels: list[int] = LABELS) -> Path:
    with tarfile.open(path, "w") as archive:
        for n, (image, label) in enumerate(zip(images, labels, strict=True)):
            for name, content in ((f"{n}.jpg", image), (f"{n}.cls", b"%d" % label)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def write_tfrecord(path: Path, images: list[bytes]) -> Path:
    def field(number: int, content: bytes) -> bytes:
        size, head = len(content), bytearray([number << 3 | 2])
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        return bytes([*head, size]) + content

    def crc(data: bytes) -> bytes:
        return struct.pack("<I", masked_crc32c_rows(np.frombuffer(data, np.uint8)[None])[0])

    out = b""
    for image, label in zip(images, LABELS, strict=True):
        encoded = field(1, field(1, b"image/encoded") + field(2, field(1, field(1, image))))
        numbered = field(1, field(1, b"image/class/label") + field(2, field(3, field(1, bytes([label])))))
        record = field(1, encoded + numbered)
        length = struct.pack("<Q", len(record))
        out += length + crc(length) + record + crc(record)
    path.write_bytes(out)
    return path


def write_rec(path: Path, images: list[bytes]) -> Path:
    out = b""
    for image, label in zip(images, LABELS, strict=True):
        record = struct.pack("<IfQQ", 0, label, 0, 0) + image
        out += struct.pack("<II", 0xCED7230A, len(record)) + record + bytes(-len(record) % 4)
    path.write_bytes(out)
    return path


def write_parquet(path: Path, images: list[bytes]) -> Path:
    pq.write_table(pa.table({"image": images, "label": LABELS}), path)
    return path


def write_list(path: Path, images: list[bytes]) -> Path:
    for n, image in enumerate(images):
        (path.parent / f"{n}.jpg").write_bytes(image)
    path.write_text("".join(f"{n}.jpg,{label}\n" for n, label in enumerate(LABELS)))
    return path


WRITERS: dict[str, Any] = {
    "a.tar": write_tar,
    "a.tfrecord": write_tfrecord,
    "train-00000-of-00001": write_tfrecord,
    "a.rec": write_rec,
    "a.parquet": write_parquet,
    "a.csv": write_list,
    "a.txt": write_list,
}


def contents(source: Any) -> list[bytes]:
    if isinstance(source, FileSource):
        return [Path(source.path(i)).read_bytes() for i in range(len(source))]
    return [content.tobytes() for content in source.contents(np.arange(len(source)))]


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_by_file(tmp_path: Path, images: list[bytes], name: str) -> None:
    """The same images, labels and ids from each; selected, named and told apart alike."""
    path = WRITERS[name](tmp_path / name, images)
    source = open_data(path, train=True)
    assert isinstance(source, FileSource if name.endswith((".csv", ".txt")) else SpanSource)
    assert contents(source) == images and source.labels.tolist() == LABELS and source.labels.dtype == np.int64
    chosen = source.select([3, 1])
    assert contents(chosen) == [images[3], images[1]] and chosen.labels.tolist() == [2, 0]
    assert chosen.name(0) == source.name(3) and str(tmp_path) in source.name(3)
    assert re.fullmatch("[0-9a-f]{16}", source.fingerprint()) and chosen.fingerprint() != source.fingerprint()
    assert open_data(source, train=True) is source


@pytest.mark.parametrize("name", ["a.tar", "a.tfrecord", "train-00000-of-00001", "a.rec", "a.parquet"])
def test_every_kind_by_folder_list_and_pattern(tmp_path: Path, images: list[bytes], name: str) -> None:
    path = WRITERS[name](tmp_path / name, images)
    prints = {open_data(path, train=True).fingerprint()}
    star = str(tmp_path / f"*{name[-4:]}")
    for data in (tmp_path, str(tmp_path), [path], [str(path)], star):
        source = open_data(data, train=True)
        assert contents(source) == images
        prints.add(source.fingerprint())
    assert len(prints) == 1


def test_the_hub(tmp_path: Path, images: list[bytes]) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train-0.parquet", "test-0.parquet"):
        write_parquet(tmp_path / "data" / name, images if name[1] == "r" else images[::-1])
    for data in (f"hf:{tmp_path}", tmp_path, f"hf:{tmp_path}/data"):
        assert contents(open_data(data, train=True)) == images
        assert contents(open_data(data, train=False)) == images[::-1]
    with pytest.raises(FileNotFoundError, match="data: nowhere: no such file"):
        open_data("hf:nowhere", train=True)


def test_class_folders_beside_archives(tmp_path: Path, images: list[bytes]) -> None:
    """ILSVRC's folder keeps the archives it was unpacked from."""
    for name in ("n01", "n02"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.JPEG").write_bytes(images[0])
        write_tar(tmp_path / f"{name}.tar", images)
    source = open_data(tmp_path, train=True)
    assert isinstance(source, FileSource) and source.classes == ("n01", "n02")


def test_a_pattern_of_images(tmp_path: Path, images: list[bytes]) -> None:
    write_list(tmp_path / "a.csv", images)
    source = open_data(str(tmp_path / "*.jpg"), train=True, labels=LABELS)
    assert contents(source) == images and source.labels.tolist() == LABELS
    braces = open_data(str(tmp_path / "{0..4}.jpg"), train=True)
    assert contents(braces) == images and set(braces.labels.tolist()) == {-1}


def test_packed_raw_shards(tmp_path: Path) -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for n in range(2):
            content = io.BytesIO()
            np.save(content, pixels[n])
            info = tarfile.TarInfo(f"{n}.npy")
            info.size = content.tell()
            archive.addfile(info, io.BytesIO(content.getvalue()))
    data = stream.getvalue()
    (tmp_path / "a.tar").write_bytes(data)
    index = ShardIndex(
        files=("a.tar",),
        sizes=np.array([len(data)]),
        sha256=("0" * 64,),
        file_of=np.zeros(2, np.int32),
        offsets=np.array([data.index(pixels[n].tobytes()) for n in range(2)]),
        lengths=np.array([60, 60]),
        labels=np.array([1, 0]),
        keys=NameTable.of(["0", "1"]),
        kind="raw",
        shapes=np.array([[4, 5], [4, 5]]),
        classes=("x", "y"),
    )
    write_index(tmp_path, index)
    for place in (tmp_path, tmp_path / "a.tar", str(tmp_path / "*.tar")):
        source = open_data(place, train=True)
        assert isinstance(source, RawSource) and source.labels.tolist() == [1, 0] and source.classes == ("x", "y")
        assert all(np.array_equal(source.image(n), pixels[n]) for n in range(2))
    (tmp_path / "a.tar").write_bytes(data + bytes(512))
    with pytest.raises(ValueError, match=r"a\.tar: the shard is not as index\.npz beside it says; restore the shard"):
        open_data(tmp_path, train=True)


def test_classes(tmp_path: Path, images: list[bytes]) -> None:
    path = write_tar(tmp_path / "a.tar", images)
    assert open_data(path, train=True, classes=3).classes == ()
    named = open_data(path, train=True, classes=["x", "y", "z"])
    assert named.classes == ("x", "y", "z") and contents(named) == images
    assert named.fingerprint() == open_data(path, train=True).fingerprint()
    for few in (2, ["x", "y"]):
        with pytest.raises(ValueError, match=re.escape(f"{path}: 0.jpg: label 2; expected 0 to 1 (classes)")):
            open_data(path, train=True, classes=few)
    source = ArraySource.from_images(np.zeros((2, 2, 2, 3), np.uint8), [0, 1], ["a", "b"])
    assert open_data(source, train=True, classes=["a", "b"]) is source
    unlabelled = ArraySource.from_images(np.zeros((2, 2, 2, 3), np.uint8))
    assert open_data(unlabelled, train=True, classes=1) is unlabelled


@pytest.mark.parametrize(
    ("classes", "kind", "message"),
    [
        (3, ValueError, "classes: the data names 2 classes, not 3"),
        (["a", "c"], ValueError, "classes: 'c' is called 'b' in the data"),
        (0, ValueError, "classes=0: expected at least one class"),
        ([], ValueError, r"classes=\[\]: expected at least one class"),
        ("ab", TypeError, "classes: expected a number or a list of names, got 'ab'"),
        (True, TypeError, "classes: expected a number or a list of names"),
        ([1, 2], TypeError, "classes: expected a number or a list of names"),
    ],
)
def test_bad_classes(classes: Any, kind: type[Exception], message: str) -> None:
    source = ArraySource.from_images(np.zeros((2, 2, 2, 3), np.uint8), [0, 1], ["a", "b"])
    with pytest.raises(kind, match=message):
        open_data(source, train=True, classes=classes)


def test_bad_data(tmp_path: Path, images: list[bytes]) -> None:
    tar, rec = write_tar(tmp_path / "a.tar", images), write_rec(tmp_path / "a.rec", images)
    with pytest.raises(ValueError, match=r"holds tar and recordio files; name those to read"):
        open_data(tmp_path, train=True)
    with pytest.raises(ValueError, match="a list of recordio and tar files; expected files of one kind"):
        open_data([tar, rec], train=True)
    with pytest.raises(ValueError, match="a list of other and tar files"):
        open_data([tar, "a.jpg"], train=True)
    with pytest.raises(ValueError, match="labels: only a list of files takes labels; shards, records and lists"):
        open_data(tar, train=True, labels=LABELS)
    with pytest.raises(FileNotFoundError, match=r"data: .*b\.tar: no such file"):
        open_data(tmp_path / "b.tar", train=True)
    with pytest.raises(FileNotFoundError, match=r"no such folder"):
        open_data(tmp_path / "nothing", train=True)
    with pytest.raises(ValueError, match="data is empty"):
        open_data([], train=True)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.tar", "tar"),
        ("A.TAR", "tar"),
        ("a.tgz", "tar"),
        ("x.tfrecords", "tfrecord"),
        ("x.tfrecord-00001-of-00010", "tfrecord"),
        ("validation-00001-of-00128", "tfrecord"),
        ("validation-00001-of-00128.parquet", "parquet"),
        ("a.rec", "recordio"),
        ("a.idx", None),
        ("tar", None),
        ("a.tar.idx", None),
        ("a.jpg", None),
    ],
)
def test_kinds(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind
