"""Boxes of every layout, and the errors for images without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.pipelines import FileSource
from has_dali.trainers.datasets import Boxes, held_out, open_boxed
from has_dali.trainers.datasets.voc_xml import read_annotations

WNIDS = ("n01440764", "n01443537")


def picture(file: Path, size: tuple[int, int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(file)


def xml(file: Path, size: tuple[int, int], objects: list[tuple[str, tuple[int, int, int, int]]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        f"<object><name>{name}</name><pose>Left</pose><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for name, (a, b, c, d) in objects
    ]
    size_part = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    file.write_text(f"<annotation><folder>val</folder>{size_part}{''.join(parts)}</annotation>")


def ilsvrc(root: Path) -> Path:
    images = root / "Data" / "CLS-LOC"
    for wnid in WNIDS:
        picture(images / "train" / wnid / f"{wnid}_1.JPEG", (8, 8))
    for number in (1, 2):
        picture(images / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", (12, 7))
    return root / "Annotations" / "CLS-LOC" / "val"


def metadata(folder: Path, rows: dict[str, tuple[int, list[str]]], size: str | None = "12,7") -> None:
    """Lists of images with their label and boxes."""
    folder.mkdir(parents=True)
    (folder / "image_ids.txt").write_text("".join(f"{name}\n" for name in rows))
    (folder / "class_labels.txt").write_text("".join(f"{name},{label}\n" for name, (label, _) in rows.items()))
    lines = [f"{name},{box}\n" for name, (_, boxes) in rows.items() for box in boxes]
    if lines:
        (folder / "localization.txt").write_text("".join(lines))
    if size:
        (folder / "image_sizes.txt").write_text("".join(f"{name},{size}\n" for name in rows))


def test_boxes_of_images() -> None:
    boxes = Boxes.from_lists([[(0, 0, 3, 1)], [(1, 1, 1, 1), (0, 0, 0, 4)]], [(2, 4), (5, 6)])
    assert len(boxes) == 2 and boxes.of(1).tolist() == [[1, 1, 1, 1], [0, 0, 0, 4]]
    assert boxes.offsets.tolist() == [0, 1, 3] and boxes.thin == 2
    chosen = boxes.select([1, 0, 1])
    assert [chosen.of(i).tolist() for i in range(3)] == [boxes.of(i).tolist() for i in (1, 0, 1)]
    assert chosen.sizes.tolist() == [[5, 6], [2, 4], [5, 6]]
    assert len(boxes.select([])) == 0


@pytest.mark.parametrize("box", [(0, 0, 4, 1), (0, 0, 3, 2), (-1, 0, 3, 1), (2, 0, 1, 1), (0, 1, 0, 0)])
def test_boxes_outside_their_image(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="of image 1, 4 wide and 2 high"):
        Boxes.from_lists([[(0, 0, 3, 1)], [box]], [(2, 4), (2, 4)])


def test_boxes_whose_arrays_do_not_fit() -> None:
    with pytest.raises(ValueError, match="1 images have none, the first is image 1"):
        Boxes.from_lists([[(0, 0, 1, 1)], []], [(2, 2), (2, 2)])
    with pytest.raises(ValueError, match=r"sizes \(1, 2\), got \(1, 4\) and \(2, 2\)"):
        Boxes.from_lists([[(0, 0, 1, 1)]], [(2, 2), (2, 2)])


def test_real_tiny_imagenet(data_root: Path) -> None:
    images = open_boxed(data_root / "tiny-imagenet-20")
    assert len(images.train) == 10000 and len(images.val) == 1000 and len(images.classes) == 20
    assert images.train_boxes is not None
    assert (images.val_boxes.thin, images.train_boxes.thin) == (2, 30)  # as the data set's notes count them
    assert (images.val_boxes.sizes == 64).all() and (np.diff(images.val_boxes.offsets) == 1).all()
    assert isinstance(images.val, FileSource) and isinstance(images.train, FileSource)
    place = [Path(images.val.path(i)).name for i in range(1000)].index("val_13.JPEG")
    assert images.val_boxes.of(place).tolist() == [[21, 33, 36, 43]]
    assert images.classes[images.val.labels[place]] == "n03770439"
    place = [Path(images.train.path(i)).name for i in range(500)].index("n01443537_0.JPEG")
    assert images.train_boxes.of(place).tolist() == [[0, 10, 63, 58]]

    split = held_out(images)
    assert len(split.train) == 9000 and np.bincount(split.val.labels).tolist() == [50] * 20
    assert isinstance(split.val, FileSource)
    source = {images.train.path(i): i for i in range(10000)}
    ids = [source[split.val.path(i)] for i in range(1000)]
    assert np.array_equal(split.val_boxes.values, images.train_boxes.values[ids])
    assert split.train_boxes is not None and len(split.train_boxes) == 9000


def test_tiny_imagenet_image_without_box(tmp_path: Path) -> None:
    for wnid in WNIDS:
        for number in (0, 1):
            picture(tmp_path / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", (9, 4))
        (tmp_path / "train" / wnid / f"{wnid}_boxes.txt").write_text(
            "".join(f"{wnid}_{number}.JPEG\t0\t0\t8\t3\n" for number in (0, 1))
        )
        picture(tmp_path / "val" / "images" / f"val_{wnid}.JPEG", (9, 4))
    table = "".join(f"val_{wnid}.JPEG\t{wnid}\t1\t1\t7\t2\n" for wnid in WNIDS)
    (tmp_path / "val" / "val_annotations.txt").write_text(table)
    images = open_boxed(tmp_path)
    assert images.val_boxes.values.tolist() == [[1, 1, 7, 2]] * 2
    assert images.val_boxes.sizes.tolist() == [[4, 9]] * 2
    file = tmp_path / "train" / WNIDS[1] / f"{WNIDS[1]}_boxes.txt"
    file.write_text(f"{WNIDS[1]}_1.JPEG\t0\t0\t8\t3\n")
    with pytest.raises(ValueError, match=rf"missing boxes: 1 of 4 images .* the first is .*{WNIDS[1]}_0\.JPEG"):
        open_boxed(tmp_path)
    file.write_text(f"{WNIDS[1]}_0.JPEG\t0\t0\t9\t3\n{WNIDS[1]}_1.JPEG\t0\t0\t8\t3\n")
    with pytest.raises(ValueError, match=rf"{WNIDS[1]}_0\.JPEG: boxes: 1 are not inside .* \[0, 0, 9, 3\]"):
        open_boxed(tmp_path)
    file.write_text(f"{WNIDS[1]}_0.JPEG\ta\t0\t9\t3\n")
    with pytest.raises(ValueError, match="expected four whole numbers for a box, got 'a 0 9 3'"):
        open_boxed(tmp_path)


def test_ilsvrc_boxes_are_used_as_written(tmp_path: Path) -> None:
    """Only objects of the image's own class; from 0 with both ends inside; a box past the picture is cut."""
    at = ilsvrc(tmp_path)
    xml(at / "ILSVRC2012_val_00000001.xml", (12, 7), [(WNIDS[1], (0, 0, 11, 6)), (WNIDS[1], (2, 3, 2, 5))])
    xml(at / "ILSVRC2012_val_00000002.xml", (12, 7), [(WNIDS[0], (4, 1, 12, 7))])
    images = open_boxed(tmp_path)
    assert images.val.labels.tolist() == [1, 0] and images.train_boxes is None
    assert images.val_boxes.of(0).tolist() == [[0, 0, 11, 6], [2, 3, 2, 5]]
    assert images.val_boxes.of(1).tolist() == [[4, 1, 11, 6]]
    assert images.val_boxes.sizes.tolist() == [[7, 12], [7, 12]]
    with pytest.raises(ValueError, match="has no boxes for its training images"):
        held_out(images)


