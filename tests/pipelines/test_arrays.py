"""Sources: what images in memory may be, parts of a source, and fingerprints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from has_dali.pipelines import ArraySource, FileSource

RNG = np.random.default_rng(0)
SIZES = [(3, 5), (1, 1), (8, 2), (4, 4)]


def pictures() -> list[np.ndarray]:
    return [RNG.integers(0, 256, (*size, 3)).astype(np.uint8) for size in SIZES]


def test_images_of_any_size_come_back() -> None:
    images = pictures()
    source = ArraySource.from_images(images, [2, 0, 1, 2], ("a", "b", "c"))
    assert len(source) == 4 and source.classes == ("a", "b", "c")
    assert source.shapes.tolist() == [list(size) for size in SIZES]
    assert source.offsets.tolist() == [0, 45, 48, 96, 144] and len(source.pixels) == 144
    assert source.labels.tolist() == [2, 0, 1, 2] and source.labels.dtype == np.int64
    for n, image in enumerate(images):
        assert np.array_equal(source.image(n), image)
        with pytest.raises(ValueError, match="read-only"):
            source.image(n)[0] = 0


def test_one_array_is_taken_without_a_copy() -> None:
    images = RNG.integers(0, 256, (6, 4, 7, 3)).astype(np.uint8)
    source = ArraySource.from_images(images)
    assert np.shares_memory(source.pixels, images)
    assert np.array_equal(source.image(3), images[3]) and set(source.labels.tolist()) == {-1}
    assert images.flags.writeable  # the caller's array stays as it was
    assert np.array_equal(ArraySource.from_images(images[::2]).image(2), images[4])


def test_gray_images_get_three_equal_channels() -> None:
    gray = RNG.integers(0, 256, (2, 4, 5)).astype(np.uint8)
    for source in (ArraySource.from_images(gray), ArraySource.from_images(list(gray))):
        assert source.image(1).shape == (4, 5, 3)
        assert all(np.array_equal(source.image(1)[..., c], gray[1]) for c in range(3))


def test_select_renumbers() -> None:
    images = pictures()
    part = ArraySource.from_images(images, [5, 6, 7, 8]).select([3, 0, 3])
    assert part.labels.tolist() == [8, 5, 8]
    assert all(np.array_equal(part.image(n), images[i]) for n, i in enumerate((3, 0, 3)))
    files = FileSource(["x/a.jpg", "x/b.jpg", "y.jpg"], [4, 5, 6], ("k",)).select(np.array([2, 1]))
    assert [files.path(0), files.path(1)] == ["y.jpg", "x/b.jpg"]
    assert files.labels.tolist() == [6, 5] and files.classes == ("k",)


@pytest.mark.parametrize("ids", [[], [0.5], [[0]], [True, False], [4], [-1]])
def test_bad_selections(ids: list[object]) -> None:
    for source in (ArraySource.from_images(pictures()), FileSource("abcd")):
        with pytest.raises(ValueError, match=r"ids: expected (a list of at least one integer|sample ids from 0 to 3)"):
            source.select(ids)  # type: ignore[arg-type]


def test_fingerprint_of_arrays() -> None:
    images = pictures()
    source = ArraySource.from_images(images, [0, 1, 2, 3])
    assert source.fingerprint() == ArraySource.from_images(images, [0, 1, 2, 3]).fingerprint()
    assert len(source.fingerprint()) == 16 and int(source.fingerprint(), 16) >= 0
    changed = [image.copy() for image in images]
    changed[2][0, 0, 0] ^= 1
    turned = [images[0].reshape(5, 3, 3), *images[1:]]  # same bytes, other shape
    others = [(changed, [0, 1, 2, 3]), (turned, [0, 1, 2, 3]), (images, [0, 1, 3, 2]), (images[::-1], [0, 1, 2, 3])]
    digests = {ArraySource.from_images(*other).fingerprint() for other in others}
    assert len(digests) == 4 and source.fingerprint() not in digests


def test_fingerprint_of_files_moves_with_the_folder() -> None:
    names = ("one/1.jpg", "one/2.jpg", "two/1.jpg")
    here = FileSource([f"/data/set/{name}" for name in names], [0, 0, 1])
    there = FileSource([f"elsewhere/{name}" for name in names], [0, 0, 1])
    assert here.fingerprint() == there.fingerprint() and len(here.fingerprint()) == 16
    others = [
        FileSource([f"/data/set/{name}" for name in names], [0, 1, 1]),
        FileSource([f"/data/set/{name}" for name in ("one/1.jpg", "one/3.jpg", "two/1.jpg")], [0, 0, 1]),
        FileSource([f"/data/set/{name}" for name in reversed(names)], [0, 0, 1]),
    ]
    assert here.fingerprint() not in {other.fingerprint() for other in others}
    # folders that merely begin alike are told apart, and a single file has its folder left out
    assert FileSource(["ab/x.jpg", "ac/x.jpg"]).fingerprint() == FileSource(["q/ab/x.jpg", "q/ac/x.jpg"]).fingerprint()
    assert FileSource(["ab/x.jpg", "ac/x.jpg"]).fingerprint() != FileSource(["b/x.jpg", "c/x.jpg"]).fingerprint()
    assert FileSource([Path("p/x.jpg")]).fingerprint() == FileSource(["x.jpg"]).fingerprint()


@pytest.mark.parametrize(
    ("images", "labels", "kind", "message"),
    [
        ([], None, ValueError, "images is empty"),
        (np.empty((0, 4, 4, 3), np.uint8), None, ValueError, r"shape \(0, 4, 4, 3\) is empty"),
        (np.zeros((2, 4, 4, 3)), None, TypeError, "images: expected uint8 from 0 to 255, got float64; scale"),
        (np.zeros((2, 3, 4, 4), np.uint8), None, ValueError, r"expected \(N, height, width, 3\).*got shape \(2, 3, 4"),
        (np.zeros((4, 4), np.uint8), None, ValueError, r"got shape \(4, 4\)"),
        ([np.zeros((4, 4, 4), np.uint8)], None, ValueError, r"images\[0\]: expected \(height, width, 3\)"),
        ([np.zeros((4, 4), np.uint8), np.zeros((4, 4), int)], None, TypeError, r"images\[1\]: expected uint8"),
        ([np.zeros((0, 4, 3), np.uint8)], None, ValueError, r"images\[0\]: shape \(0, 4, 3\) is empty"),
        (np.zeros((2, 4, 4), np.uint8), [1], ValueError, r"labels: expected 2 integers, one per image"),
        (np.zeros((2, 4, 4), np.uint8), [0.5, 1], TypeError, "labels: expected integers"),
    ],
)
def test_what_is_no_image(images: object, labels: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ArraySource.from_images(images, labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"pixels": np.zeros(12)}, TypeError, "pixels: expected a flat contiguous uint8 array, got float64"),
        ({"pixels": np.zeros((4, 3), np.uint8)}, TypeError, r"pixels: .* got uint8 of shape \(4, 3\)"),
        ({"pixels": np.zeros(24, np.uint8)[::2]}, TypeError, "pixels: expected a flat contiguous"),
        ({"pixels": np.zeros(13, np.uint8)}, ValueError, "offsets: expected height"),
        ({"offsets": np.array([0, 12], np.int32)}, TypeError, "offsets: expected a flat contiguous int64"),
        ({"offsets": np.array([0, 6, 12])}, TypeError, r"shapes: expected int64 \(2, 2\)"),
        ({"offsets": np.array([0])}, ValueError, "data is empty"),
        ({"shapes": np.array([[2, 0]])}, ValueError, "image 0 has a side of 0 pixels"),
        ({"shapes": np.array([[2, 3]])}, ValueError, "offsets: expected height"),
    ],
)
def test_arrays_that_do_not_fit(changes: dict[str, np.ndarray], kind: type[Exception], message: str) -> None:
    arrays = {"pixels": np.zeros(12, np.uint8), "offsets": np.array([0, 12]), "shapes": np.array([[2, 2]])}
    ArraySource(**arrays)
    with pytest.raises(kind, match=message):
        ArraySource(**{**arrays, **changes})
