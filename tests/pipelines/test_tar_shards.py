"""Tar shards against Python's tarfile and WebDataset, and what is said about broken ones."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import random
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import braceexpand
import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from has_dali.pipelines import index_cache
from has_dali.pipelines.name_table import NameTable
from has_dali.pipelines.packing import pack
from has_dali.pipelines.shard_index import ShardIndex, read_index, write_index
from has_dali.pipelines.shard_names import expanded
from has_dali.pipelines.sources import FileSource
from has_dali.pipelines.spans import SpanSource
from has_dali.pipelines.tar_members import tar_members
from has_dali.pipelines.tar_shards import key_and_extension, tar_source


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAS_DALI_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(index_cache, "SETTLED_NS", -1)  # what the tests have just written counts as old


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shard(path: Path, count: int = 3, first: int = 0) -> Path:
    """Samples of a .cls and a .jpg each, labels 0 to 9."""
    members = []
    for n in range(first, first + count):
        members += [(f"{n:04}.cls", str(n % 10).encode()), (f"{n:04}.jpg", f"image {n}".encode() * (n + 1))]
    return write_tar(path, members)


def contents(source: SpanSource) -> list[bytes]:
    return [content.tobytes() for content in source.contents(np.arange(len(source)))]


def walked(path: Path) -> list[tuple[str, bytes]]:
    with open(path, "rb") as file:
        data = path.read_bytes()
        found = tar_members(file.fileno(), str(path), len(data))
        return [(os.fsdecode(name), data[offset : offset + size]) for name, offset, size in found]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=120)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join).filter(lambda path: path.strip("/. "))


@settings(max_examples=60, deadline=None)
@given(
    members=st.lists(st.tuples(PATHS, st.binary(max_size=1100)), max_size=6),
    format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_members_are_those_of_tarfile(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes]], format: int
) -> None:
    path = write_tar(tmp_path_factory.mktemp("tar") / "a.tar", members, format)
    with tarfile.open(path, "r:") as archive:
        theirs = [(m.name, archive.extractfile(m).read()) for m in archive if m.isreg()]  # type: ignore[union-attr]
    ours = walked(path)
    assert [content for _, content in ours] == [content for _, content in theirs]
    assert [name.rstrip("/") for name, _ in ours] == [name for name, _ in theirs]


def test_long_ustar_names_and_other_members(tmp_path: Path) -> None:
    """A prefix field; folders, links and devices are passed over, with whatever size they claim."""
    path, long = tmp_path / "a.tar", "/".join(["folder" * 8] * 4)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, kind, size in (
            ("dir", tarfile.DIRTYPE, 0),
            ("link", tarfile.SYMTYPE, 0),
            ("hard", tarfile.LNKTYPE, 0),
            ("fifo", tarfile.FIFOTYPE, 0),
            (f"{long}/a.jpg", tarfile.REGTYPE, 700),
            ("contiguous.jpg", tarfile.CONTTYPE, 3),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, size, "a.jpg"
            archive.addfile(info, io.BytesIO(b"x" * size) if size else None)
    assert [(name, len(content)) for name, content in walked(path)] == [(f"{long}/a.jpg", 700), ("contiguous.jpg", 3)]


def test_binary_size_field(tmp_path: Path) -> None:
    """GNU's base-256 sizes, which files from 8 GB on have."""
    info = tarfile.TarInfo("a.jpg")
    info.size = 5
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (5).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + b"hello".ljust(512, b"\0") + bytes(1024))
    assert walked(tmp_path / "a.tar") == [("a.jpg", b"hello")]


@given(st.from_regex(r"\A([a-c_.]{0,4}/){0,2}[a-c_.]{1,7}\Z"))
def test_keys_are_those_of_webdataset(name: str) -> None:
    key, extension = key_and_extension(name.encode())
    theirs = webdataset.tariterators.base_plus_ext(name)
    hidden = name.rpartition("/")[2].startswith(".")
    note = re.match(webdataset.tariterators.tar_file_iterator.__defaults__[0], name)
    if hidden or note or theirs[0] is None:  # hidden files make up no sample here
        assert key == b""
    else:
        assert (key.decode(), extension) == theirs


