"""JPEGs of four channels that do not tell their colours, which the decoder shows black without an error."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from has_dali.pipelines import colour_check, decoded_source, image_loader, open_source
from has_dali.pipelines.packing import pack


def _cmyk() -> bytes:
    content = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (24, 24, 4), np.uint8), mode="CMYK").save(content, "JPEG")
    return content.getvalue()


def _without_adobe(content: bytes) -> bytes:
    start = content.index(b"Adobe") - 4
    return content[:start] + content[start + 2 + int.from_bytes(content[start + 2 : start + 4], "big") :]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images; the second one lacks its Adobe segment."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in (0, 2):
        picture = rng.integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / "data" / "a" / f"{number}.jpg")
    (tmp_path / "data" / "a" / "1.jpg").write_bytes(_without_adobe(_cmyk()))
    (tmp_path / "data" / "a" / "3.jpg").write_bytes(_cmyk())
    return tmp_path / "data"


def lacks_colours(content: bytes) -> bool:
    return bool(colour_check.lacks_colours(np.frombuffer(content, np.uint8)))


def test_the_header_tells() -> None:
    content = _cmyk()
    assert not lacks_colours(content) and lacks_colours(_without_adobe(content))
    plain = io.BytesIO()
    Image.new("RGB", (8, 8)).save(plain, "JPEG")
    assert not lacks_colours(plain.getvalue()) and not lacks_colours(b"") and not lacks_colours(b"\x89PNG" + bytes(64))
    for cut in range(0, len(content), 7):
        lacks_colours(content[:cut])  # ends, whatever is missing


@pytest.mark.parametrize("train", [True, False])
def test_it_is_broken_not_black(folder: Path, train: bool) -> None:
    loader = image_loader(folder, 4, train=train, size=16, device="cpu", threads=1)
    with pytest.raises(RuntimeError, match=r"sample 1: .*1\.jpg: a JPEG of four channels"):
        list(loader)
    skipping = image_loader(
        folder, 4, train=train, size=16, device="cpu", threads=1, on_error="skip", error_budget=0.25
    )
    for _ in range(2):
        for batch in skipping:
            assert sorted(batch["id"].tolist()) == ([0, 2, 2, 3] if train else [-1, 0, 2, 3])
            assert (batch["image"].flatten(1).std(1) > 0).all()
    (broken,) = skipping.report()["broken"]
    assert broken["id"] == 1 and "four channels" in broken["reason"]


def test_cmyk_with_its_segment_loads_as_pillow_has_it(folder: Path) -> None:
    loader = image_loader([folder / "a" / "3.jpg"], 1, train=False, size=24, resize=24, device="cpu", mean=0, std=1)
    (batch,) = loader
    with Image.open(folder / "a" / "3.jpg") as image:
        expected = torch.from_numpy(np.array(image.convert("RGB"), np.float32)).permute(2, 0, 1)
    assert (batch["image"][0] - expected).abs().mean() < 2


def test_in_memory_and_in_shards(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1\.jpg: a JPEG of four channels"):
        decoded_source(open_source(folder))
    pack(open_source(folder), tmp_path / "shards", short_side=0)
    loader = image_loader(tmp_path / "shards", 4, train=True, size=16, device="cpu", threads=1)
    shown = []
    try:
        shown = [batch["image"] for batch in loader]
    except RuntimeError as error:
        assert "four channels" in str(error)
    assert all((images.flatten(1).std(1) > 0).all() for images in shown)


def test_a_header_without_pixels_is_named(folder: Path) -> None:
    content = bytearray((folder / "a" / "0.jpg").read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 7 : frame + 9] = bytes(2)  # the width
    (folder / "a" / "0.jpg").write_bytes(content)
    loader = image_loader([folder / "a" / "0.jpg"], 1, train=True, size=16, device="cpu", threads=1)
    with pytest.raises(RuntimeError, match=r"0\.jpg: (the header gives a side of 0|the image header is damaged)"):
        next(iter(loader))
