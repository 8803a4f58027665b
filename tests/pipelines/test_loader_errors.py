"""Odd images pass; broken files and bad arguments give errors that name them."""

from __future__ import annotations

import gc
import logging
import resource
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import image_loader


def _picture(height: int, width: int) -> Image.Image:
    coarse = np.random.default_rng(height).integers(0, 256, (3, 3, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _both_loaders(files: list[Path], batch_size: int) -> list[torch.Tensor]:
    """Training and evaluation images of all files."""
    train = image_loader(files, batch_size, train=True, policy=HideAndSeek(), size=48)
    return [*(b["image"] for b in train), *(b["image"] for b in image_loader(files, batch_size, train=False, size=48))]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 1), (1, 500), (500, 1), (5, 7), (3000, 4000)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_any_size_and_colour_space(tmp_path: Path, height: int, width: int, mode: str) -> None:
    file = tmp_path / "image.jpg"
    _picture(height, width).convert(mode).save(file)
    for images in _both_loaders([file], 1):
        assert images.shape == (1, 3, 48, 48)
        assert images.isfinite().all()


@pytest.mark.parametrize("extension", ["png", "bmp", "ppm", "pgm", "tif", "webp"])
def test_other_formats(tmp_path: Path, extension: str) -> None:
    file = tmp_path / f"image.{extension}"
    picture = _picture(60, 48)
    (picture.convert("L") if extension == "pgm" else picture).save(file)
    (batch,) = image_loader([file], 1, train=False, size=48, resize=48, mean=0.0, std=1.0)
    expected = np.asarray(Image.open(file).convert("RGB").crop((0, 6, 48, 54)), np.float32)
    assert np.abs(batch["image"][0].numpy().transpose(1, 2, 0) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    file = tmp_path / "image.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    _picture(60, 90).save(file, exif=exif, quality=95, subsampling=0)
    upright = ImageOps.exif_transpose(Image.open(file))
    (batch,) = image_loader([file], 1, train=False, size=60, resize=60, mean=0.0, std=1.0)
    left, top = (upright.width - 60) // 2, (upright.height - 60) // 2
    expected = np.asarray(upright.crop((left, top, left + 60, top + 60)), np.float32)
    assert np.abs(batch["image"][0].numpy().transpose(1, 2, 0) - expected).max() <= 1


def _spoil(folder: Path) -> dict[str, Path]:
    good = folder / "good.jpg"
    _picture(80, 100).save(good)
    cut, text, empty, huge = (folder / f"{kind}.jpg" for kind in ("cut", "text", "empty", "huge"))
    content = good.read_bytes()
    cut.write_bytes(content[:700])
    sides = content.index(b"\xff\xc0") + 5  # of the frame header
    huge.write_bytes(content[:sides] + b"\xff" * 4 + content[sides + 4 :])
    text.write_text("no image")
    empty.touch()
    return {"good": good, "cut": cut, "text": text, "empty": empty, "huge": huge, "gone": folder / "gone.jpg"}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", "(damaged|cut off)"),
        ("text", "not an image of a supported format"),
        ("empty", "the file is empty"),
        ("huge", "the header gives more than 178956970 pixels"),
        ("gone", "no such file"),
    ],
)
def test_broken_file_is_named(tmp_path: Path, kind: str, reason: str) -> None:
    files = _spoil(tmp_path)
    loader = image_loader([files["good"]] * 5 + [files[kind]] + [files["good"]] * 3, 3, train=False, size=16)
    for _ in range(2):  # the loader stays usable: the next loop meets the file again
        done = []
        with pytest.raises(RuntimeError, match=f"cannot load sample 5: .*{kind}.jpg: .*{reason}") as caught:
            for batch in loader:
                done += batch["id"].tolist()
        assert done == [0, 1, 2]
        assert "Critical error in pipeline" in str(caught.value.__cause__)


