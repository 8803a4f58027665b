"""Toy pictures: tight boxes, the statistics that they promise, and files that are kept or refused."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from has_dali.trainers.sweeps import toy
from has_dali.trainers.sweeps.toy import CLASSES, ToyPictures, ToySettings, draw, render_toy

COUNT = 300


@pytest.fixture(scope="module")
def pictures() -> ToyPictures:
    return draw(ToySettings(train=COUNT), "train")


def test_shapes_and_dtypes(pictures: ToyPictures) -> None:
    assert pictures.images.shape == (COUNT, 64, 64, 3) and pictures.images.dtype == np.uint8
    assert pictures.boxes.shape == (COUNT, 4) and pictures.boxes.dtype == np.int64
    assert pictures.labels.dtype == np.int64
    assert np.bincount(pictures.labels).tolist() == [COUNT // 6] * 6


def test_boxes_are_tight_around_body_and_disc(pictures: ToyPictures) -> None:
    for box, body, disc in zip(pictures.boxes, pictures.body, pictures.disc, strict=True):
        y, x = np.nonzero(body | disc)
        assert box.tolist() == [x.min(), y.min(), x.max(), y.max()]
    assert pictures.boxes.min() >= 1 and pictures.boxes.max() <= 62  # the whole object is in the picture


def test_masks_are_where_objects_are_drawn() -> None:
    """With fewer classes all draws are the same but hue and pattern: pictures differ in the object's pixels only."""
    two, six = (draw(ToySettings(train=60, classes=classes), "train") for classes in (2, 6))
    assert (two.disc == six.disc).all() and (two.body == six.body).all()
    different = np.abs(two.images.astype(int) - six.images).max(-1) > 6
    assert not (different & ~_grown(two.body | two.disc)).any()  # an outline is half covered one pixel further out
    recoloured, repainted = two.labels != six.labels, two.patterns != six.patterns
    assert recoloured.sum() == 40 and repainted.sum() > 30
    assert (different & two.disc)[recoloured].sum() > 0.9 * two.disc[recoloured].sum()
    assert (different & two.body)[repainted].sum() > 0.6 * two.body[repainted].sum()


def _grown(masks: np.ndarray) -> np.ndarray:
    """Masks and the pixels next to them."""
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    return np.any([padded[:, y : y + 64, x : x + 64] for y, x in np.ndindex(3, 3)], axis=0)


def test_the_disc_alone_gives_the_class(pictures: ToyPictures) -> None:
    """The nearest hue of the disc's middle is the class, and no other part of a picture is as saturated."""
    hues = [colorsys.rgb_to_hsv(*toy._saturated(np.float32(toy._HUES[name])).tolist())[0] for name in CLASSES]
    saturation = np.ptp(pictures.images.astype(int), axis=-1)
    for n in range(COUNT):
        inner = pictures.images[n][pictures.disc[n] & (saturation[n] > 120)]
        hue = colorsys.rgb_to_hsv(*np.median(inner, axis=0))[0]
        away = [min(abs(hue - h), 1 - abs(hue - h)) for h in hues]
        assert np.argmin(away) == pictures.labels[n]
    assert (saturation[~_grown(pictures.disc)] > 120).mean() < 1e-3


def test_the_body_is_ambiguous_within_pairs(pictures: ToyPictures) -> None:
    own = pictures.patterns == pictures.labels
    assert (pictures.patterns // 2 == pictures.labels // 2).all()
    assert abs(own.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / COUNT)
    always = draw(ToySettings(train=60, own_pattern=1.0), "train")
    assert (always.patterns == always.labels).all()


def test_sizes_and_places_vary(pictures: ToyPictures) -> None:
    width, height = (pictures.boxes[:, 2:] - pictures.boxes[:, :2] + 1).T
    assert width.min() < 20 and width.max() > 38 and abs(width.mean() - height.mean()) < 1
    areas = pictures.disc.sum((1, 2)) / (pictures.body | pictures.disc).sum((1, 2))
    assert areas.min() > 0.05 and areas.max() < 0.2  # the disc is the small part
    centre = (pictures.boxes[:, :2] + pictures.boxes[:, 2:]) / 2
    assert np.abs(centre.mean(0) - 31.5).max() < 2 and (centre.std(0) > 6).all()


@settings(max_examples=4, deadline=None)
@given(st.integers(-(2**63), 2**64 - 1), st.integers(6, 40))
def test_a_picture_does_not_depend_on_how_many_there_are(seed: int, count: int) -> None:
    few, many = draw(ToySettings(seed, count), "train"), draw(ToySettings(seed, 40), "train")
    assert (few.images == many.images[:count]).all() and (few.boxes == many.boxes[:count]).all()


def test_seeds_and_splits_differ() -> None:
    base = draw(ToySettings(0, 30, 30), "train").images
    for other in (draw(ToySettings(1, 30, 30), "train"), draw(ToySettings(0, 30, 30), "val")):
        assert (np.abs(base.astype(int) - other.images).mean((1, 2, 3)) > 5).all()


def test_files(tmp_path: Path) -> None:
    folder = render_toy(tmp_path / "new" / "toy", seed=3, train=30, val=12, classes=4)
    assert folder == tmp_path / "new" / "toy" and sorted(p.name for p in folder.iterdir()) == ["train.npz", "val.npz"]
    with np.load(folder / "val.npz") as content:
        expected = draw(ToySettings(3, 30, 12, 4), "val")
        assert (content["images"] == expected.images).all() and (content["boxes"] == expected.boxes).all()
        assert content["labels"].tolist() == [0, 1, 2, 3] * 3
        assert content["classes"].tolist() == sorted(content["classes"].tolist()) == list(CLASSES[:4])


def test_files_with_the_same_settings_are_kept(tmp_path: Path) -> None:
    def stamps() -> list[int]:
        return [(tmp_path / f"{split}.npz").stat().st_mtime_ns for split in ("train", "val")]

    render_toy(tmp_path, train=30, val=12)
    before = stamps()
    render_toy(tmp_path, train=30, val=12)
    assert stamps() == before
    (tmp_path / "val.npz").unlink()  # as after an interruption
    render_toy(tmp_path, train=30, val=12)
    assert stamps()[0] == before[0]
    render_toy(tmp_path, seed=1, train=30, val=12)
    assert all(after != earlier for after, earlier in zip(stamps(), before, strict=True))


@pytest.mark.parametrize("content", [b"not a zip", None])
def test_foreign_files_are_not_overwritten(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "train.npz"
    if content is None:
        np.savez(file, images=np.zeros(3))
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"train\.npz: is not toy data and is not overwritten"):
        render_toy(tmp_path, train=12, val=12)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 3}, "classes=3: expected an even number from 2 to 6"),
        ({"classes": 8}, "classes=8"),
        ({"val": 2}, "val=2: expected at least 6, one picture per class"),
        ({"own_pattern": 1.5}, r"own_pattern=1\.5: expected a probability"),
        ({"seed": 2**64}, "seed="),
    ],
)
def test_bad_settings(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_toy(tmp_path / "never", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "never").exists()