def test_round_trip_through_webdataset(tmp_path: Path, image_folder: Path) -> None:
    files = sorted(image_folder.rglob("*.jpg"))
    with webdataset.TarWriter(str(tmp_path / "a-000.tar")) as writer:
        for n, file in enumerate(files):
            label = {"cls": n % 7} if n % 2 else {"json": {"label": n % 7, "caption": "ü"}}
            writer.write({"__key__": f"some/{n:05}", "jpg": file.read_bytes(), "txt": "words", **label})
    source = tar_source(tmp_path)
    assert contents(source) == [file.read_bytes() for file in files]
    assert source.labels.tolist() == [n % 7 for n in range(len(files))]
    theirs = webdataset.WebDataset(str(tmp_path / "a-000.tar"), shardshuffle=False)
    assert contents(source) == [sample["jpg"] for sample in theirs]
    assert source.name(3) == f"{tmp_path}/a-000.tar: some/00003.jpg"


SAMPLES = st.lists(
    st.fixed_dictionaries(
        {"image": st.sampled_from(["jpg", "JPEG", "png", "webp", "bmp", "ppm"]), "label": st.integers(0, 1 << 40)},
        optional={"cls": st.booleans(), "other": st.lists(st.sampled_from(["txt", "seg.png", "json.gz"]), unique=True)},
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(samples=SAMPLES, seed=st.integers(0, 99), folder=st.sampled_from(["", "a.b/c/"]))
def test_any_samples(
    tmp_path_factory: pytest.TempPathFactory, samples: list[Mapping[str, object]], seed: int, folder: str
) -> None:
    """Members of a sample in any order, with other members beside them."""
    path, rng, members = tmp_path_factory.mktemp("tar") / "a.tar", random.Random(seed), []
    for n, sample in enumerate(samples):
        label = sample["label"]
        parts = [(str(sample["image"]), b"image %d" % n)]
        parts += (
            [("cls", f" {label}\n".encode())] if sample.get("cls") else [("json", json.dumps({"cls": label}).encode())]
        )
        parts += [(other, b"?") for other in sample.get("other", [])]  # type: ignore[attr-defined]
        rng.shuffle(parts)
        members += [(f"{folder}{n}.{extension}", content) for extension, content in parts]
    source = tar_source(write_tar(path, members))
    assert source.labels.tolist() == [sample["label"] for sample in samples]
    assert contents(source) == [b"image %d" % n for n in range(len(samples))]


def test_folder_file_list_and_patterns(tmp_path: Path) -> None:
    for n in range(3):
        shard(tmp_path / f"train-{n:03}.tar", count=n + 1, first=10 * n)
    (tmp_path / "notes.txt").write_text("x")
    labels = [0, 0, 1, 0, 1, 2]
    names = ["0000.jpg", "0010.jpg", "0011.jpg", "0020.jpg", "0021.jpg", "0022.jpg"]
    base = str(tmp_path / "train-")
    for data in (
        tmp_path,
        base + "{000..002}.tar",
        base + "*.tar",
        base + "00[0-2].tar",
        base + "{000,001,002}.tar",
        [base + "000.tar", base + "{001..002}.tar"],
        [tmp_path / f"train-{n:03}.tar" for n in range(3)],
    ):
        source = tar_source(data)
        assert source.labels.tolist() == labels and [source.names[i] for i in range(6)] == names
    assert len(tar_source(base + "002.tar")) == 3
    assert [source.names[i] for i in range(5)] == names[:5]
    backwards = tar_source(base + "{002..001}.tar")
    assert [backwards.names[i] for i in range(5)] == [*names[3:], *names[1:3]]
    with pytest.raises(ValueError, match=r"shard .*train-001\.tar is named twice"):
        tar_source([base + "001.tar", base + "*.tar"])
    with pytest.raises(FileNotFoundError, match=r"data: .*train-003\.tar: no such file"):
        tar_source(base + "{000..003}.tar")
    with pytest.raises(FileNotFoundError, match=r"data=.*val-\*\.tar': no file matches"):
        tar_source(str(tmp_path / "val-*.tar"))


@pytest.mark.parametrize(
    "pattern", ["a{0..3}", "{08..11}.tar", "{3..1}x{a,b}", "{000..2}", "no{thing}", "{-1..1}", "{a,}"]
)
def test_braces_are_those_of_the_shell(pattern: str) -> None:
    assert expanded(pattern) == list(braceexpand.braceexpand(pattern))


def test_no_labels_at_all(tmp_path: Path) -> None:
    source = tar_source(write_tar(tmp_path / "a.tar", [("a.jpg", b"1"), ("a.json", b"{}"), ("b.png", b"2")]))
    assert source.labels.tolist() == [-1, -1]


def test_one_of_several_images(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"1"), ("a.png", b"2"), ("a.seg.png", b"3"), ("a.cls", b"4")])
    with pytest.raises(ValueError, match=r"sample 'a' has several images \(a\.jpg, .*tar_source\(data, image='jpg'\)"):
        tar_source(path)
    assert contents(tar_source(path, image="png")) == [b"2"] and contents(tar_source(path, image="seg.png")) == [b"3"]


