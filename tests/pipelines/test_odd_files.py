"""Forty odd or broken JPEGs, one by one: each shows what Pillow shows, or is an error with path and id. Never black."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps

from has_dali.pipelines import image_loader

SIZE = 48
# Pillow mends these headers while it reads; the decoder behind DALI refuses them (docs/broken-files.md).
REFUSED = {"junk_jpeg_header.jpg", "photoshop-200dpi-broken.jpg", "truncated_app14.jpg"}
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "broken-files.md"

pytestmark = pytest.mark.filterwarnings("ignore:.*malformed MPO file")


@pytest.fixture(scope="module")
def folder(data_root: Path) -> Path:
    return data_root / "odd-jpegs"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where files are decoded; a GPU has a decoder of its own, to which the table of the manual does not apply."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return str(request.param)


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "expected.csv", newline="") as table:
        found = list(csv.DictReader(table))
    assert len(found) == 40
    return found


def _loads(row: dict[str, str]) -> bool:
    return row["decodes_with_pil"] == "yes" and row["file"] not in REFUSED


def _open(files: list[Path], **options: Any) -> Any:
    defaults = {"batch_size": 1, "train": False, "size": SIZE, "mean": 0.0, "std": 1.0, "device": "cpu", "threads": 1}
    return image_loader(files, **{**defaults, **options})


def _upright(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        return ImageOps.exif_transpose(picture).convert("RGB")


def _close(image: torch.Tensor, picture: Image.Image) -> bool:
    """Equal up to how decoders interpolate chroma: under a grey level on average, on a GPU under three."""
    shown = image.permute(1, 2, 0).cpu().numpy()
    small = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
    return bool(np.abs(shown - small).mean() < (1 if image.device.type == "cpu" else 3))


def test_what_loads_is_what_pillow_shows(folder: Path, rows: list[dict[str, str]], device: str) -> None:
    """Orientation, CMYK, gray, PNG by another name; the few that are black are black in Pillow too."""
    files = [folder / row["file"] for row in rows if _loads(row)]
    assert len(files) == 30
    black = set()
    for file, batch in zip(files, _open(files, crop="warp", device=device), strict=True):
        assert _close(batch["image"][0], _upright(file)), file.name
        if not batch["image"].any():
            black.add(file.name)
    assert black == {"jfif_unit_cm.jpg", "xmp_padded.jpg", "icc-after-SOF.jpg"}
    assert all(not np.asarray(_upright(folder / name)).any() for name in black)


@pytest.mark.parametrize("options", [{"crop": "center"}, {"train": True}, {"train": True, "crop": "short-side"}])
def test_whole_files_load_with_every_crop(
    folder: Path, rows: list[dict[str, str]], options: dict[str, Any], device: str
) -> None:
    files = [folder / row["file"] for row in rows if _loads(row)]
    loader = _open(files, batch_size=len(files), on_error="skip", error_budget=0.0, device=device, **options)
    for _ in range(3):
        (batch,) = loader
        assert sorted(batch["id"].tolist()) == list(range(len(files)))
        assert batch["image"].isfinite().all()
    assert loader.report()["broken"] == []


def test_no_decoder_shows_what_is_not_there(folder: Path, rows: list[dict[str, str]], device: str) -> None:
    """A file that some decoder refuses is an error, or is the picture that Pillow shows."""
    for row in rows:
        file = folder / row["file"]
        if not _loads(row):
            try:
                (batch,) = _open([file], crop="warp", device=device)
            except RuntimeError as error:
                assert f"cannot load sample 0: {file}: " in str(error)
                continue
            assert row["decodes_with_pil"] == "yes", file.name
            assert _close(batch["image"][0], _upright(file)), file.name


def test_broken_files_are_named(folder: Path, rows: list[dict[str, str]]) -> None:
    for row in rows:
        if not _loads(row):
            for options in ({"crop": "center"}, {"crop": "warp"}, {"train": True, "scale": (1.0, 1.0)}):
                with pytest.raises(RuntimeError, match=f"cannot load sample 0: .*{row['file']}: ") as caught:
                    list(_open([folder / row["file"]], **options))
                assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("options", [{"crop": "center"}, {"crop": "warp"}, {"train": True}])
def test_broken_files_are_replaced(folder: Path, rows: list[dict[str, str]], options: dict[str, Any]) -> None:
    """All at once, among the good ones; crops of cut files that lie in what is left of them are shown."""
    files = [folder / row["file"] for row in rows]
    bad = {n for n, row in enumerate(rows) if not _loads(row)}
    cut = {n for n, row in enumerate(rows) if row["file"].startswith("truncated_") and row["file"].endswith("pc.jpg")}
    loader = _open(files, batch_size=8, on_error="skip", error_budget=0.5, **options)
    for _ in range(2):
        ids = [sample_id for batch in loader for sample_id in batch["id"].tolist()]
        assert len(ids) == 40
        if options.get("train"):
            assert set(ids) >= set(range(40)) - bad and not set(ids) & (bad - cut)
        else:
            assert sorted(ids) == sorted([-1] * len(bad) + [n for n in range(40) if n not in bad])
    report = loader.report()
    assert {file["id"] for file in report["broken"]} >= bad - cut and len(bad) == 10
    assert report["replaced"] >= 2 * len(bad - cut)
    assert all(file["name"] == str(files[file["id"]]) for file in report["broken"])


def test_a_cut_file_shows_what_is_left_or_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No crop reaches into the part that is missing, which other decoders fill with gray."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    shown = 0
    for name in ("truncated_50pc.jpg", "truncated_90pc.jpg"):
        picture = _upright(folder / name)
        for seed in range(15):
            loader = _open([folder / name], train=True, seed=seed, mirror=0.0, scale=(0.05, 0.5))
            try:
                (batch,) = loader
            except RuntimeError as error:
                assert "damaged or cut off" in str(error)
                continue
            (start,), (shape,), _ = loader.spec.plan(np.array([picture.size[::-1]]), [0], [0])
            (top, left), (height, width) = start.tolist(), shape.tolist()
            assert _close(batch["image"][0], picture.crop((left, top, left + width, top + height)))
            assert not (np.asarray(picture)[top + height - 1, left : left + width] == 128).all()
            shown += 1
    assert shown >= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_real_orientations_are_applied(folder: Path, orientation: int) -> None:
    """The whole picture and its centre, as Pillow turns it."""
    upright = _upright(folder / f"landscape_{orientation}.jpg")
    assert upright.size == (600, 450)
    for options, box in (({"crop": "warp"}, (0, 0, 600, 450)), ({"resize": SIZE}, (75, 0, 525, 450))):
        (batch,) = _open([folder / f"landscape_{orientation}.jpg"], **options)
        assert _close(batch["image"][0], upright.crop(box))


def test_the_manual_names_every_file(rows: list[dict[str, str]]) -> None:
    """docs/broken-files.md has a row for each, with what the tests above find."""
    text = DOCUMENT.read_text()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    table = {row[0].strip("`"): row for row in cells if row[0].startswith("`") and len(row) == 4}
    assert table.keys() == {row["file"] for row in rows}
    for row in rows:
        assert table[row["file"]][2] == row["decodes_with_pil"]
        assert table[row["file"]][3].startswith("loads" if _loads(row) else "broken")
