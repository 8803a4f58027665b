"""What becomes of an image that is packed: copied or encoded anew, shrunk, turned."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.pipelines.pack_images import Form, encoded
from has_dali.pipelines.packing import pack
from has_dali.pipelines.shard_index import read_index
from has_dali.pipelines.sources import FileSource


def _members(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def test_small_jpegs_are_copied_and_others_encoded(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3)).astype(np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, options in {"a.jpg": {}, "b.png": {}, "c.jpg": {"exif": turned}, "d.jpg": {"quality": 100}}.items():
        picture.save(tmp_path / name, **options)
    gray = picture.convert("L")
    gray.save(tmp_path / "e.jpg")
    damaged = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "f.jpg").write_bytes(damaged[:20] + b"junk" + damaged[20:])  # Pillow skips it, DALI does not
    (tmp_path / "g.jpg").write_bytes(damaged[:-2])  # without its end marker, the same
    source = FileSource(sorted(tmp_path.glob("?.*")))
    pack(source, tmp_path / "out", short_side=64)
    members = _members(tmp_path / "out")
    assert sorted(members) == [f"{n:08}.jpg" for n in range(7)]  # no labels: no .cls
    originals = [Path(source.path(n)).read_bytes() for n in range(7)]
    copied = [originals[n] == members[f"{n:08}.jpg"] for n in range(7)]
    assert copied == [True, False, False, True, True, False, False]
    with Image.open(io.BytesIO(members["00000002.jpg"])) as upright:
        assert upright.size == (30, 20) and upright.getexif().get(0x0112) is None
    assert (read_index(tmp_path / "out").labels == -1).all()
    # Without shrinking, all but what the loaders refuse, with the extensions that the data have
    picture.save(tmp_path / "h.gif")
    picture.save(tmp_path / "i.tif")
    pack(FileSource(sorted(tmp_path.glob("?.*"))), tmp_path / "copies", short_side=0)
    copies = _members(tmp_path / "copies")
    assert [copy == original for copy, original in zip(copies.values(), originals, strict=False)] == [
        *[True] * 5, False, False,
    ]  # fmt: skip
    assert [name[-3:] for name in copies] == ["jpg", "png", *["jpg"] * 7]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    from PIL import ImageOps

    ramp = np.linspace(0, 255, 90 * 60).reshape(90, 60)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x.jpg"
    Image.fromarray(np.stack([ramp, ramp.T.reshape(90, 60), ramp[::-1]], 2).astype(np.uint8)).save(path, exif=exif)
    member = encoded(path.read_bytes(), Form(short_side=30, raw=True))
    pixels = np.load(io.BytesIO(member.content))
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        expected = np.asarray(upright.resize(pixels.shape[1::-1], Image.Resampling.LANCZOS), float)
    assert member.shape == pixels.shape[:2] == ((45, 30) if orientation < 5 else (30, 45))
    assert np.abs(pixels - expected).max() <= 2


def test_large_jpegs_are_shrunk_well_while_they_are_decoded(tmp_path: Path) -> None:
    """Decoding at a fraction of the size costs less; the result stays close to the full Lanczos filter's."""
    coarse = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype(np.uint8))
    coarse.resize((1500, 1000), Image.Resampling.BICUBIC).save(tmp_path / "x.jpg", quality=95)
    pixels = np.load(io.BytesIO(encoded((tmp_path / "x.jpg").read_bytes(), Form(100, raw=True)).content))
    with Image.open(tmp_path / "x.jpg") as image:
        expected = np.asarray(image.resize((150, 100), Image.Resampling.LANCZOS), float)
    assert np.abs(pixels - expected).mean() < 1.0


@pytest.mark.parametrize("short_side", [4096, 0])
def test_odd_files_come_out_readable(data_root: Path, tmp_path: Path, short_side: int) -> None:
    """What Pillow decodes is packed, also where DALI refuses the original, and comes out as DALI can decode it."""
    import csv

    from has_dali.pipelines import decoded_source

    with open(data_root / "odd-jpegs" / "expected.csv") as table:
        rows = list(csv.DictReader(table))
    source = FileSource([data_root / "odd-jpegs" / row["file"] for row in rows])
    report = pack(source, tmp_path / "out", short_side=short_side, on_error="skip")
    assert [one.sample_id for one in report.skipped] == [
        n for n, row in enumerate(rows) if row["decodes_with_pil"] == "no"
    ]
    members = _members(tmp_path / "out")
    for name, content in members.items():
        (tmp_path / name).write_bytes(content)
    decoded = decoded_source(FileSource([tmp_path / name for name in members]), threads=2)
    for name, shape in zip(members, decoded.shapes.tolist(), strict=True):
        row = rows[int(name.partition(".")[0])]
        turned = row["file"] in ("orientation_rectangle.jpg", *(f"landscape_{n}.jpg" for n in range(5, 9)))
        expected = [int(row["height"]), int(row["width"])]
        assert shape == (expected[::-1] if turned else expected), row["file"]