def test_ilsvrc_class_folders_choose_the_objects(tmp_path: Path) -> None:
    at = ilsvrc(tmp_path)
    val = tmp_path / "Data" / "CLS-LOC" / "val"
    for number, wnid in ((1, WNIDS[0]), (2, WNIDS[1])):
        (val / wnid).mkdir()
        (val / f"ILSVRC2012_val_{number:08d}.JPEG").rename(val / wnid / f"ILSVRC2012_val_{number:08d}.JPEG")
        xml(
            at / f"ILSVRC2012_val_{number:08d}.xml",
            (12, 7),
            [(WNIDS[0], (1, 1, 2, 2)), (WNIDS[1], (3, 3, 4, 4)), (WNIDS[0], (5, 5, 6, 6))],
        )
    boxes = open_boxed(tmp_path).val_boxes
    assert boxes.of(0).tolist() == [[1, 1, 2, 2], [5, 5, 6, 6]] and boxes.of(1).tolist() == [[3, 3, 4, 4]]
    xml(at / "ILSVRC2012_val_00000002.xml", (12, 7), [(WNIDS[0], (1, 1, 2, 2))])
    with pytest.raises(ValueError, match=r"missing boxes: 1 of 2 images .*val_00000002\.JPEG"):
        open_boxed(tmp_path)


