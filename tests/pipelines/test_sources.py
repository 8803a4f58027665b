"""Folders and file lists: order and labels as torchvision's, and errors that name what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from has_dali.pipelines import open_source


def test_folder_is_read_as_torchvision_does(image_folder: Path) -> None:
    source, theirs = open_source(image_folder), ImageFolder(str(image_folder))
    assert [source.path(i) for i in range(len(source))] == [path for path, _ in theirs.samples]
    assert source.labels.tolist() == theirs.targets
    assert source.labels.dtype == np.int64
    assert list(source.classes) == theirs.classes


def test_odd_names_and_other_files(tmp_path: Path) -> None:
    for name in ("b/ü ö.JPEG", "b/.hidden.png", "a/x.txt", "a/z.jpg", "a/sub/y.webp", "a/y.jpg.bak"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    source, theirs = open_source(str(tmp_path)), ImageFolder(str(tmp_path))
    assert [source.path(i) for i in range(len(source))] == [path for path, _ in theirs.samples]
    assert source.encoded_path(0).tobytes() == os.fsencode(theirs.samples[0][0])


def test_real_folder(data_root: Path) -> None:
    root = data_root / "tiny-imagenet-20" / "train"
    source, theirs = open_source(root), ImageFolder(str(root))
    assert [source.path(i) for i in range(len(source))] == [path for path, _ in theirs.samples]
    assert source.labels.tolist() == theirs.targets


def test_file_list(image_folder: Path) -> None:
    files = sorted(image_folder.rglob("*.jpg"))
    source = open_source(files, labels=np.arange(len(files), dtype=np.int32))
    assert [source.path(i) for i in range(len(source))] == [str(path) for path in files]
    assert source.labels.tolist() == list(range(len(files)))
    assert set(open_source(files).labels.tolist()) == {-1}
    assert open_source(source) is source


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data='.*nope': no such folder; expected a folder of class folders"):
        open_source(tmp_path / "nope")


def test_file_instead_of_folder(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("x")
    with pytest.raises(NotADirectoryError, match=r"list\.txt': a file; expected a folder"):
        open_source(tmp_path / "list.txt")


def test_folder_without_classes(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"no class folders; expected .*<class>"):
        open_source(tmp_path)


def test_empty_class_folder(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.jpg").write_bytes(b"x")
    (tmp_path / "hollow" / "deeper").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"class folder '.*hollow' holds no images"):
        open_source(tmp_path)


@pytest.mark.parametrize("inner", [False, True])
def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: bool) -> None:
    (tmp_path / "a").mkdir()
    locked = str(tmp_path / "a") if inner else str(tmp_path)
    scandir = os.scandir

    def refuse(path: str) -> object:  # a user who runs the tests as root may read anything
        if os.fspath(path) == locked:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"data.*permissions") as caught:
        open_source(tmp_path)
    assert locked in str(caught.value)


@pytest.mark.parametrize(
    ("data", "labels", "kind", "message"),
    [
        ([], None, ValueError, "data is empty: expected at least one image file"),
        (["a.jpg", "b.jpg"], [1], ValueError, r"labels: expected 2 integers, one per file, got shape \(1,\)"),
        (["a.jpg"], [0.5], TypeError, "labels: expected integers, got dtype float64"),
        (["a.jpg", 3], None, TypeError, "data: expected a folder or a sequence of file paths"),
        (7, None, TypeError, "data: expected a folder or a sequence of file paths, got int"),
        ("folder", [1], ValueError, "labels: only a list of files takes labels"),
    ],
)
def test_bad_arguments(data: object, labels: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        open_source(data, labels)  # type: ignore[arg-type]