BAD: dict[str, tuple[list[tuple[str, bytes]], str]] = {
    "same extension": (
        [("a.jpg", b"1"), ("a.cls", b"1"), ("a.JPG", b"2")],
        "a.JPG: two files with the key 'a' and the extension 'jpg'",
    ),
    "key again": (
        [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.cls", b"0")],
        "a.cls: the key 'a' comes again after other samples",
    ),
    "no image": ([("a.jpg", b"1"), ("a.cls", b"1"), ("b.cls", b"2")], "sample 'b' has no image (b.cls); expected one"),
    "some labels": ([("a.jpg", b"1"), ("a.cls", b"1"), ("b.jpg", b"2")], "b.jpg: no label, unlike others"),
    "word": ([("a.jpg", b"1"), ("a.cls", b"cat")], "a.cls: label 'cat'; expected an integer from 0 on"),
    "float": ([("a.jpg", b"1"), ("a.json", b'{"label": 1.0}')], "a.json: label 1.0; expected an integer"),
    "bool": ([("a.jpg", b"1"), ("a.json", b'{"label": true}')], "a.json: label True; expected an integer"),
    "negative": ([("a.jpg", b"1"), ("a.cls", b"-1")], "a.cls: label -1; expected an integer from 0 on"),
    "huge": ([("a.jpg", b"1"), ("a.json", b'{"cls": 9223372036854775808}')], "a.json: label 9223372036854775808"),
    "no json": ([("a.jpg", b"1"), ("a.json", b"{")], "a.json: no JSON ("),
    "empty image": ([("a.jpg", b"")], "a.jpg: the image is empty; remove the sample"),
    "nothing": ([("README", b"x"), ("__note__", b"x"), (".hidden.jpg", b"x")], "no images inside"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_samples(tmp_path: Path, case: str) -> None:
    members, message = BAD[case]
    path = write_tar(tmp_path / "bad.tar", members)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        tar_source(path)


def test_cut_anywhere(tmp_path: Path) -> None:
    """Every truncation is noticed, also one between members or behind the last."""
    whole = shard(tmp_path / "whole.tar", count=2).read_bytes()
    end = 4 * 1024  # two .cls and two .jpg of a block each, headers included
    assert not whole[end:].strip(b"\0") and whole[end - 512 :].strip(b"\0")
    path = tmp_path / "cut.tar"
    for size in [*range(0, end, 128), end]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"cut\.tar: truncated (at byte {size}|inside member 000\d\.(cls|jpg))"):
            tar_source(path)
    path.write_bytes(whole[: end + 512])  # one of the two blocks of zeros is enough
    assert len(tar_source(path)) == 2


def test_data_behind_the_end(tmp_path: Path) -> None:
    whole = shard(tmp_path / "a.tar").read_bytes()
    for tail in (b"garbage", b"\0" * 2_000_000 + b"x", whole):
        (tmp_path / "b.tar").write_bytes(whole + tail)
        place = len(whole) + len(tail) - len(tail.lstrip(b"\0"))
        with pytest.raises(ValueError, match=rf"b\.tar: data after the end of the archive, at byte {place}: .*cat"):
            tar_source(tmp_path / "b.tar")


def test_damaged_header(tmp_path: Path) -> None:
    whole = bytearray(shard(tmp_path / "a.tar").read_bytes())
    whole[1024 + 3] ^= 1  # in the second member's name
    (tmp_path / "b.tar").write_bytes(whole)
    with pytest.raises(ValueError, match=r"b\.tar: no tar header at byte 1024: damaged, or garbage at its end"):
        tar_source(tmp_path / "b.tar")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"x" * 2000), "compressed with gzip; decompress it"),
        (lzma.compress(os.urandom(2000)), "compressed with xz; decompress it"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 600, "compressed with zstd"),
        (b"no archive at all" * 50, "no tar archive; expected one of images and labels"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    data = gzip.compress(os.urandom(2000)) if "gzip" in message else content
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.tar\.gz: {message}"):
        tar_source(tmp_path)


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    for headers, kind in (({"GNU.sparse.major": "1"}, tarfile.REGTYPE), ({}, tarfile.GNUTYPE_SPARSE)):
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers, info.type = headers, kind
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.addfile(info)
        with pytest.raises(ValueError, match=r"a\.tar: member a\.jpg is sparse; write the archive without --sparse"):
            tar_source(tmp_path / "a.tar")


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 30))
def test_mutated_archives_never_crash(tmp_path_factory: pytest.TempPathFactory, seed: int, count: int) -> None:
    """Whatever bytes are changed: the samples come out in full, or a ValueError names the shard."""
    folder, rng = tmp_path_factory.mktemp("tar"), np.random.default_rng(seed)
    data = np.frombuffer(shard(folder / "a.tar").read_bytes(), np.uint8).copy()
    data[rng.integers(0, 7000, count)] = rng.integers(0, 256, count)
    (folder / "a.tar").write_bytes(data.tobytes())
    try:
        source = tar_source(folder / "a.tar")
    except ValueError as error:
        assert "a.tar" in str(error)
    else:
        assert all(len(content) for content in contents(source))


