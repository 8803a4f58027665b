"""Files appear whole or not at all; JSON is strict; progress stays off pipes."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from has_dali.console import Terminal, atomic_file, check_writable, json_text, output_folder, write_json


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_file(target) as file:
        file.write(b"new, but not")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "picture.png"
    with atomic_file(target) as file:
        file.write(b"abc")
        assert not target.exists()
    assert target.read_bytes() == b"abc"
    assert list(tmp_path.iterdir()) == [target]
    other = tmp_path / "other"
    other.touch()
    assert target.stat().st_mode == other.stat().st_mode  # not the private mode of a temporary file


def test_the_bytes_are_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, synced = tmp_path / "index", list[int]()

    def fsync(descriptor: int) -> None:
        assert not target.exists()
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_file(target) as file:
        file.write(b"abc")
    assert synced == [3] and target.read_bytes() == b"abc"

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), atomic_file(target) as file:
        file.write(b"other")
    assert target.read_bytes() == b"abc" and list(tmp_path.iterdir()) == [target]


def test_json_is_strict_and_takes_numpy(tmp_path: Path) -> None:
    value = {"a": math.nan, "b": [np.float32(0.5), np.int64(3), math.inf], "c": Path("x"), "d": (True, None)}
    write_json(tmp_path / "f.json", value)
    assert json.loads((tmp_path / "f.json").read_text()) == {
        "a": None,
        "b": [0.5, 3, None],
        "c": "x",
        "d": [True, None],
    }
    assert "NaN" not in json_text(value)


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(FileNotFoundError, match=r"none.*does not exist; create it"):
        check_writable(tmp_path / "none" / "x.json")
    with pytest.raises(IsADirectoryError, match="give the name of a file"):
        check_writable(tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file; give the name of a folder"), output_folder(file):
        pass
    with output_folder(tmp_path / "a" / "b") as folder:
        assert folder.is_dir()
    assert folder.is_dir()


def test_progress_and_markup_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    with terminal.progress("working", 3) as advance:
        advance(note="half")
        advance(2)
    terminal.say("data: [bold] is a folder")
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out == "data: [bold] is a folder\n"


def test_table_and_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().table("Title", ["what", "value"], [["[row]", "1.5"]], "note")
    out = capsys.readouterr().out
    assert all(text in out for text in ("Title", "what", "[row]", "1.5", "note"))
    Terminal(quiet=True).table("Title", ["what"], [["row"]])
    Terminal(quiet=True).say("row")
    assert capsys.readouterr().out == ""


def test_output_folders_that_stay_empty_go_again(tmp_path: Path) -> None:
    for name, kept in (("empty", False), ("used", True)):
        with pytest.raises(ValueError, match="stop"), output_folder(tmp_path / "new" / name) as folder:
            if kept:
                (folder / "part.png").touch()
            raise ValueError("stop")
        assert folder.exists() is kept and (tmp_path / "new").exists() is kept
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="stop"), output_folder(tmp_path / "mine"):
        raise ValueError("stop")
    assert (tmp_path / "mine").is_dir()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc")
def test_errors_name_the_given_path() -> None:
    for attempt in (check_writable, lambda path: write_json(path, 1)):
        with pytest.raises(OSError, match=r"^/proc/x\.json: ") as caught:
            attempt(Path("/proc/x.json"))
        assert ".part" not in str(caught.value)
