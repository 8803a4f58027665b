"""Masks from wsolevaluation's lists: what they become at the size asked for, and the errors."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.trainers.datasets import BoxedImages, MaskedImages, Masks, held_out, open_boxed

sys.path.insert(0, str(Path(__file__).parent))
from mask_support import write_lists, write_mask

TRAIN = {"train/cat/1.jpg": 7, "train/ant/1.jpg": 3}
VAL = {"test/ant/x,1.jpg": 3, "test/cat/2.jpg": 7}
LINES = [
    "test/ant/x,1.jpg,test/ant/1_a.png,test/ant/1_ignore.png",
    "test/ant/x,1.jpg,test/ant/1_b.png,",
    "test/cat/2.jpg,test/cat/2.png,",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four masks; the lists lie in ``m``."""
    write_mask(tmp_path / "test/ant/1_a.png", [[1, 1, 0, 0], [0, 0, 0, 0]])
    write_mask(tmp_path / "test/ant/1_b.png", [[0, 0, 0, 0], [0, 1, 0, 0]])
    write_mask(tmp_path / "test/ant/1_ignore.png", [[0, 1, 1, 0], [0, 1, 1, 0]])
    write_mask(tmp_path / "test/cat/2.png", np.ones((5, 3)))
    write_lists(tmp_path / "m" / "train", TRAIN)
    write_lists(tmp_path / "m" / "test", VAL, LINES)
    return tmp_path


def opened(root: Path) -> MaskedImages:
    images = open_boxed(root, root / "m")
    assert isinstance(images, MaskedImages)
    return images


def test_masks_are_united_and_ignored_only_outside_of_the_object(root: Path) -> None:
    images = opened(root)
    assert images.classes == ("ant", "cat") and images.val.labels.tolist() == [0, 1]
    assert images.train.labels.tolist() == [1, 0] and len(images.val_masks) == 2
    mask = images.val_masks.of(0, (2, 4))
    assert mask.dtype == np.uint8 and mask.tolist() == [[1, 1, 255, 0], [0, 1, 255, 0]]
    assert images.val_masks.of(1, (2, 4)).tolist() == [[1] * 4] * 2  # stored 5 x 3, without a region to ignore


def test_sizes_change_by_the_pixel_at_the_scaled_corner(root: Path) -> None:
    """Columns floor(x * 4 / 2): 0 and 2; rows floor(y * 2 / 4): 0, 0, 1, 1. A lone pixel in column 1 vanishes."""
    masks = opened(root).val_masks
    assert masks.of(0, (4, 2)).tolist() == [[1, 255], [1, 255], [0, 255], [0, 255]]
    assert masks.batch([1, 0], (1, 1)).tolist() == [[[1]], [[1]]]
    assert masks.batch([], (3, 2)).shape == (0, 3, 2)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "I;16"])
def test_any_grey_above_zero_marks_a_pixel(tmp_path: Path, mode: str) -> None:
    marked = np.array([[0, 1, 255]], np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(marked.astype(np.uint16) * 256)
    elif mode == "P":
        picture = Image.fromarray(marked)
        picture.putpalette([value for level in range(256) for value in (level, level, level)])
    else:
        picture = Image.fromarray(marked).convert(mode)
    picture.save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as stored:
        assert stored.mode == mode
    assert Masks(((str(tmp_path / "m.png"),),), ((),)).of(0, (1, 3)).tolist() == [[0, 1, 1]]


def test_flat_lists_and_lines_of_other_images(root: Path) -> None:
    for name in ("ant", "cat"):
        (root / "train" / name).mkdir(parents=True)
        Image.new("RGB", (3, 3)).save(root / "train" / name / "1.png")
    regions = ["test/cat/2.jpg, test/cat/2.png, test/ant/1_ignore.png", "test/cat/2.jpg,test/cat/2.png,test/cat/2.png"]
    write_lists(root / "flat", {name: n for n, name in enumerate(VAL)}, ["other.jpg,o.png,", *LINES[:2], "", *regions])
    images = open_boxed(root, root / "flat")
    assert isinstance(images, MaskedImages) and images.classes == ("ant", "cat") and len(images.train) == 2
    assert [len(files) for files in images.val_masks.objects] == [2, 2]
    assert [len(files) for files in images.val_masks.ignored] == [1, 2]


def test_training_boxes_do_not_count_beside_masks(root: Path) -> None:
    write_lists(root / "m" / "train", TRAIN, [f"{name},0,0,1,1" for name in TRAIN])
    assert not hasattr(opened(root), "train_boxes")
    write_lists(root / "m" / "test", VAL, [f"{name},0,0,1,1" for name in VAL])
    for part in ("train", "test"):
        names = TRAIN if part == "train" else VAL
        (root / "m" / part / "image_sizes.txt").write_text("".join(f"{name},4,2\n" for name in names))
    boxed = open_boxed(root, root / "m")
    assert isinstance(boxed, BoxedImages) and boxed.train_boxes is not None


def test_nothing_is_held_out_where_masks_are(root: Path) -> None:
    with pytest.raises(ValueError, match=r"PxAP has no threshold to choose; set loader\.held_out to 0"):
        held_out(opened(root), 10)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([LINES[0], "test/cat/2.jpg,test/cat/2.png"], "line 2: expected an image, a mask and a region to ignore"),
        (["test/cat/2.jpg,test/cat/2.png"], "line 1: expected an image, a mask and a region to ignore"),
        ([*LINES, "test/cat/2.jpg,,"], "line 4: expected an image, a mask"),
        ([*LINES, "test/cat/2.jpg,a.png,b.png,"], "line 4: expected an image, a mask"),
        ([*LINES, "test/cat/2.jpg,0,0,1,1"], "line 4: expected an image, a mask"),
        (LINES[:2], "missing masks: 1 of 2 images have none, the first is test/cat/2.jpg; expected a line"),
        ([*LINES, "test/cat/2.jpg,0.png,1.png"], "missing masks: 2 of 6 files"),
        (["test/cat/2.jpg,0,0,1"], "expected a path and 4 whole numbers"),
    ],
)
def test_wrong_lists(root: Path, lines: list[str], message: str) -> None:
    write_lists(root / "m" / "test", VAL, lines)
    with pytest.raises((ValueError, OSError), match=re.escape(message)) as error:
        opened(root)
    assert str(root) in str(error.value) and str(error.value).count("\n") == 0


def test_a_missing_mask_is_missed_at_the_start(root: Path) -> None:
    (root / "test/ant/1_b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 files .* the first is test/ant/1_b\.png; unpack the masks"):
        opened(root)


def test_masks_that_cannot_be(root: Path) -> None:
    images = opened(root)
    masks = images.val_masks
    write_mask(root / "test/ant/1_a.png", np.zeros((2, 4)))
    assert masks.of(0, (2, 4)).tolist() == [[0, 255, 255, 0], [0, 1, 255, 0]]  # one of two may be empty
    write_mask(root / "test/ant/1_b.png", np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"1_a\.png and the 1 other masks of its image: no pixel is above 0"):
        masks.of(0, (2, 4))
    (root / "test/cat/2.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"2\.png: is no image"):
        masks.batch([1], (2, 4))
    with pytest.raises(ValueError, match="of 2 images, got 1"):
        Masks((("a",), ("b",)), ((),))
    with pytest.raises(ValueError, match="1 images have none, the first is image 1"):
        Masks((("a",), ()), ((), ()))
    with pytest.raises(ValueError, match="val_masks: 1 images have masks, but val has 2 images"):
        MaskedImages(images.name, images.train, images.val, images.classes, Masks((("a",),), ((),)))
