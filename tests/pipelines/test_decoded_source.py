"""Decoding files into memory: the pixels of the files, and errors that say what is broken or too large."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.pipelines import FileSource, decode, decoded_source, memory, open_source


def files_of(folder: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(0)
    files = []
    for n in range(count):
        files.append(folder / f"{n:02}.png")
        Image.fromarray(rng.integers(0, 256, (1 + n % 7, 1 + n % 5, 3)).astype(np.uint8)).save(files[-1])
    return files


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


def test_broken_files_are_named(tmp_path: Path) -> None:
    files = files_of(tmp_path, 20)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3)).astype(np.uint8))
    picture.save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:2000])  # the header is whole
    with pytest.raises(ValueError, match=r"cut\.jpg: .*(damaged|cut off).*; remove it or replace it"):
        decoded_source(FileSource([*files, tmp_path / "cut.jpg"]))
    files[2].write_text("no image")
    files[7].unlink()
    with pytest.raises(ValueError, match="cannot load 2 samples of a batch") as caught:
        decoded_source(FileSource(files))  # these have no header
    assert "02.png" in str(caught.value) and "07.png: no such file" in str(caught.value)


def test_header_and_pixels_of_different_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(tmp_path, 3)
    monkeypatch.setattr(decode, "_header", lambda content: decode.fn.peek_image_shape(content) + 1)
    with pytest.raises(ValueError, match=r"00\.png: the header gives a wrong size"):
        decoded_source(FileSource(files))


def test_too_large_for_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(tmp_path, 3)
    free = memory.available_memory()
    assert free is not None and free > 1e6
    monkeypatch.setattr(decode, "available_memory", lambda: 10)
    with pytest.raises(MemoryError, match=r"decoding 3 images needs 4\.2e-08 GB of memory, 1e-08 GB are available"):
        decoded_source(FileSource(files))