def packed(folder: Path) -> ShardIndex:
    """Two shards and their index, with other keys than the shards' own so that one sees which was read."""
    sources = [tar_source(shard(folder / f"p-{n}.tar", count=2, first=2 * n)) for n in range(2)]
    index = ShardIndex(
        files=("p-0.tar", "p-1.tar"),
        sizes=np.array([(folder / f"p-{n}.tar").stat().st_size for n in range(2)]),
        sha256=("0" * 64, "f" * 64),
        file_of=np.array([0, 0, 1, 1], np.int32),
        offsets=np.concatenate([source.offsets for source in sources]),
        lengths=np.concatenate([source.lengths for source in sources]),
        labels=np.array([5, 6, 7, 8]),
        keys=NameTable.of(["k0", "k1", "k2", "k3"]),
        kind="jpeg",
        classes=tuple("abcdefghi"),
    )
    write_index(folder, index)
    return index


def test_packed_index_is_taken(tmp_path: Path) -> None:
    packed(tmp_path)
    source = tar_source(tmp_path)
    assert source.labels.tolist() == [5, 6, 7, 8] and source.classes == tuple("abcdefghi")
    assert contents(source) == [f"image {n}".encode() * (n + 1) for n in range(4)]
    assert source.name(2) == f"{tmp_path}/p-1.tar: k2" and source.digests == ("0" * 64, "f" * 64)
    part = tar_source(tmp_path / "p-1.tar")
    assert part.labels.tolist() == [7, 8] and contents(part) == contents(source)[2:] and part.digests == ("f" * 64,)
    turned = tar_source([tmp_path / "p-1.tar", tmp_path / "p-0.tar"])
    assert turned.labels.tolist() == [7, 8, 5, 6] and contents(turned) == contents(source)[2:] + contents(source)[:2]
    assert len({each.fingerprint() for each in (source, part, turned)}) == 3


def test_index_round_trip(tmp_path: Path) -> None:
    index = packed(tmp_path)
    again = read_index(tmp_path)
    for name in ("sizes", "file_of", "offsets", "lengths", "labels"):
        assert np.array_equal(getattr(again, name), getattr(index, name))
        assert getattr(again, name).dtype == getattr(index, name).dtype
    assert (again.files, again.sha256, again.kind, again.classes) == (index.files, index.sha256, "jpeg", index.classes)
    assert list(again.keys) == list(index.keys) and again.shapes is None and again.misfit(tmp_path) is None


