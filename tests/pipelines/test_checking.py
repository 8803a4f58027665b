"""What ``check`` says about images and shards, and that nothing it looks at can end it."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.pipelines import ArraySource, check_images
from has_dali.pipelines.broken import COLOURLESS
from has_dali.pipelines.check_files import checked_files, file_findings
from has_dali.pipelines.check_images import inspect_image
from has_dali.pipelines.checking import BROKEN, CheckReport, check, check_steps
from has_dali.pipelines.packing import pack
from has_dali.pipelines.sources import FileSource


def _noise(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8))


def _odd_files(folder: Path) -> dict[str, str]:
    """Files of every kind, and the finding that each must give ("" for none)."""
    turned = Image.Exif()
    turned[0x0112] = 6
    _noise(0).save(folder / "good.jpg")
    _noise(1).save(folder / "good.png")
    _noise(2).save(folder / "turned.jpg", exif=turned)
    _noise(3).convert("CMYK").save(folder / "ink.jpg")
    ink = (folder / "ink.jpg").read_bytes()
    colours = ink.index(b"Adobe") - 4
    (folder / "lost.jpg").write_bytes(ink[:colours] + ink[colours + 2 + ink[colours + 3] :])
    _noise(4).save(folder / "named.jpg", format="PNG")
    _noise(5, (8, 60)).save(folder / "thin.jpg")
    Image.new("RGB", (30, 30), (9, 9, 9)).save(folder / "flat.png")
    content = (folder / "good.jpg").read_bytes()
    _noise(6).save(folder / "rest.bmp")
    (folder / "rest.bmp").write_bytes((folder / "rest.bmp").read_bytes()[:-10])
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    shutil.copy(folder / "good.png", folder / "z_twin.png")
    return {
        "good.jpg": "", "good.png": "", "turned.jpg": "exif-rotated", "ink.jpg": "cmyk", "named.jpg": "wrong-extension",
        "thin.jpg": "tiny", "flat.png": "constant", "rest.bmp": "truncated", "cut.jpg": BROKEN, "empty.jpg": BROKEN,
        "text.jpg": BROKEN, "missing.jpg": BROKEN, "z_twin.png": "duplicate", "lost.jpg": BROKEN,
    }  # fmt: skip


def _kinds(report: CheckReport, source: FileSource) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {os.path.basename(source.name(n)): [] for n in range(len(source))}
    for finding in report.findings:
        found[os.path.basename(finding.name)].append(finding.kind)
    return found


def test_every_kind_of_finding(tmp_path: Path) -> None:
    expected = _odd_files(tmp_path)
    source = FileSource([tmp_path / name for name in sorted(expected)])
    steps: list[int] = []
    report = check(source, jobs=2, advance=steps.append)
    assert _kinds(report, source) == {name: [kind] if kind else [] for name, kind in expected.items()}
    assert report.broken == 5 and report.images == sum(steps) == check_steps(source) == 14
    (lost,) = [finding for finding in report.findings if finding.name.endswith("lost.jpg")]
    assert lost.detail == f"{COLOURLESS}; has-dali pack writes it anew, readable"
    (twin,) = [finding for finding in report.findings if finding.kind == "duplicate"]
    assert twin.detail == f"same bytes as {source.name(4)} (id 4)" and source.name(4).endswith("good.png")
    report.write_csv(tmp_path / "found.csv")
    with open(tmp_path / "found.csv") as table:
        rows = list(csv.DictReader(table))
    assert [int(row["id"]) for row in rows] == sorted(finding.sample_id for finding in report.findings)
    assert {row["finding"] for row in rows} == set(report.counts) and all(row["detail"] for row in rows)
    with pytest.raises(ValueError, match="jobs"):
        check(source, jobs=0)


def test_odd_jpegs_are_judged_as_expected(data_root: Path) -> None:
    """Pillow's verdict, but for three files with stray bytes between segments, which DALI refuses."""
    with open(data_root / "odd-jpegs" / "expected.csv") as table:
        rows = list(csv.DictReader(table))
    source = FileSource([data_root / "odd-jpegs" / row["file"] for row in rows])
    found = _kinds(check(source, jobs=1), source)
    refused = {"truncated_app14.jpg", "junk_jpeg_header.jpg", "photoshop-200dpi-broken.jpg"}
    for row in rows:
        kinds = found[row["file"]]
        assert (BROKEN in kinds) == (row["decodes_with_pil"] == "no" or row["file"] in refused), row["file"]
        decodes = BROKEN not in kinds
        assert ("cmyk" in kinds) == (decodes and row["mode"] == "CMYK")
        assert ("wrong-extension" in kinds) == (row["file"] == "png_named.JPEG")
        turned = "orientation" in row["kind"] and "orientation 1" not in row["kind"]
        assert ("exif-rotated" in kinds) == turned, row["file"]
        assert ("damaged" in kinds) == (row["file"] == "bitflip_height.jpg")
        if decodes:
            assert ("tiny" in kinds) == (min(int(row["width"]), int(row["height"])) < 16)


