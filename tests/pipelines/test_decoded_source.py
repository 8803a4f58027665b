"""Decoding files into memory: the pixels of the files, and errors that say what is broken or too large."""

from __future__ import annotations

import logging
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import FileSource, decode, decoded_source, image_loader, memory, open_source


def files_of(folder: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(0)
    files = []
    for n in range(count):
        files.append(folder / f"{n:02}.png")
        Image.fromarray(rng.integers(0, 256, (1 + n % 7, 1 + n % 5, 3)).astype(np.uint8)).save(files[-1])
    return files


def of_claimed_size(content: bytes, height: int, width: int) -> bytes:
    """A baseline JPEG whose frame header claims other sides."""
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def test_pixels_sizes_and_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = files_of(tmp_path, 21)
    done: list[int] = []
    with caplog.at_level(logging.INFO, logger="has_dali"):
        source = decoded_source(FileSource(files, range(21), ("a",)), threads=2, advance=done.append)
    assert len(source) == sum(done) == 21
    assert source.labels.tolist() == list(range(21)) and source.classes == ("a",)
    for n, file in enumerate(files):
        assert np.array_equal(source.image(n), np.asarray(Image.open(file)))
    assert "decoding 21 images into memory: 7.29e-07 GB" in caplog.text


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert decoded_source(FileSource([tmp_path / "turned.jpg"])).shapes.tolist() == [[30, 20]]


def test_class_folder(image_folder: Path) -> None:
    source = open_source(image_folder)
    arrays = decoded_source(source)
    assert len(arrays) == 30 and arrays.labels.tolist() == source.labels.tolist() and arrays.classes == source.classes


def test_broken_files_are_named_in_one_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Those without a header, those cut behind it, and those that claim too many pixels."""
    files = files_of(tmp_path, 80)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3)).astype(np.uint8))
    cut, huge = tmp_path / "cut.jpg", tmp_path / "huge.jpg"
    picture.save(cut)
    huge.write_bytes(of_claimed_size(cut.read_bytes(), 65535, 65535))
    cut.write_bytes(cut.read_bytes()[:2000])  # the header is whole
    with pytest.raises(ValueError, match=r"cut\.jpg: .*(damaged|cut off).*; remove it or replace it"):
        decoded_source(FileSource([*files, cut]))
    with pytest.raises(ValueError, match=r"huge\.jpg: the header gives more than 178956970 pixels; remove it"):
        decoded_source(FileSource([huge, *files]))
    files[2].write_text("no image")
    files[77].unlink()
    caplog.clear()
    with pytest.raises(ValueError, match="cannot load 4 samples of 82") as caught:
        decoded_source(FileSource([*files[:40], cut, huge, *files[40:]]))
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0] for line in lines] == ["  sample 2", "  sample 40", "  sample 41", "  sample 79"]
    assert "77.png: no such file" in lines[3] and "178956970" in lines[2]
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 4


def test_images_one_by_one_are_bounded_too(tmp_path: Path) -> None:
    good, huge = files_of(tmp_path, 1)[0], tmp_path / "huge.jpg"
    Image.new("RGB", (30, 20)).save(huge)
    huge.write_bytes(of_claimed_size(huge.read_bytes(), 40000, 40000))
    (images,) = decode.decoded_images([str(good)], threads=1)
    assert np.array_equal(images[0], np.asarray(Image.open(good)))
    with pytest.raises(ValueError, match=r"huge\.jpg: the header gives more than"):
        list(decode.decoded_images([str(good), str(huge)], threads=1))


def test_a_state_holds_with_and_without_decoded_images(image_folder: Path) -> None:
    """Fingerprint and names are those of the files, of any selection too; the loader goes on in the middle."""
    files = open_source(image_folder)
    arrays = pickle.loads(pickle.dumps(decoded_source(files)))
    assert arrays.fingerprint() == files.fingerprint() and arrays.name(3) == files.path(3)
    chosen = np.arange(20)[::-2]
    assert arrays.select(chosen).fingerprint() == files.select(chosen).fingerprint() != files.fingerprint()
    options: dict[str, Any] = {"train": True, "policy": HideAndSeek((5,), p_hide=0.5), "size": 16, "device": "cpu"}
    options |= {"mean": 0.5, "std": 1.0}
    for first, second in ((None, "decoded"), ("decoded", None)):
        before = image_loader(image_folder, 6, cache=first, **options)
        batches = iter(before)
        next(batches)
        after = image_loader(image_folder, 6, cache=second, **options)
        after.load_state_dict(before.state_dict())
        for a, b in zip(batches, after, strict=True):
            assert torch.equal(a["id"], b["id"]) and (a["image"] - b["image"]).abs().mean() < 1
            assert torch.equal(a["image"] == 0.0, b["image"] == 0.0)  # masks


def test_header_and_pixels_of_different_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(tmp_path, 3)
    monkeypatch.setattr(decode, "_header", lambda content: decode.fn.peek_image_shape(content) + 1)
    with pytest.raises(ValueError, match=r"sample 0: .*00\.png: the header gives a wrong size"):
        decoded_source(FileSource(files))


def test_too_large_for_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(tmp_path, 3)
    free = memory.available_memory()
    assert free is not None and free > 1e6
    monkeypatch.setattr(decode, "available_memory", lambda: 10)
    with pytest.raises(MemoryError, match=r"decoding 3 images needs 4\.2e-08 GB of memory, 1e-08 GB are available"):
        decoded_source(FileSource(files))