def test_changed_shards_beside_an_index(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = packed(tmp_path)
    shard(tmp_path / "p-1.tar", count=40)
    assert "p-1.tar: the shard has" in str(index.misfit(tmp_path))
    assert tar_source(tmp_path).labels.tolist() == [0, 1, *(n % 10 for n in range(40))]  # scanned
    assert "p-1.tar: the shard is not as index.npz beside it says: the shards are scanned instead" in caplog.text
    (tmp_path / "p-1.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"p-1\.tar: the shard is missing \(index\.npz lists it\)"):
        tar_source(tmp_path)
    assert len(tar_source(tmp_path / "p-0.tar")) == 2  # asked for by name, the other shard is not missed


def test_shards_of_the_same_size_beside_an_index(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = packed(tmp_path)
    path = tmp_path / "p-1.tar"
    content = path.read_bytes().replace(b"image 2", b"other 2")
    path.write_bytes(content)
    assert path.stat().st_size == index.sizes[1]
    assert str(read_index(tmp_path).misfit(tmp_path)).startswith(f"{path}: the shard has other bytes")
    assert tar_source(tmp_path).labels.tolist() == [0, 1, 2, 3]  # scanned
    assert "p-1.tar: the shard is not as index.npz beside it says: the shards are scanned instead" in caplog.text
    assert tar_source(tmp_path / "p-0.tar").labels.tolist() == [5, 6]  # asked for by name, it fits


@pytest.mark.parametrize("at", [0, 200, -200])
def test_damaged_index(tmp_path: Path, at: int) -> None:
    packed(tmp_path)
    data = bytearray((tmp_path / "index.npz").read_bytes())
    data[at] ^= 0xFF
    (tmp_path / "index.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"index\.npz: .*(delete it|pack again)"):
        tar_source(tmp_path)


def test_index_with_any_flipped_byte(tmp_path: Path) -> None:
    """It is refused in words, or as it was: some bytes of a zip file mean nothing."""
    index = packed(tmp_path)
    content = (tmp_path / "index.npz").read_bytes()
    places = [*range(0, len(content), 23), *range(len(content) - 30, len(content))]
    refused = 0
    for at in places:
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        (tmp_path / "index.npz").write_bytes(damaged)
        try:
            assert np.array_equal(read_index(tmp_path).labels, index.labels)
        except ValueError as error:
            refused += "pack again" in str(error)
    assert refused > len(places) // 2


def test_index_with_a_false_checksum(tmp_path: Path) -> None:
    packed(tmp_path)
    with np.load(tmp_path / "index.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["labels"][0] += 1
    np.savez(tmp_path / "index.npz", **arrays)
    with pytest.raises(ValueError, match=r"index\.npz: damaged \(its checksum differs\)"):
        read_index(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "gif"}, "kind 'gif'"),
        ({"labels": np.zeros(3, np.int64)}, r"labels is int64 \(3,\); expected int64 \(4,\)"),
        ({"offsets": np.zeros(4, np.int32)}, r"offsets is int32"),
        ({"kind": "raw"}, "shapes is None"),
        ({"kind": "raw", "shapes": np.ones((4, 2), np.int64)}, r"expected height \* width \* 3 bytes"),
        ({"sha256": ("0" * 64, "xyz")}, "sha256 expected as 64 hex digits"),
        ({"file_of": np.array([0, 0, 1, 2], np.int32)}, "file_of names shards outside 0 to 1"),
        ({"lengths": np.full(4, 1 << 40)}, r"sample 0 \(k0\) lies outside its shard"),
    ],
)
def test_index_that_does_not_fit_together(tmp_path: Path, change: dict[str, object], message: str) -> None:
    index = packed(tmp_path)
    fields = {name: getattr(index, name) for name in index.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        ShardIndex(**{**fields, **change})


def test_scan_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard(tmp_path / "a.tar")
    first = tar_source(path)
    scans: list[str] = []

    def counted(descriptor: int, name: str, size: int) -> object:
        scans.append(name)
        return tar_members(descriptor, name, size)

    monkeypatch.setattr("has_dali.pipelines.tar_shards.tar_members", counted)
    again = tar_source(path)
    assert not scans and contents(again) == contents(first) and again.fingerprint() == first.fingerprint()
    shard(path, count=4)
    assert len(tar_source(path)) == 4 and scans == [str(path)]
    os.utime(path, ns=(1, 1))
    assert len(tar_source(path)) == 4 and len(scans) == 2
    content = path.read_bytes()
    path.write_bytes(content.replace(b"image", b"other"))
    os.utime(path, ns=(1, 1))  # as unpackers do: size and time of modification are as before
    assert contents(tar_source(path))[0] == b"other 0" and len(scans) == 3
    monkeypatch.setattr(index_cache, "SETTLED_NS", 10**12)
    path.write_bytes(content)  # changed just now, and perhaps again: nothing is kept
    assert len(tar_source(path)) == len(tar_source(path)) == 4 and len(scans) == 5


def test_an_interrupted_pack_is_no_smaller_data_set(tmp_path: Path) -> None:
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.jpg")
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(files[-1])
    pack(FileSource(files, [0, 1, 2]), tmp_path / "shards")
    assert len(tar_source(tmp_path / "shards")) == 3
    (tmp_path / "shards" / "index.npz").unlink()
    with pytest.raises(ValueError, match="packing was not finished; run has-dali pack again"):
        tar_source(tmp_path / "shards")
