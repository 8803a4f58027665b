"""Lists of image files with labels: .csv and .txt."""

from __future__ import annotations

import csv
import os
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from has_dali.pipelines.class_folders import IMAGE_EXTENSIONS
from has_dali.pipelines.name_table import NameBuilder, NameTable
from has_dali.pipelines.sources import FileSource, PathLike

_PATH_WORDS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "name")
_LABEL_WORDS = ("label", "labels", "class", "class_id", "class_name", "target", "category", "y", "wnid")


class Row(NamedTuple):
    """A row of a list with the number of its line, from 1."""

    line: int
    fields: list[str]


def file_list_source(file: PathLike) -> FileSource:
    """The image files that a list names, in its order.

    A ``.csv`` has commas (or semicolons or tabs) between path and label, and quotes where a path holds one; a ``.txt``
    has a comma, a tab or spaces. Labels are integers from 0 on, or class names, which are numbered in sorted order;
    a list of paths alone has labels -1. Paths count from the list's own folder. A first row of column names is passed
    over; of more than two columns, it tells which are meant.

    Raises:
        OSError: the list, or the first file it names, is missing or unreadable.
        ValueError: a row lacks a column, has a bad label, or repeats a path; names the line.
    """
    path = os.fspath(file)
    folder = os.path.dirname(path)
    names, lines, labels = NameBuilder(), array("q"), _Labels(path)
    hashes = array("q")
    rows, path_at, label_at = _columns(path, _rows(path))
    for row in rows:
        if path_at >= len(row.fields) or not row.fields[path_at]:
            raise ValueError(f"{path}: line {row.line}: no path; expected 'path,label' or a path")
        if not lines and label_at is None and len(row.fields) > 1:
            label_at = 1
        if label_at is not None and (label_at >= len(row.fields) or not row.fields[label_at]):
            raise ValueError(f"{path}: line {row.line}: no label, unlike line {lines[0] if lines else 1}; add it")
        if label_at is None and len(row.fields) > 1:
            raise ValueError(f"{path}: line {row.line}: more than a path, unlike line {lines[0]}; add labels to all")
        name = os.fsencode(os.path.join(folder, row.fields[path_at]))
        if not lines and not os.path.exists(name):
            raise FileNotFoundError(
                f"{path}: line {row.line}: no such file: {os.fsdecode(name)}; paths count from the list's folder"
            )
        if label_at is not None:
            labels.add(row.fields[label_at], row.line)
        names.append(name)
        hashes.append(hash(name))
        lines.append(row.line)
    if not lines:
        raise ValueError(f"{path}: the list is empty; expected 'path,label' or a path on each line")
    table = names.table()
    _refuse_repeats(path, table, hashes, lines)
    numbers, classes = labels.numbered()
    return FileSource.from_table(table, numbers if label_at is not None else None, classes)


class _Labels:
    """The label column: integers throughout, or names throughout."""

    def __init__(self, path: str) -> None:
        self._path, self._values, self._numbers, self._names = path, array("q"), True, dict[str, int]()

    def add(self, text: str, line: int) -> None:
        is_number = text.isdecimal() and len(text) < 19
        if not self._values:
            self._numbers = is_number or text.lstrip("+-").replace(".", "", 1).isdecimal()
        if self._numbers and not is_number:
            raise ValueError(f"{self._path}: line {line}: label {text!r}; expected an integer from 0 on")
        if is_number and not self._numbers:
            raise ValueError(f"{self._path}: line {line}: label {text}, a number among names; use one or the other")
        self._values.append(int(text) if self._numbers else self._names.setdefault(text, len(self._names)))

    def numbered(self) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Labels, and the class names they stand for where the list has names."""
        values = np.array(self._values, np.int64)
        if not self._names:
            return values, []
        classes = sorted(self._names)
        rank = np.empty(len(classes), np.int64)
        rank[[self._names[name] for name in classes]] = np.arange(len(classes))
        return rank[values], classes


def _rows(path: str) -> Iterator[Row]:
    """The rows that are not blank, fields stripped."""
    # Names that are no UTF-8 come through, as they do from the file system.
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = _csv_rows(file) if path.lower().endswith(".csv") else _text_rows(file)
            for row in rows:
                if any(row.fields):
                    yield row
    except FileNotFoundError:
        raise FileNotFoundError(f"data={path!r}: no such file") from None
    except csv.Error as error:
        raise ValueError(f"{path}: no .csv list ({error})") from None


def _csv_rows(file: Iterable[str]) -> Iterator[Row]:
    lines = iter(file)
    first = next(lines, "")
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")

    def all_lines() -> Iterator[str]:
        yield first
        yield from lines

    reader = csv.reader(all_lines(), delimiter=delimiter, skipinitialspace=True, strict=True)
    for fields in reader:
        yield Row(reader.line_num, [field.strip() for field in fields])


def _text_rows(file: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        text = line.strip()
        if text.lower().endswith(IMAGE_EXTENSIONS):
            yield Row(number, [text])  # a path alone, which may hold spaces
            continue
        mark = next((mark for mark in "\t," if mark in text), None)
        yield Row(number, [part.strip() for part in text.rsplit(mark, 1)])


def _columns(path: str, rows: Iterator[Row]) -> tuple[Iterator[Row], int, int | None]:
    """The rows without a header, and the columns of path and label; None: as many as the first row has."""
    first = next(rows, None)
    if first is None:
        return iter(()), 0, None
    words = [field.lower() for field in first.fields]
    path_words, label_words = (
        [n for n, word in enumerate(words) if word in known] for known in (_PATH_WORDS, _LABEL_WORDS)
    )
    if not path_words or words[path_words[0]].endswith(IMAGE_EXTENSIONS):
        if len(words) > 2:
            raise ValueError(
                f"{path}: line {first.line}: {len(words)} columns; expected 'path,label', or a first row that names"
                " the columns path and label"
            )

        def all_rows() -> Iterator[Row]:
            yield first
            yield from rows

        return all_rows(), 0, None
    at = path_words[0]
    label = next((n for n in label_words if n != at), None)
    if label is None and len(words) > 1:
        raise ValueError(f"{path}: line {first.line}: no column named 'label' among {', '.join(words)}; name it so")
    return rows, at, label


def _refuse_repeats(path: str, names: NameTable, hashes: array[int], lines: array[int]) -> None:
    """Raise ValueError if a path comes twice. Hashes first: a set of a million paths would take 150 MB."""
    order = np.argsort(np.frombuffer(hashes, np.int64), kind="stable")
    ordered = np.frombuffer(hashes, np.int64)[order]
    for at in np.flatnonzero(ordered[1:] == ordered[:-1]).tolist():
        one, two = sorted(order[at : at + 2].tolist())
        if names[one] == names[two]:
            raise ValueError(f"{path}: line {lines[two]}: {names[one]} again, as on line {lines[one]}; name it once")
