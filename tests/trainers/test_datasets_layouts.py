"""Every layout of labelled images, and the errors of wrong ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.pipelines import FileSource
from has_dali.trainers.datasets import LabeledImages, Source, blacklisted_ids, held_out, held_out_ids, open_labeled

WNIDS = ("n01440764", "n01443537")


def picture(file: Path, size: tuple[int, int] = (6, 5)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(file)


def names(source: Source) -> list[str]:
    assert isinstance(source, FileSource)
    return [Path(source.path(i)).name for i in range(len(source))]


def xml(file: Path, wnids: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    box = "<bndbox><xmin>0</xmin><ymin>1</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    objects = "".join(f"<object><name>{wnid}</name>{box}</object>" for wnid in wnids)
    file.write_text(f"<annotation><size><width>6</width><height>5</height></size>{objects}</annotation>")


def ilsvrc(root: Path) -> Path:
    """Two train images per class, and a flat val of three."""
    images = root / "ILSVRC" / "Data" / "CLS-LOC"
    for wnid in WNIDS:
        for number in (1, 2):
            picture(images / "train" / wnid / f"{wnid}_{number}.JPEG")
    for number in (1, 2, 3):
        picture(images / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    return images


def test_class_folders(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 1)):
        for name in ("cat", "ant"):
            for number in range(count):
                picture(tmp_path / part / name / f"{name}{number}.png")
    images = open_labeled(tmp_path)
    assert images.classes == ("ant", "cat") and images.name == tmp_path.name
    assert images.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and images.val.labels.tolist() == [0, 1]
    assert names(images.val) == ["ant0.png", "cat0.png"]


def test_classes_that_differ(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "val/a", "val/c", "val/d"):
        picture(tmp_path / place / "x.png")
    expected = r"classes that differ between train and val \(only in train: b; only in val: c, d\)"
    with pytest.raises(ValueError, match=expected):
        open_labeled(tmp_path)


def test_unknown_layout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no known layout") as error:
        open_labeled(tmp_path)
    assert str(error.value).count("\n") == 1 and "train/<class>/" in str(error.value)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_labeled(tmp_path / "nope")


def test_real_cifar(data_root: Path) -> None:
    images = open_labeled(data_root / "cifar-10-batches-py")
    assert images.name == "CIFAR-10" and images.classes[:2] == ("airplane", "automobile")
    assert np.bincount(images.train.labels).tolist() == [1000] * 10
    assert np.bincount(images.val.labels).tolist() == [200] * 10


def test_npz(tmp_path: Path) -> None:
    pixels = np.zeros((3, 4, 5, 3), np.uint8)
    np.savez(tmp_path / "train.npz", images=pixels, labels=[0, 1, 1])
    np.savez(tmp_path / "val.npz", images=pixels, labels=[1, 1, 0])
    images = open_labeled(tmp_path)
    assert images.classes == ("0", "1") and images.val.labels.tolist() == [1, 1, 0]
    np.savez(tmp_path / "val.npz", images=pixels, labels=[1, 1, 2])
    with pytest.raises(ValueError, match=r"only in train: 0; only in val: 2"):
        open_labeled(tmp_path)
    np.savez(tmp_path / "val.npz", images=pixels)
    with pytest.raises(ValueError, match=r"val\.npz: expected labels"):
        open_labeled(tmp_path)


def test_tiny_imagenet(tmp_path: Path) -> None:
    for wnid in WNIDS:
        picture(tmp_path / "train" / wnid / "images" / f"{wnid}_0.JPEG")
    for number in (0, 1, 2):
        picture(tmp_path / "val" / "images" / f"val_{number}.JPEG")
    lines = [f"val_2.JPEG\t{WNIDS[0]}\t0\t0\t1\t1", f"val_0.JPEG\t{WNIDS[1]}\t0\t0\t1\t1"]
    table = tmp_path / "val" / "val_annotations.txt"
    table.write_text("\n".join([*lines, f"val_1.JPEG\t{WNIDS[0]}\t0\t0\t1\t1"]) + "\n")
    images = open_labeled(tmp_path)
    assert names(images.val) == ["val_0.JPEG", "val_1.JPEG", "val_2.JPEG"]
    assert images.val.labels.tolist() == [1, 0, 0]
    table.write_text("\n".join([*lines, f"val_9.JPEG\t{WNIDS[0]}\t0\t0\t1\t1"]))
    with pytest.raises(ValueError, match=r"1 images are not in .*, the first is val_9\.JPEG"):
        open_labeled(tmp_path)
    table.write_text("\n".join([*lines, "val_1.JPEG\tn09999999\t0\t0\t1\t1"]))
    with pytest.raises(ValueError, match="only in val: n09999999"):
        open_labeled(tmp_path)
    table.write_text(lines[0] + "\nval_0.JPEG 3\n")
    with pytest.raises(ValueError, match="line 2: expected 6 words, got 2"):
        open_labeled(tmp_path)


def test_ilsvrc_with_class_folders_in_val(tmp_path: Path) -> None:
    images = ilsvrc(tmp_path)
    for number, wnid in ((1, WNIDS[1]), (2, WNIDS[0]), (3, WNIDS[1])):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        (images / "val" / wnid).mkdir(exist_ok=True)
        (images / "val" / name).rename(images / "val" / wnid / name)
    found = open_labeled(tmp_path)
    assert found.classes == WNIDS and found.val.labels.tolist() == [0, 1, 1]
    assert open_labeled(tmp_path / "ILSVRC").classes == WNIDS


def test_flat_ilsvrc_val_takes_classes_from_xml_or_table(tmp_path: Path) -> None:
    ilsvrc(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"LOC_val_solution\.csv; found neither"):
        open_labeled(tmp_path)
    lines = [f"ILSVRC2012_val_{n:08d},{WNIDS[c]} 0 1 3 4 {WNIDS[c]} 1 1 2 2 " for n, c in ((3, 0), (1, 1), (2, 0))]
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(lines) + "\n")
    assert open_labeled(tmp_path).val.labels.tolist() == [1, 0, 0]
    at = tmp_path / "ILSVRC" / "Annotations" / "CLS-LOC" / "val"
    for number, label in ((1, 0), (2, 1), (3, 1)):  # the XML files come first
        xml(at / f"ILSVRC2012_val_{number:08d}.xml", [WNIDS[label]] * 2)
    assert open_labeled(tmp_path).val.labels.tolist() == [0, 1, 1]
    xml(at / "ILSVRC2012_val_00000002.xml", list(WNIDS))
    with pytest.raises(ValueError, match=r"val_00000002\.JPEG: expected objects of one class"):
        open_labeled(tmp_path)


def test_blacklist(tmp_path: Path) -> None:
    source = FileSource([f"val/ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2, 36, 49999)])
    (tmp_path / "list.txt").write_text("49999\n2\n")
    assert blacklisted_ids(tmp_path / "list.txt", source).tolist() == [1, 3]
    (tmp_path / "list.txt").write_text("7\n")
    with pytest.raises(ValueError, match="'7' is the number of no image"):
        blacklisted_ids(tmp_path / "list.txt", source)


def test_held_out_is_every_tenth_of_each_class() -> None:
    labels = np.array([0, 1] * 20 + [1] * 5)
    folds = [held_out_ids(labels, 10, fold) for fold in range(10)]
    assert folds[0][1].tolist() == [0, 1, 20, 21, 40]  # the 0th, 10th of class 0; the 0th, 10th, 20th of class 1
    for fit, held in folds:
        assert sorted([*fit, *held]) == list(range(45))
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(45))


def test_held_out_never_reads_val() -> None:
    train = FileSource([f"train{i}.png" for i in range(8)], [0, 0, 0, 0, 1, 1, 1, 1], ("a", "b"))
    images = LabeledImages("toy", train, FileSource(["val.png"], [0], ("a", "b")), ("a", "b"))
    split = held_out(images, every=4, fold=1)
    assert names(split.val) == ["train1.png", "train5.png"] and split.val.labels.tolist() == [0, 1]
    assert names(split.train) == [f"train{i}.png" for i in (0, 2, 3, 4, 6, 7)]
    assert split.classes == images.classes and split.name == "toy"


def test_held_out_refuses_what_leaves_a_part_without_a_class() -> None:
    with pytest.raises(ValueError, match="class 1 has 1 images; each needs one in both parts"):
        held_out_ids(np.array([0, 0, 0, 1]), 2)
    with pytest.raises(ValueError, match="class 0 has 3 images"):
        held_out_ids(np.array([0, 0, 0]), 4, 3)
    for every, fold in ((1, 0), (4, 4), (4, -1)):
        with pytest.raises(ValueError, match="expected every of at least 2"):
            held_out_ids(np.zeros(8, np.int64), every, fold)