def test_ilsvrc_boxes_from_the_table(tmp_path: Path) -> None:
    root = tmp_path / "ILSVRC"
    ilsvrc(root)
    table = tmp_path / "LOC_val_solution.csv"
    lines = [
        f"ILSVRC2012_val_00000002,{WNIDS[0]} 1 1 2 2 {WNIDS[0]} 3 3 4 4 ",
        f"ILSVRC2012_val_00000001,{WNIDS[1]} 0 0 11 6",
    ]
    table.write_text("ImageId,PredictionString\n" + "\n".join(lines))
    boxes = open_boxed(tmp_path).val_boxes
    assert boxes.of(0).tolist() == [[0, 0, 11, 6]] and boxes.of(1).tolist() == [[1, 1, 2, 2], [3, 3, 4, 4]]
    assert boxes.sizes.tolist() == [[7, 12], [7, 12]]  # from the image headers
    table.write_text(f"ImageId,PredictionString\nILSVRC2012_val_00000001,{WNIDS[1]} 0 0 11")
    with pytest.raises(ValueError, match=r"expected 'image,wnid x0 y0 x1 y1 \.\.\.' in each line"):
        open_boxed(tmp_path)


def test_broken_xml_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<annotation><size>")
    with pytest.raises(ValueError, match=r"a\.xml: expected PASCAL VOC XML"):
        read_annotations([str(tmp_path / "a.xml")])
    (tmp_path / "a.xml").write_text("<annotation><object><name>x</name></object></annotation>")
    with pytest.raises(ValueError, match="no bndbox/xmin"):
        read_annotations([str(tmp_path / "a.xml")])


def test_wsol_metadata(tmp_path: Path) -> None:
    """Labels 5 and 2 are folders b and a: classes are sorted by name, whatever the lists' numbers."""
    metadata(tmp_path / "m" / "train", {"train/b/1.jpg": (5, []), "train/a/2.jpg": (2, [])}, size=None)
    metadata(tmp_path / "m" / "val", {"tuning/1.jpg": (2, ["0,0,1,1"])})
    metadata(
        tmp_path / "m" / "test",
        {"val/x,1.jpg": (5, ["1,2,3,4"]), "val/2.jpg": (2, ["0,0,11,6", "5,5,5,5"]), "val/3.jpg": (2, ["2,2,4,4"])},
    )
    images = open_boxed(tmp_path, tmp_path / "m")
    assert images.classes == ("a", "b") and images.train_boxes is None
    assert images.train.labels.tolist() == [1, 0] and images.val.labels.tolist() == [1, 0, 0]
    assert images.val_boxes.of(0).tolist() == [[1, 2, 3, 4]] and images.val_boxes.of(1).tolist()[1] == [5, 5, 5, 5]
    assert images.val_boxes.sizes.tolist() == [[7, 12]] * 3
    assert isinstance(images.val, FileSource) and images.val.path(0) == str(tmp_path / "val" / "x,1.jpg")


def test_flat_wsol_metadata_numbers_the_sorted_folders(tmp_path: Path) -> None:
    for name in ("b", "a"):
        picture(tmp_path / "data" / "train" / name / "1.png", (3, 3))
        picture(tmp_path / "data" / "val" / f"{name}.png", (12, 7))
    rows = {"val/b.png": (1, ["0,0,11,6"]), "val/a.png": (0, ["1,1,2,2"])}
    metadata(tmp_path / "m", rows, size=None)  # sizes from the headers
    images = open_boxed(tmp_path / "data", tmp_path / "m")
    assert images.classes == ("a", "b") and images.val.labels.tolist() == [1, 0]
    assert images.val_boxes.sizes.tolist() == [[7, 12]] * 2


