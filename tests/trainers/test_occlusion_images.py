"""Which images an occlusion trial takes: the seeded choice, and lists in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from has_dali.trainers.occlusion.paired import choose_images, read_image_list

CLASSES = ("ant", "bee", "10")


def test_so_many_images_of_so_many_classes() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(150), 5))
    ids = choose_images(labels)
    assert len(ids) == len(set(ids.tolist())) == 200 and (np.diff(ids) > 0).all()
    chosen, counts = np.unique(labels[ids], return_counts=True)
    assert len(chosen) == 100 and (counts == 2).all()
    assert (choose_images(labels) == ids).all()
    assert set(choose_images(labels, seed=1).tolist()) != set(ids.tolist())


def test_as_many_as_there_are() -> None:
    labels = [4, 4, 4, 7, 9, 9]
    ids = choose_images(labels)
    assert np.unique(np.array(labels)[ids], return_counts=True)[1].tolist() == [2, 1, 2]


def test_every_image_and_class_gets_its_turn() -> None:
    """Over seeds the choice is even: one of four classes, one of five images."""
    labels = np.repeat(np.arange(4), 5)
    picked = np.array([choose_images(labels, 1, 1, seed)[0] for seed in range(500)])
    counts = np.bincount(picked, minlength=20)
    assert counts.min() > 25 - 4 * 5 and counts.max() < 25 + 4 * 5  # binomial(500, 1/20): s = 4.9


def test_nothing_to_choose_from() -> None:
    with pytest.raises(ValueError, match="images=0, classes=100, per_class=2: expected at least one of each"):
        choose_images([])


def _list(folder: Path, text: str, images: tuple[str, ...] = ("a.jpg", "b,c.jpg", "d.jpg")) -> Path:
    for name in images:
        (folder / name).write_bytes(b"")
    file = folder / "list.txt"
    file.write_text(text, encoding="utf-8")
    return file


def test_paths_and_labels(tmp_path: Path) -> None:
    file = _list(tmp_path, "# occluded\n\n a.jpg , bee \nb,c.jpg,0\nd.jpg,10\n")
    paths, labels = read_image_list(file, CLASSES)
    assert paths == (tmp_path / "a.jpg", tmp_path / "b,c.jpg", tmp_path / "d.jpg")
    assert labels.dtype == np.int64 and labels.tolist() == [1, 0, 2]  # "10" is a class's name, "0" an index


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\n", "line 1: expected path,label, got 'a.jpg'"),
        ("a.jpg,\n", "line 1: expected path,label"),
        ("a.jpg,ant\nd.jpg,wasp\n", "line 2: label 'wasp' is no class of the models; expected one of 3 names"),
        ("a.jpg,3\n", "label '3' is no class of the models"),
        ("a.jpg,-1\n", "label '-1' is no class"),
        ("a.jpg,ant\na.jpg,ant\n", r"line 2: a\.jpg is listed twice"),
        ("# nothing\n", "lists no image"),
    ],
)
def test_bad_lists(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_image_list(_list(tmp_path, text), CLASSES)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"line 1: the image .*nowhere\.jpg does not exist"):
        read_image_list(_list(tmp_path, "nowhere.jpg,ant\n"), CLASSES)
    with pytest.raises(FileNotFoundError):
        read_image_list(tmp_path / "no_list.txt", CLASSES)