def test_duplicates_with_another_label_and_in_groups(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "a.png", "c.png", "b.png", "a.png"]
    for name in set(names):
        _noise(ord(name[0])).save(tmp_path / name)
    source = FileSource([tmp_path / name for name in names], [0, 1, 0, 2, 1, 5])
    found = {f.sample_id: f.detail.partition(" (")[2] for f in check(source, jobs=1).findings}
    assert found == {2: "id 0)", 4: "id 1)", 5: "id 0), with another label"}


def test_images_in_memory_and_raw_shards(tmp_path: Path) -> None:
    images = [np.asarray(_noise(n)) for n in range(5)]
    images += [np.full((20, 20, 3), 7, np.uint8), images[1], np.zeros((3, 50, 3), np.uint8)]
    source = ArraySource.from_images(images)
    expected = [(5, "constant"), (6, "duplicate"), (7, "constant"), (7, "tiny")]
    assert [(f.sample_id, f.kind) for f in check(source).findings] == expected
    pack(source, tmp_path, raw=True, short_side=0)
    from has_dali.pipelines.raw_spans import raw_source

    report = check(raw_source(tmp_path))
    assert [(f.sample_id, f.kind) for f in report.findings] == expected and report.files == 1 and not report.broken


def test_packed_shards_are_compared_with_their_checksums(tmp_path: Path) -> None:
    from has_dali.pipelines import open_data

    images = [np.asarray(_noise(n)) for n in range(6)]
    pack(ArraySource.from_images(images), tmp_path, shard_bytes=8192)
    source = open_data(tmp_path, train=True)
    assert len(checked_files(source)) == len(list(tmp_path.glob("*.tar"))) > 1
    assert not any(file_findings(source, number) for number in checked_files(source))
    path = sorted(tmp_path.glob("*.tar"))[1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # in no image, but not what was written
    path.write_bytes(content)
    (finding,) = check(source, jobs=1).findings
    assert (finding.kind, finding.name, finding.sample_id) == (BROKEN, str(path), -1)
    assert "SHA-256" in finding.detail


def test_tfrecords_are_compared_with_their_crcs(tmp_path: Path) -> None:
    from has_dali.pipelines import open_data
    from has_dali.pipelines.crc32c import masked_crc32c

    def crc(data: bytes) -> bytes:
        return masked_crc32c(np.frombuffer(data, np.uint8)).to_bytes(4, "little")

    def field(number: int, payload: bytes) -> bytes:
        size, length = bytearray(), len(payload)
        while length > 127:
            size.append(length & 127 | 128)
            length >>= 7
        return bytes([number << 3 | 2]) + bytes(size) + bytes([length]) + payload

    records = []
    for n in range(3):
        _noise(n).save(tmp_path / "x.jpg")
        features = {"image/encoded": field(1, field(1, (tmp_path / "x.jpg").read_bytes()))}
        features["image/class/label"] = field(3, b"\x08" + bytes([n]))
        entries = b"".join(field(1, field(1, name.encode()) + field(2, value)) for name, value in features.items())
        record, length = field(1, entries), None
        length = len(record).to_bytes(8, "little")
        records.append(length + crc(length) + record + crc(record))
    path = tmp_path / "x.tfrecord"
    path.write_bytes(b"".join(records))
    source = open_data(path, train=True)
    assert checked_files(source) == [0] and not file_findings(source, 0)
    content = bytearray(path.read_bytes())
    content[len(records[0]) + len(records[1]) - 1] ^= 1  # the checksum of record 1
    path.write_bytes(content)
    (finding,) = check(source, jobs=1).findings
    assert finding.kind == BROKEN and finding.name == f"{path}: record 1" and "checksum" in finding.detail


def test_want_of_memory_is_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(decoder: object) -> None:
        raise RuntimeError("Error in CPU operator: std::bad_alloc")

    _noise().save(tmp_path / "x.png")
    monkeypatch.setattr(check_images, "_decoder", check_images._Decoder)
    monkeypatch.setattr(check_images._Decoder, "_built", no_memory)
    with pytest.raises(RuntimeError, match="bad_alloc"):
        inspect_image((tmp_path / "x.png").read_bytes(), "x.png")


def test_remarks_of_the_decoder_are_read_not_shown(data_root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = inspect_image((data_root / "odd-jpegs" / "bitflip_height.jpg").read_bytes(), "x.jpg")
    assert found.findings == (("damaged", "Corrupt JPEG data: 75193 extraneous bytes before marker 0xd9"),)
    assert "extraneous" not in capfd.readouterr().err