def test_wrong_wsol_metadata(tmp_path: Path) -> None:
    train = {"train/a/1.jpg": (0, []), "train/b/1.jpg": (1, [])}
    with pytest.raises(FileNotFoundError, match="no such folder; expected one with image_ids"):
        open_boxed(tmp_path, tmp_path / "m")
    metadata(tmp_path / "m" / "train", train)
    metadata(tmp_path / "m" / "test", {"val/1.jpg": (0, ["0,0,1,1"]), "val/2.jpg": (1, [])})
    with pytest.raises(ValueError, match=r"missing boxes: 1 of 2 images have no box .* the first is val/2\.jpg"):
        open_boxed(tmp_path, tmp_path / "m")
    boxes = tmp_path / "m" / "test" / "localization.txt"
    boxes.write_text("val/1.jpg,0,0,1,1\nval/2.jpg,0,0,1\n")
    with pytest.raises(ValueError, match=r"line 2: expected a path and 4 whole numbers"):
        open_boxed(tmp_path, tmp_path / "m")
    boxes.write_text("val/1.jpg,0,0,1,1\nval/2.jpg,0,0,1,1\n")
    labels = tmp_path / "m" / "test" / "class_labels.txt"
    labels.write_text("val/1.jpg,0\nval/2.jpg,7\n")
    with pytest.raises(ValueError, match=r"classes that differ .* \(only here: 7\)"):
        open_boxed(tmp_path, tmp_path / "m")
    labels.write_text("val/1.jpg,0\nval/2.jpg,0\n")
    with pytest.raises(ValueError, match=r"classes that differ .* \(only in train: b\)"):
        open_boxed(tmp_path, tmp_path / "m")


def test_npz_boxes(tmp_path: Path) -> None:
    pixels = np.zeros((2, 7, 12, 3), np.uint8)
    several = [[[0, 0, 11, 6], [1, 1, 2, 2]], [[3, 3, 3, 3], [-1, -1, -1, -1]]]
    np.savez(tmp_path / "train.npz", images=pixels, labels=[0, 1])
    np.savez(tmp_path / "val.npz", images=pixels, labels=[1, 0], boxes=several)
    images = open_boxed(tmp_path)
    assert images.train_boxes is None and images.val_boxes.offsets.tolist() == [0, 2, 3]
    assert images.val_boxes.sizes.tolist() == [[7, 12]] * 2
    np.savez(tmp_path / "train.npz", images=pixels, labels=[0, 1], boxes=[[0, 0, 1, 1], [2, 2, 3, 3]])
    trained = open_boxed(tmp_path).train_boxes
    assert trained is not None and trained.of(1).tolist() == [[2, 2, 3, 3]]
    for boxes, message in (
        ([[0, 0, 1, 1], [-1, -1, -1, -1]], "missing boxes: 1 of 2 images .* the first is image 1"),
        ([[0, 0, 1, 1], [-1, 0, 1, 1]], r"image 1: boxes: 1 are not inside"),
        ([[0, 0, 1, 1]], "expected one row for each of 2 images, got 1"),
        ([[0, 0, 1], [0, 0, 1]], r"expected whole numbers \(N, 4\)"),
    ):
        np.savez(tmp_path / "val.npz", images=pixels, labels=[1, 0], boxes=boxes)
        with pytest.raises(ValueError, match=message):
            open_boxed(tmp_path)
    np.savez(tmp_path / "val.npz", images=pixels, labels=[1, 0])
    with pytest.raises(ValueError, match="has no array 'boxes'"):
        open_boxed(tmp_path)


def test_layout_without_boxes(tmp_path: Path) -> None:
    for place in ("train/a", "val/a"):
        picture(tmp_path / place / "x.png", (3, 3))
    with pytest.raises(ValueError, match="no known layout with boxes") as error:
        open_boxed(tmp_path)
    assert str(error.value).count("\n") == 1
