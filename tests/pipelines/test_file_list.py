"""Lists of files: formats, headers, labels by number and by name, and errors with line numbers."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from has_dali.pipelines.file_list import file_list_source
from has_dali.pipelines.sources import FileSource


def listed(folder: Path, name: str, text: str | bytes) -> FileSource:
    """A list whose first entry exists."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file_list_source(path)


def paths(source: FileSource, folder: Path) -> list[str]:
    return [os.path.relpath(source.path(i), folder) for i in range(len(source))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b c.jpg", "sub/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


THREE = ["a.jpg", "b c.jpg", "sub/d.png"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "a.jpg,3\nb c.jpg,0\nsub/d.png,7\n"),
        ("l.csv", "path,label\r\na.jpg,3\r\nb c.jpg,0\r\n\r\nsub/d.png,7"),
        ("l.csv", "\ufefffilename;class\na.jpg;3\nb c.jpg;0\nsub/d.png;7\n"),
        ("l.csv", "a.jpg\t3\nb c.jpg\t0\nsub/d.png\t7\n"),
        ("l.csv", 'index,label,width,image\n0,3,10,a.jpg\n1,0,10,"b c.jpg"\n2, 7,10,sub/d.png\n'),
        ("l.csv", '"a.jpg","3"\n"b c.jpg", 0\n"sub/d.png",7\n'),
        ("l.txt", "a.jpg 3\nb c.jpg 0\n\nsub/d.png   7\n"),
        ("l.txt", "a.jpg,3\nb c.jpg, 0\nsub/d.png,7"),
        ("l.txt", "a.jpg\t3\nb c.jpg\t0\nsub/d.png\t7\n"),
        ("l.TXT", "file label\na.jpg 3\nb c.jpg 0\nsub/d.png 7\n"),
    ],
)
def test_formats(folder: Path, name: str, text: str) -> None:
    source = listed(folder, name, text)
    assert paths(source, folder) == THREE and source.labels.tolist() == [3, 0, 7] and source.classes == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "a.jpg\nb c.jpg\nsub/d.png\n"),
        ("l.csv", "a.jpg\nb c.jpg\nsub/d.png\n"),
        ("l.csv", "path\na.jpg\nb c.jpg\nsub/d.png\n"),
    ],
)
def test_paths_alone(folder: Path, name: str, text: str) -> None:
    source = listed(folder, name, text)
    assert paths(source, folder) == THREE and set(source.labels.tolist()) == {-1}


def test_class_names_are_sorted(folder: Path) -> None:
    source = listed(folder, "l.csv", "a.jpg,zebra\nb c.jpg,ant\nsub/d.png,n01440764\n")
    assert source.classes == ("ant", "n01440764", "zebra") and source.labels.tolist() == [2, 0, 1]


def test_absolute_paths_and_odd_names(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    odd = os.fsencode(folder) + b"/\xff\xfe.jpg"
    with open(odd, "wb") as file:
        file.write(b"x")
    elsewhere = tmp_path_factory.mktemp("lists")
    source = listed(elsewhere, "l.csv", odd + b",1\n" + os.fsencode(folder) + b"/a.jpg,2\n")
    assert os.fsencode(source.path(0)) == odd and source.path(1) == f"{folder}/a.jpg"
    assert source.name(0) == source.path(0)


# Without what ends a path or a line.
LETTERS = st.characters(codec="utf-8", exclude_characters="\0/\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029")


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.text(
                st.characters(codec="utf-8", exclude_characters="\0/\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"), min_size=1
            )
            .map(str.strip)
            .filter(bool),
            st.integers(0, 1 << 50),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row[0],
    )
)
def test_what_csv_writes_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]) -> None:
    """Quotes, commas, spaces and other letters in names."""
    folder = tmp_path_factory.mktemp("lists")
    (folder / "images").mkdir()
    named = [(f"images/{name}.jpg"[:60], label) for name, label in rows]
    named = list(dict(named).items())
    first = folder / named[0][0]
    first.parent.mkdir(exist_ok=True)
    first.write_bytes(b"x")
    with open(folder / "l.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows(named)
    source = file_list_source(folder / "l.csv")
    assert [source.path(i) for i in range(len(source))] == [f"{folder}/{name}" for name, _ in named]
    assert source.labels.tolist() == [label for _, label in named]


BAD = {
    "empty": ("l.csv", "\n\n", "the list is empty; expected 'path,label'"),
    "header only": ("l.csv", "path,label\n", "the list is empty"),
    "no label": ("l.csv", "a.jpg,1\nb c.jpg\n", "line 2: no label, unlike line 1"),
    "blank label": ("l.csv", "path,label\na.jpg,1\nb c.jpg,\n", "line 3: no label, unlike line 2"),
    "sudden label": ("l.txt", "a.jpg\n\nb.jpg 1\n", "line 3: more than a path, unlike line 1"),
    "no path": ("l.csv", "a.jpg,1\n,2\n", "line 2: no path; expected"),
    "word": ("l.csv", "a.jpg,1\nb c.jpg,cat\n", "line 2: label 'cat'; expected an integer from 0 on"),
    "negative": ("l.csv", "a.jpg,-1\n", "line 1: label '-1'; expected an integer from 0 on"),
    "float": ("l.csv", "a.jpg,1.5\n", "line 1: label '1.5'; expected an integer from 0 on"),
    "number": ("l.csv", "a.jpg,cat\nb c.jpg,7\n", "line 2: label 7, a number among names"),
    "twice": ("l.csv", "a.jpg,1\nb c.jpg,1\n\na.jpg,2\n", "line 4: {}/a.jpg again, as on line 1"),
    "columns": ("l.csv", "a.jpg,1,2\n", "line 1: 3 columns; expected 'path,label', or a first row that names"),
    "no label column": ("l.csv", "path,width\na.jpg,1\n", "line 1: no column named 'label' among path, width"),
    "quotes": ("l.csv", 'a.jpg,1\n"b c.jpg,1\n', "no .csv list ("),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_lists(folder: Path, case: str) -> None:
    name, text, message = BAD[case]
    with pytest.raises(ValueError, match=re.escape(f"{folder}/{name}: {message.format(folder)}")):
        listed(folder, name, text)


def test_missing_files(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"line 1: no such file: .*/images/a\.jpg; paths count from the list's"):
        listed(folder, "l.csv", "images/a.jpg,1\n")
    with pytest.raises(FileNotFoundError, match=r"data='.*/none\.csv': no such file"):
        file_list_source(folder / "none.csv")