@pytest.mark.parametrize("options", [{}, {"crop": "warp"}, {"train": True, "batch_size": 2}])
def test_a_header_that_claims_too_much_is_skipped(tmp_path: Path, options: dict[str, Any]) -> None:
    """Before its 12.9 GB are asked for, whatever part of them the crop would show."""
    files = _spoil(tmp_path)
    settings: dict[str, Any] = {"batch_size": 1, "train": False, "size": 16, "device": "cpu", **options}
    skipping = image_loader([files["good"], files["huge"]], on_error="skip", error_budget=0.5, **settings)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ids = [sample_id for batch in skipping for sample_id in batch["id"].tolist()]
    assert sorted(ids) == ([0, 0] if options.get("train") else [-1, 0])
    assert [file["reason"] for file in skipping.report()["broken"]] == ["the header gives more than 178956970 pixels"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # kilobytes


def test_several_broken_files_are_listed(tmp_path: Path) -> None:
    files = _spoil(tmp_path)
    loader = image_loader([files["good"], files["text"], files["empty"]], 3, train=True, size=16)
    with pytest.raises(RuntimeError, match="cannot load 2 samples of a batch") as caught:
        next(iter(loader))
    assert "sample 1: " in str(caught.value) and "sample 2: " in str(caught.value)


def test_resume_behind_a_broken_batch(tmp_path: Path) -> None:
    files = _spoil(tmp_path)
    loader = image_loader([files["good"]] * 3 + [files["text"]] + [files["good"]] * 2, 2, train=False, size=16)
    with pytest.raises(RuntimeError):
        list(loader)
    state = loader.state_dict()
    assert state["samples"] == 2
    loader.load_state_dict({**state, "samples": 4})
    assert [batch["id"].tolist() for batch in loader] == [[4, 5]]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"train": False, "policy": HideAndSeek()}, ValueError, "policy: evaluation hides nothing"),
        ({"policy": "imagenet"}, TypeError, "policy='imagenet': expected a HideAndSeek or None"),
        ({"on_error": "ignore"}, ValueError, "on_error='ignore': expected one of 'raise', 'skip'"),
        ({"error_budget": 1.5}, ValueError, r"error_budget=1\.5: expected a share of the data set, from 0 to 1"),
        ({"error_budget": -0.1}, ValueError, r"error_budget=-0\.1"),
        ({"error_budget": float("nan")}, ValueError, "error_budget=nan"),
        ({"error_budget": "1%"}, TypeError, "error_budget='1%': expected a share"),
        ({"multi_view": 2}, ValueError, "multi_view=2: views differ in what is hidden only; give a policy"),
        ({"multi_view": 0, "policy": HideAndSeek()}, ValueError, "multi_view=0: expected an integer of at least 1"),
        ({"multi_view": 1.5, "policy": HideAndSeek()}, TypeError, r"multi_view=1\.5"),
        ({"dtype": "int8"}, ValueError, "dtype='int8': expected one of 'float32', 'float16'"),
        ({"size": 0}, ValueError, "size=0: expected an integer from 1 to 65535"),
        ({"threads": 0}, ValueError, "threads=0"),
        ({"prefetch": 0}, ValueError, "prefetch=0"),
        ({"batch_size": 31}, ValueError, "batch_size=31: .* does not fit into 30 training samples"),
        ({"train": False, "resize": 100}, ValueError, "resize=100: expected at least size=224"),
        ({"train": False, "resize": 0}, ValueError, "resize=0"),
        ({"resize": 256}, ValueError, r"resize=256: training crops at random \(train=True\)"),
        ({"size": 70000}, ValueError, "size=70000: expected an integer from 1 to 65535"),
        ({"train": "val"}, TypeError, "train='val': expected True or False"),
        ({"train": 1}, TypeError, "train=1: expected True or False"),
        ({"channels_last": "no"}, TypeError, "channels_last='no': expected True or False"),
        ({"antialias": None}, TypeError, "antialias=None: expected True or False"),
        ({"train": False, "scale": (0.0, 1.0)}, ValueError, r"scale=\(0\.0, 1\.0\): expected two numbers"),
        ({"train": False, "ratio": 3}, TypeError, "ratio=3: expected two numbers"),
        ({"train": False, "mirror": -1.0}, ValueError, "mirror=-1.0"),
        ({"mean": (1.0, 2.0)}, ValueError, r"mean=\(1\.0, 2\.0\): expected one number or 3"),
        ({"std": 0.0}, ValueError, "std=0.0: expected numbers above 0"),
        ({"mirror": 2.0}, ValueError, "mirror=2.0"),
        ({"device": "tpu"}, ValueError, "device='tpu': expected 'auto', 'cpu', 'cuda', 'gpu' or 'cuda:N'"),
        ({"labels": [1]}, ValueError, "labels: only a list of files takes labels"),
    ],
)
def test_bad_arguments(image_folder: Path, options: dict[str, object], kind: type[Exception], message: str) -> None:
    arguments = {"batch_size": 4, "train": True, **options}
    with pytest.raises(kind, match=message):
        image_loader(image_folder, **arguments)  # type: ignore[arg-type]


def test_choices_are_logged(image_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="has_dali"):
        loader = image_loader(image_folder, 4, train=True, device="cpu", threads=3)
    assert loader.device == torch.device("cpu")
    assert "30 images on cpu (device='cpu' was asked for), 3 threads" in caplog.text
    assert "30 images, 7 batches of 4" in repr(loader)


def test_loaders_are_freed(image_folder: Path) -> None:
    """Nothing outside Python's reach keeps a pipeline, and so its memory, alive."""
    loader = image_loader(image_folder, 4, train=True, size=16)
    next(iter(loader))
    feeder = weakref.ref(loader._stream._feeder)
    del loader
    gc.collect()
    assert feeder() is None
